"""How strongly each voxel of one window belongs to the clicked object.

Features come from the cache; a click costs one product with the cached embedding to find the
voxels that can belong to the object at all, and the heads on those few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lib.decoding.feature_cache import WindowFeatures
from lib.decoding.forward import Precision, use_bfloat16
from lib.networks.model import NeuropilNet
from lib.prompts.encoder import SparseResidual, flat_index, unflat_index
from lib.prompts.points import POSITIVE, PointPrompts
from lib.volumes.boxes import Box, Triple, box_shape

NOT_A_CANDIDATE = -8.0
"""Logit of voxels whose embedding is farther than 2 delta_d from every positive point's."""
STAND_INS = 5
"""Negative points the mask head is used to from training (training.num_neg_points)."""
CHUNK = 1 << 13
"""Voxels judged at once: what they need stays in the processor's cache."""
LOOK_CLOSER = -3.0
"""Logit from which the neighbours of a voxel are judged as well."""
LATTICE = (5, 5, 3)
"""Voxels of a window, along each axis, among which stand-ins are looked for."""
CLASS_FLOOR = -4.0
"""Most that a foreign class can take from a voxel's logit."""


@dataclass(frozen=True)
class WindowPoints:
    """Points inside one window, relative to its first voxel.

    Args:
        positive: (P, 3) int64, at least one.
        negative: (N, 3) int64.
        class_id: fine class the clicked object is said to have, -1 none.
        instance: whether the object is one instance (else a class).
    """

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    class_id: int
    instance: bool

    def prompts(self, voxel_size_nm: tuple[float, float, float], dims: int) -> PointPrompts:
        """As the network takes them."""
        return PointPrompts.from_clicks(
            self.positive[:, :dims].tolist(),
            self.negative[:, :dims].tolist(),
            self.class_id,
            self.instance,
            voxel_size_nm[:dims],
            dims,
        )


def compute_features(
    net: NeuropilNet, box: Box, patch: NDArray[np.float32], precision: Precision
) -> WindowFeatures:
    """The backbone on one window, in half precision for the cache.

    Args:
        net: in evaluation mode.
        box: the window.
        patch: (x, y, z) normalised image of it.
        precision: of the computation.
    """
    device = next(net.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(patch)).to(device)[None, None]
    if net.spatial_dims == 2:
        assert patch.shape[2] == 1, "a two-dimensional network sees one section at a time"
        image = image.squeeze(-1)
    half = use_bfloat16(precision, device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        volume = net.features(image)[0]
    with torch.inference_mode():
        features = volume.movedim(0, -1).reshape(-1, volume.shape[0]).to(torch.float16)
        embedding = [
            net.task_heads.rows(part.float(), ("instance",))["instance"].half().t()
            for part in torch.split(features, 1 << 16)
        ]
        return WindowFeatures(box, features, torch.cat(embedding, 1))


def window_logits(
    net: NeuropilNet,
    window: WindowFeatures,
    points: WindowPoints,
    voxel_size_nm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """(x, y, z) logit of belonging to the clicked object, in one window."""
    shape = box_shape(window.box)
    dims = net.spatial_dims
    device = window.features.device
    if net.mask_head is not None:
        points = with_stand_ins(window, points, 2 * net.delta_d)
    prompts = points.prompts(voxel_size_nm, dims).to(device)
    with torch.inference_mode():
        residual = net.sparse_residual(prompts, shape[:dims])
        at = flat_index(prompts.coords[0], shape[:dims])
        index = _candidates(window.embedding, at[prompts.labels[0] == POSITIVE], 2 * net.delta_d)
        voxels, which = torch.unique(at, return_inverse=True)
        clicked = net.task_heads.rows(
            prompted_rows(window.features, voxels, residual)[which], ("instance", "semantic")
        )
        whole = torch.full((window.features.shape[0],), NOT_A_CANDIDATE, device=device)

        def judge(voxels: Tensor) -> None:
            logits = [
                _logits_at(net, window.features, part, residual, clicked, prompts, shape[:dims])
                for part in torch.split(voxels, CHUNK)
            ]
            whole[voxels] = torch.cat(logits)

        if len(index) <= CHUNK:
            judge(index)
        else:
            # Every second voxel in plane first, then the rest where those come near.
            sparse = _every_second(shape).to(device)[index]
            judge(index[sparse])
            near = _near(whole.view(shape), prompts.coords[0])
            judge(index[~sparse & near.flatten()[index]])
    values: NDArray[np.float32] = whole.view(shape).cpu().numpy()
    return values


def _every_second(shape: Triple) -> Tensor:
    """(V,) bool: voxels whose place in plane is even along both axes."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[::2, ::2] = True
    return mask.flatten()


def _near(logits: Tensor, points: Tensor) -> Tensor:
    """(x, y, z) bool: blocks of 2 x 2 voxels in plane whose first voxel, or a neighbour's, may
    belong to the object, and those of the points."""
    first = logits[::2, ::2].clone()
    for point in points.tolist():
        x, y, z = (*point, 0)[:3]
        first[x // 2, y // 2, z] = first[x // 2, y // 2, z].clamp(min=LOOK_CLOSER)
    best = functional.max_pool3d(first[None, None], (3, 3, 1), 1, (1, 1, 0))[0, 0]
    near = (best >= LOOK_CLOSER).repeat_interleave(2, 0).repeat_interleave(2, 1)
    return near[: logits.shape[0], : logits.shape[1]]


def _logits_at(
    net: NeuropilNet,
    features: Tensor,
    index: Tensor,
    residual: SparseResidual,
    clicked: dict[str, Tensor],
    prompts: PointPrompts,
    shape: tuple[int, ...],
) -> Tensor:
    """(M,) logits of some voxels, given what the heads say at the points (`clicked`)."""
    rows = prompted_rows(features, index, residual)
    out = net.task_heads.rows(rows, ("instance",))
    logits = _object_logits(net, out, clicked, prompts, unflat_index(index, shape))
    inside = (logits > 0).nonzero().squeeze(1)
    semantic = net.task_heads.rows(rows.index_select(0, inside), ("semantic",))["semantic"]
    logits[inside] += _class_evidence(semantic, clicked["semantic"], prompts)
    return logits


def with_stand_ins(window: WindowFeatures, points: WindowPoints, reach: float) -> WindowPoints:
    """Points, with negative ones added that no answer could contain.

    The mask head learns from several negative points anywhere outside the object and judges a
    voxel beside them; a first click comes without any. Voxels of a fixed lattice that are
    farther than `reach` in embedding from every positive point take their place.

    Args:
        window: features and embedding.
        points: of the annotator.
        reach: embedding distance beyond which no voxel is a candidate.
    """
    missing = STAND_INS - len(points.negative)
    if missing <= 0:
        return points
    shape = box_shape(window.box)
    marks = [
        np.unique(np.linspace(0.1 * n, 0.9 * n, k).astype(np.int64).clip(0, n - 1))
        for n, k in zip(shape, LATTICE, strict=True)
    ]
    places = np.stack(np.meshgrid(*marks, indexing="ij"), -1).reshape(-1, 3)
    at, own = (
        window.embedding[:, torch.from_numpy(np.ravel_multi_index(tuple(p.T), shape))].float().t()
        for p in (places, points.positive)
    )
    far = np.flatnonzero((torch.cdist(at, own).amin(1) > reach).cpu().numpy())
    if not len(far):
        return points
    chosen = np.unique(np.linspace(0, len(far) - 1, missing).astype(np.int64))
    negative = np.concatenate((points.negative, places[far[chosen]]))
    return WindowPoints(points.positive, negative, points.class_id, points.instance)


def prompted_rows(features: Tensor, index: Tensor, residual: SparseResidual) -> Tensor:
    """Features plus residual at some voxels.

    Args:
        features: (V, F) of one sample.
        index: (M,) int64 voxels, ascending and unique.
        residual: of one sample, over V voxels.

    Returns:
        (M, F) float32.
    """
    rows = features.index_select(0, index).float() + residual.background
    # Corrections are few, and both lists of voxels are sorted.
    place = torch.searchsorted(index, residual.index)
    found = place < len(index)
    found[found.clone()] = index[place[found]] == residual.index[found]
    rows[place[found]] += residual.values[found] - residual.background
    return rows


def _candidates(embedding: Tensor, positive: Tensor, reach: float) -> Tensor:
    """(M,) voxels whose automatic embedding is within `reach` of a positive point's, ascending.

    Args:
        embedding: (E, V); this way round the products run along memory.
        positive: (P,) voxels of the positive points.
    """
    rows = embedding.float()
    centres = rows[:, positive]
    # |e - p|^2 < r^2, without the square of e for each p
    score = torch.addmm(
        (reach * reach - centres.square().sum(0)).unsqueeze(1), centres.t(), rows, alpha=2.0
    ).amax(0)
    return (score > rows.square().sum(0)).nonzero().squeeze(1)


def _object_logits(
    net: NeuropilNet,
    out: dict[str, Tensor],
    clicked: dict[str, Tensor],
    prompts: PointPrompts,
    place: Tensor,
) -> Tensor:
    """(M,) by the mask head where there is one, else by embedding distance alone."""
    labels = prompts.labels[0]
    if net.mask_head is not None:
        assert prompts.voxel_size_nm is not None
        return net.mask_head.at(
            out["hidden"],
            out["instance"],
            place,
            clicked["instance"],
            prompts.coords[0],
            labels,
            prompts.voxel_size_nm[0],
        )
    margin = net.delta_d
    apart = torch.cdist(out["instance"], clicked["instance"])
    positive = apart[:, labels == POSITIVE].amin(1)
    logits = 3.0 * (margin - positive)
    negative = apart[:, labels != POSITIVE]
    if negative.shape[1]:
        logits += 2.0 * (negative.amin(1) - positive).clamp(-margin, margin)
    return logits


def _class_evidence(semantic: Tensor, clicked: Tensor, prompts: PointPrompts) -> Tensor:
    """(M,) at most 0: voxels whose classes differ from those at every positive point.

    The overlap of two class distributions (Bhattacharyya coefficient) as a logarithm.
    """
    here = (0.5 * semantic.log_softmax(1)).exp()
    there = (0.5 * clicked[prompts.labels[0] == POSITIVE].log_softmax(1)).exp()
    overlap = (here @ there.t()).amax(1).clamp(min=1e-6)
    return overlap.log().clamp(min=CLASS_FLOOR)
