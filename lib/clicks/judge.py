"""How strongly single voxels belong to the clicked object.

Cached features plus the prompts' residual go through the heads, and what comes out is compared
with what the heads say at the clicked voxels. The residual's constant part is folded into the
heads' first bias, and the layers that follow are one matrix product: a click evaluates them on
many thousand voxels. The products run in the precision in which the features are kept, as those
of the automatic mode do.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lib.networks.mask_head import LENGTH_NM
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import with_study_heads
from lib.prediction.feature_cache import WindowFeatures
from lib.prompts.encoder import SparseResidual, flat_index
from lib.prompts.points import POSITIVE, PointPrompts
from lib.volumes.boxes import box_shape

NOT_A_CANDIDATE = -8.0
"""Logit of voxels whose embedding is farther than 2 delta_d from every positive point's."""
CHUNK = 1 << 13
"""Voxels judged at once: what they need stays in the processor's cache."""
DEVICE_CHUNK = 1 << 17
"""The same on a device where each step has a price to start."""
ROWS = 1 << 10
"""Products take a multiple of this many rows: each new size has a price in half precision."""
CLASS_FLOOR = -4.0
"""Most that a foreign class can take from a voxel's logit."""


class ClickJudge:
    """Logits of voxels of one window, for one list of clicks.

    Args:
        net: in evaluation mode.
        window: of the cache.
        prompts: the clicks inside it, of one sample, at least one positive, none padding.
    """

    def __init__(self, net: NeuropilNet, window: WindowFeatures, prompts: PointPrompts) -> None:
        shape = box_shape(window.box)[: net.spatial_dims]
        self.net, self.window, self.prompts = net, window, prompts
        self.residual = net.sparse_residual(prompts, shape)
        self.positive = prompts.labels[0] == POSITIVE
        at = flat_index(prompts.coords[0], shape)
        self.centres = window.embedding[at[self.positive]].float()
        self._fold()
        # The published heads on both sides: what a study learned of classes is no part of `_fold`.
        clicked = with_study_heads(net, None).task_heads.rows(
            prompted_rows(window.features, at, self.residual), ("instance", "semantic")
        )
        self.embedding = clicked["instance"]
        self.kinds = (0.5 * clicked["semantic"][self.positive].log_softmax(1)).exp()

    def __call__(self, voxels: Tensor, places: Tensor) -> Tensor:
        """(M,) logits of voxels (M,) at places (M, 3)."""
        step = CHUNK if voxels.device.type == "cpu" else DEVICE_CHUNK
        parts = zip(torch.split(voxels, step), torch.split(places, step), strict=True)
        return torch.cat([self._part(v, p) for v, p in parts])

    def _part(self, voxels: Tensor, places: Tensor) -> Tensor:
        near = self._candidates(voxels)
        everything = len(near) == len(voxels)
        logits = torch.full((len(voxels),), NOT_A_CANDIDATE, device=voxels.device)
        if not everything:
            voxels, places = voxels[near], places[near]
        embedding, context, semantic = self._heads(voxels)
        mine = self._object(embedding, context, places)
        mine = torch.where(mine > 0, mine + self._class_evidence(semantic), mine)
        return mine if everything else logits.index_copy_(0, near, mine)

    def _fold(self) -> None:
        """The layers as two matrix products, the first with the residual's constant part."""
        heads, head = self.net.task_heads, self.net.mask_head
        weight, bias = heads.kernel("shared")
        shared = (weight, bias + (weight @ self.residual.background[0]))
        layers = [heads.kernel("instance"), heads.kernel("semantic")]
        if head is not None:
            layers.append((head.context.weight, head.context.bias))
        self._sizes = [len(bias) for _, bias in layers]
        kept = self.window.features.dtype
        self._type = kept if kept == torch.bfloat16 else torch.float32
        self._shared = [t.to(self._type) for t in shared]
        self._layers = [torch.cat(t).to(self._type) for t in zip(*layers, strict=True)]

    def _heads(self, voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding (M, E), the mask head's context (M, width) or nothing, classes (M, C)."""
        count = len(voxels)
        filled = functional.pad(voxels, (0, -count % ROWS))
        rows = self.window.features.index_select(0, filled).to(self._type)
        hit, values = corrections(voxels, self.residual)
        rows[hit] += (values - self.residual.background).to(self._type)
        hidden = functional.linear(rows, *self._shared).relu_()
        out = functional.linear(hidden, *self._layers)[:count].float()
        embedding, semantic, *context = torch.split(out, self._sizes, 1)
        return embedding, context[0] if context else out[:, :0], semantic

    def _candidates(self, voxels: Tensor) -> Tensor:
        """Which voxels' automatic embedding is within 2 delta_d of a positive point's."""
        rows = self.window.embedding.index_select(0, voxels).float()
        apart = squared_distances(self.centres, rows).amin(0)
        return (apart < (2 * self.net.delta_d) ** 2).nonzero().squeeze(1)

    def _object(self, embedding: Tensor, context: Tensor, places: Tensor) -> Tensor:
        """(M,) by the mask head where there is one, else by embedding distance alone."""
        apart = squared_distances(self.embedding, embedding).sqrt_()
        head = self.net.mask_head
        if head is not None:
            assert self.prompts.voxel_size_nm is not None
            scale = self.prompts.voxel_size_nm[0] / LENGTH_NM
            dims = self.net.spatial_dims
            points = self.prompts.coords[0].float() * scale
            space = squared_distances(points, places[:, :dims] * scale).sqrt_()
            return head.decide(context, apart, space, self.prompts.labels[0])
        margin = self.net.delta_d
        positive = apart[self.positive].amin(0)
        logits = 3.0 * (margin - positive)
        negative = apart[~self.positive]
        if len(negative):
            logits += 2.0 * (negative.amin(0) - positive).clamp(-margin, margin)
        return logits

    def _class_evidence(self, semantic: Tensor) -> Tensor:
        """(M,) at most 0: voxels whose classes differ from those at every positive point.

        The overlap of two class distributions (Bhattacharyya coefficient) as a logarithm.
        """
        here = (0.5 * (semantic - semantic.amax(1, keepdim=True))).exp_()
        overlap: Tensor = (self.kinds @ here.t()).amax(0) / torch.linalg.vector_norm(here, dim=1)
        return overlap.clamp_(min=1e-6).log_().clamp_(min=CLASS_FLOOR)


def squared_distances(points: Tensor, rows: Tensor) -> Tensor:
    """(N, M) between (N, C) and (M, C), as one matrix product; rounding makes none negative."""
    own = rows.square() @ rows.new_ones(rows.shape[1])
    away = torch.addmm(points.square().sum(1, keepdim=True), points, rows.t(), alpha=-2.0)
    return away.add_(own).clamp_(min=0.0)


def corrections(index: Tensor, residual: SparseResidual) -> tuple[Tensor, Tensor]:
    """Which of some voxels (M,) a residual is not its background at, and its values there.

    Returns:
        (K,) int64 into `index`; (K, F).
    """
    if not len(residual.index):
        return residual.index, residual.values
    place = torch.searchsorted(residual.index, index).clamp_(max=len(residual.index) - 1)
    hit = (residual.index[place] == index).nonzero().squeeze(1)
    return hit, residual.values[place[hit]]


def prompted_rows(features: Tensor, index: Tensor, residual: SparseResidual) -> Tensor:
    """Features plus residual at some voxels.

    Args:
        features: (V, F) of one sample.
        index: (M,) int64 voxels.
        residual: of one sample, over V voxels.

    Returns:
        (M, F) float32.
    """
    rows = features.index_select(0, index).float() + residual.background
    hit, values = corrections(index, residual)
    rows[hit] += values - residual.background
    return rows
