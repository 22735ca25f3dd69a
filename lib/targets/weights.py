"""Voxel weights of the pull term: object borders (edge) and medial axes (bone)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def edge_mask(instance: Tensor) -> Tensor:
    """Where the 3^S neighbourhood of a known voxel holds another known id.

    The smallest and the largest known id of the neighbourhood, axis by axis: both equal the
    voxel's own id exactly where there is no other.

    Args:
        instance: (B, *S) int64 compact ids (below 2^31), 0 none (it counts as an id),
            negative unknown (it does not).

    Returns:
        (B, *S) bool, False at unknown voxels.

    Source: spec/clarifications.md, "weight_edge".
    """
    known = instance >= 0
    ids = instance.to(torch.int32)
    largest = torch.where(known, ids, -1)
    smallest = torch.where(known, ids, torch.iinfo(torch.int32).max)
    for axis in range(1, instance.ndim):
        largest = _over_neighbours(largest, axis, torch.maximum)
        smallest = _over_neighbours(smallest, axis, torch.minimum)
    return known & ((largest != ids) | (smallest != ids))


def pull_weights(
    instance: Tensor, depth: Tensor | None, weight_edge: float, weight_bone: float
) -> Tensor:
    """Edge weight times bone weight.

    Args:
        instance: (B, *S) int64 as in `edge_mask`.
        depth: (B, *S) float32, d / max d of the object; None with `weight_bone` 1.
        weight_edge: weight of a voxel at a border; 1 skips it.
        weight_bone: weight of the object's deepest voxel; 1 skips it.

    Returns:
        (B, *S) float32 in [1, weight_edge * weight_bone]; 0 where there is no object.

    Source: spec/clarifications.md, "weight_edge", "weight_bone", "Large edge times bone".
    """
    weight = (instance > 0).to(torch.float32)
    if weight_edge != 1.0:
        weight *= 1.0 + (weight_edge - 1.0) * edge_mask(instance)
    if weight_bone != 1.0:
        assert depth is not None
        weight *= 1.0 + (weight_bone - 1.0) * depth
    return weight


def _over_neighbours(
    values: Tensor, axis: int, reduce: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Reduce over the voxel and its two neighbours along one axis."""
    size = values.shape[axis]
    out = values.clone()
    for into, source in ((0, 1), (1, 0)):
        inner = out.narrow(axis, into, size - 1)
        inner.copy_(reduce(inner, values.narrow(axis, source, size - 1)))
    return out
