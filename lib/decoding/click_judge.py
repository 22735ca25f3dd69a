"""How strongly single voxels belong to the clicked object.

Cached features plus the prompts' residual go through the heads, and what comes out is compared
with what the heads say at the clicked voxels. The residual's constant part is folded into the
heads' first bias, and the layers that follow are one matrix product: a click evaluates them on
many thousand voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lib.decoding.feature_cache import WindowFeatures
from lib.networks.mask_head import LENGTH_NM
from lib.networks.model import NeuropilNet
from lib.prompts.encoder import SparseResidual, flat_index
from lib.prompts.points import POSITIVE, PointPrompts
from lib.volumes.boxes import box_shape

NOT_A_CANDIDATE = -8.0
"""Logit of voxels whose embedding is farther than 2 delta_d from every positive point's."""
CHUNK = 1 << 13
"""Voxels judged at once: what they need stays in the processor's cache."""
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
        clicked = net.task_heads.rows(
            prompted_rows(window.features, at, self.residual), ("instance", "semantic")
        )
        self.embedding = clicked["instance"]
        self.kinds = (0.5 * clicked["semantic"][self.positive].log_softmax(1)).exp().t()

    def __call__(self, voxels: Tensor, places: Tensor) -> Tensor:
        """(M,) logits of voxels (M,) at places (M, 3)."""
        parts = zip(torch.split(voxels, CHUNK), torch.split(places, CHUNK), strict=True)
        return torch.cat([self._part(v, p) for v, p in parts])

    def _part(self, voxels: Tensor, places: Tensor) -> Tensor:
        logits = torch.full((len(voxels),), NOT_A_CANDIDATE, device=voxels.device)
        near = self._candidates(voxels)
        if len(near) < len(voxels):
            voxels, places = voxels[near], places[near]
        rows = self.window.features.index_select(0, voxels).float()
        hit, values = corrections(voxels, self.residual)
        rows[hit] += values - self.residual.background
        hidden = functional.linear(rows, *self._shared).relu_()
        both = functional.linear(hidden, *self._layers)
        size = self.net.embedding_size
        mine = self._object(both[:, :size], both[:, size:], places)
        inside = (mine > 0).nonzero().squeeze(1)
        mine[inside] += self._class_evidence(hidden.index_select(0, inside))
        logits[near] = mine
        return logits

    def _fold(self) -> None:
        heads = self.net.task_heads
        weight, bias = heads.kernel("shared")
        self._shared = (weight, bias + (weight @ self.residual.background[0]))
        weight, bias = heads.kernel("instance")
        if self.net.mask_head is not None:
            context = self.net.mask_head.context
            weight, bias = torch.cat((weight, context.weight)), torch.cat((bias, context.bias))
        self._layers = (weight, bias)
        self._semantic = heads.kernel("semantic")

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

    def _class_evidence(self, hidden: Tensor) -> Tensor:
        """(M,) at most 0: voxels whose classes differ from those at every positive point.

        The overlap of two class distributions (Bhattacharyya coefficient) as a logarithm.
        """
        semantic = functional.linear(hidden, *self._semantic)
        here = (0.5 * (semantic - semantic.amax(1, keepdim=True))).exp_()
        overlap: Tensor = (here @ self.kinds).amax(1) / torch.linalg.vector_norm(here, dim=1)
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
