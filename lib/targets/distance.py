"""Distance inside objects, for all objects of a patch at once.

The distance of an object's voxel is the Euclidean distance in nm to the centre of the nearest
voxel that is *known* to belong to something else (another object or no object). The patch's
border and unknown voxels are no boundary (spec/clarifications.md).
"""

from __future__ import annotations

import edt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 1 << 24
"""Elements of the intermediate of one min-plus chunk: 64 MiB of float32."""


def object_distance(labels: Tensor, unknown: Tensor, voxel_size_nm: Tensor) -> Tensor:
    """Distance of each voxel of an object to the nearest known voxel outside of it.

    On the CPU one multilabel `edt` call serves all objects of a sample. On a GPU the same
    distances come from an exact separable transform in torch, so that label maps stay there.
    Objects that touch unknown voxels need 2 * ceil(log2(n + 1)) more transforms for all n of
    them together (see `_beside_unknown`).

    Args:
        labels: (B, *S) int64, 0 for no object, unique over the batch.
        unknown: (B, *S) bool, where it is not known whether there is an object.
        voxel_size_nm: (B, S) float.

    Returns:
        (B, *S) float32 nm; 0 outside of objects, inf in an object without any boundary.
    """
    spacings = voxel_size_nm.tolist()
    if labels.is_cuda:
        parts = [
            _patch_distance_torch(labels[b], unknown[b], tuple(spacings[b]))
            for b in range(labels.shape[0])
        ]
        return torch.stack(parts)
    maps = [
        _patch_distance(labels[b].numpy(), unknown[b].numpy(), tuple(spacings[b]))
        for b in range(labels.shape[0])
    ]
    return torch.from_numpy(np.stack(maps))


def _patch_distance(
    labels: NDArray[np.int64], unknown: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.float32]:
    small = np.ascontiguousarray(labels, dtype=np.uint32)
    distance = _edt(small, spacing)
    if unknown.any() and (beside := np.unique(small[_touching(small, unknown)])).size:
        rank = np.zeros(int(small.max()) + 1, np.uint32)
        rank[beside] = np.arange(1, beside.size + 1)
        codes = rank[small]
        others = np.full(labels.shape, np.inf, np.float32)
        for bit in range(int(beside.size).bit_length()):
            ones = (codes >> bit & 1).astype(bool)
            to_ones = _edt((unknown | ~ones).astype(np.uint8), spacing)
            to_zeros = _edt((unknown | ones).astype(np.uint8), spacing)
            np.minimum(others, np.where(ones, to_zeros, to_ones), out=others)
        distance = np.where(codes > 0, others, distance)
    return distance


def _edt(labels: NDArray[np.generic], spacing: tuple[float, ...]) -> NDArray[np.float32]:
    """Multilabel Euclidean distance; inf where a label has no boundary in the patch."""
    distance: NDArray[np.float32] = edt.edt(
        labels, anisotropy=spacing, black_border=False, parallel=torch.get_num_threads()
    )
    # Without any boundary edt returns inf or a huge float, depending on its version.
    limit = np.linalg.norm(np.multiply(labels.shape, spacing))
    distance[distance > limit] = np.inf
    return distance


def _touching(labels: NDArray[np.uint32], unknown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Object voxels with an unknown voxel as face neighbour.

    An object without such a voxel has no unknown voxel as its nearest outside voxel: the
    neighbour of the nearest one, a step toward the object, is nearer and so in the object.
    """
    near = np.zeros_like(unknown)
    for axis in range(labels.ndim):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(labels.ndim))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(labels.ndim))
        near[low] |= unknown[high]
        near[high] |= unknown[low]
    touching: NDArray[np.bool_] = near & (labels > 0)
    return touching


def _patch_distance_torch(labels: Tensor, unknown: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """`_patch_distance` in torch; exact, O(n) per voxel and axis of length n."""
    if not bool(unknown.any()):
        return _separable(labels, spacing).sqrt_()
    # Bits of the labels themselves: on a GPU a transform costs less than choosing them.
    others = torch.full(labels.shape, torch.inf, device=labels.device)
    for bit in range(int(labels.max()).bit_length()):
        ones = (labels >> bit & 1).bool()
        to_ones = _separable((unknown | ~ones).to(torch.int64), spacing)
        to_zeros = _separable((unknown | ones).to(torch.int64), spacing)
        others = torch.minimum(others, torch.where(ones, to_zeros, to_ones))
    return torch.where(labels > 0, others, 0.0).sqrt_()


def _separable(labels: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Squared multilabel distance, axis by axis.

    Source: Saito & Toriwaki, "New algorithms for Euclidean distance transformation", 1994,
    with other labels as sites at every axis.
    """
    squared = torch.full(labels.shape, torch.inf, device=labels.device)
    for axis, step in enumerate(spacing):
        lines = labels.movedim(axis, -1)
        size = lines.shape[-1]
        flat_labels = lines.reshape(-1, size)
        flat = squared.movedim(axis, -1).reshape(-1, size)
        position = torch.arange(size, device=labels.device, dtype=torch.float32) * step
        gap = (position.view(-1, 1) - position) ** 2
        chunk = max(1, _CHUNK // size**2)
        parts = [
            (torch.where(a.unsqueeze(-1) == a.unsqueeze(-2), f.unsqueeze(-2), 0.0) + gap).amin(-1)
            for a, f in zip(torch.split(flat_labels, chunk), torch.split(flat, chunk), strict=True)
        ]
        squared = torch.cat(parts).view(lines.shape).movedim(-1, axis)
    return torch.where(labels > 0, squared, 0.0)


def relative_distance(distance: Tensor, labels: Tensor, count: int) -> Tensor:
    """d / max d of the object.

    Args:
        distance: (B, *S) from `object_distance`.
        labels: (B, *S) int64 in 0..count.

    Returns:
        (B, *S) float32 in [0, 1]; 0 outside of objects and in an object without boundary.
    """
    finite = torch.where(torch.isfinite(distance), distance, 0.0)
    largest = torch.zeros(count + 1, device=distance.device)
    largest.scatter_reduce_(0, labels.flatten(), finite.flatten(), "amax")
    largest[0] = 0.0
    return finite * torch.where(largest > 0, 1.0 / largest, 0.0)[labels]
