"""Gaussian smoothing inside each object by itself, for all objects of a patch.

Smoothing an object's masked values needs its bounding box only. Boxes are rounded up to a few
sizes and objects of one size are smoothed together, as matrix products with a Gaussian along
each axis: exact (no truncation, nothing leaks between objects, the order of axes does not
matter), at the cost of the boxes' volume, 2 to 5 times the patch in real neuropil.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK = 1 << 20
"""Voxels of boxes that are worked on at once."""


class Boxes(NamedTuple):
    """Objects whose boxes have one size: labels (n,), first corners (n, S), the size."""

    labels: Tensor
    corner: Tensor
    size: tuple[int, ...]


def smooth_outer_products(
    vectors: Tensor, labels: Tensor, count: int, spacing: tuple[float, ...], sigma_nm: float
) -> Tensor:
    """sum_u G(u - v) g(u) g(u)^T over the voxels u of v's own object.

    Args:
        vectors: (S, *S) float32, the g.
        labels: (*S) int64 in 0..count, 0 for no object.
        spacing: nm, one per axis.
        sigma_nm: standard deviation of the Gaussian.

    Returns:
        (S * (S + 1) / 2, *S) float32: entries (i, j), i <= j, row by row; 0 outside of
        objects. The Gaussian is 1 at its centre, not normalised.
    """
    dims = labels.ndim
    pairs = [(i, j) for i in range(dims) for j in range(i, dims)]
    out = vectors.new_zeros((len(pairs), labels.numel()))
    flat, flat_labels = vectors.reshape(dims, -1), labels.flatten()
    kernels = [
        _gaussian(n, step / sigma_nm, vectors)
        for n, step in zip(labels.shape, spacing, strict=True)
    ]
    for boxes in _boxes(labels, count):
        index = _voxels(boxes, labels.shape)
        own = boxes.labels.view(-1, *[1] * dims)
        inside = flat_labels.index_select(0, index.flatten()).view(index.shape) == own
        g = [
            flat[i].index_select(0, index.flatten()).view(index.shape) * inside for i in range(dims)
        ]
        values = torch.stack([g[i] * g[j] for i, j in pairs])
        for axis, n in enumerate(boxes.size):
            values = _along(values, axis + 2, kernels[axis][:n, :n])
        kept = inside.flatten().nonzero().flatten()
        target = index.flatten().index_select(0, kept)
        for channel, value in zip(out, values, strict=True):
            channel.index_copy_(0, target, value.flatten().index_select(0, kept))
    return out.view(len(pairs), *labels.shape)


def _gaussian(size: int, step: float, like: Tensor) -> Tensor:
    """(size, size) matrix of exp(-(i - j)^2 step^2 / 2)."""
    place = torch.arange(size, device=like.device, dtype=like.dtype) * step
    return torch.exp(-0.5 * (place.view(-1, 1) - place).square())


def _along(values: Tensor, axis: int, kernel: Tensor) -> Tensor:
    """Multiply by a symmetric matrix along one axis."""
    size = values.shape[axis]
    if size == 1:
        return values
    tail = math.prod(values.shape[axis + 1 :])
    if tail == 1:
        return (values.reshape(-1, size) @ kernel).view(values.shape)
    return (kernel @ values.reshape(-1, size, tail)).view(values.shape)


def _voxels(boxes: Boxes, shape: torch.Size) -> Tensor:
    """(n, *size) flat indices of the boxes' voxels."""
    dims = len(shape)
    index = torch.zeros((1,) * (dims + 1), dtype=torch.int64, device=boxes.corner.device)
    for axis, n in enumerate(boxes.size):
        place = boxes.corner[:, axis : axis + 1] + torch.arange(n, device=index.device)
        view = [-1 if a == axis else 1 for a in range(dims)]
        index = index * shape[axis] + place.view(place.shape[0], *view[:axis], n, *view[axis + 1 :])
    return index


def _boxes(labels: Tensor, count: int) -> Iterator[Boxes]:
    """Bounding boxes of the objects, grouped by rounded size, in bounded chunks."""
    low, high = _extents(labels, count)
    present = (high[:, 0] >= 0).nonzero().flatten()
    low, high = low[present], high[present]
    shape = torch.tensor(labels.shape, device=labels.device)
    size = torch.minimum(_round_up(high - low + 1), shape)
    corner = torch.minimum(low, shape - size)  # rounding up never leaves the patch
    sizes, group, members = torch.unique(size, dim=0, return_inverse=True, return_counts=True)
    order = torch.split(torch.sort(group, stable=True).indices, members.tolist())
    for box, objects in zip(sizes.tolist(), order, strict=True):
        for chunk in torch.split(objects, max(1, _CHUNK // math.prod(box))):
            yield Boxes(present[chunk] + 1, corner[chunk], tuple(box))


def _extents(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First and last index of each object along each axis: (K, S) int64 each, -1 if absent."""
    lows, highs = [], []
    for axis, size in enumerate(labels.shape):
        view = [-1 if a == axis else 1 for a in range(labels.ndim)]
        index = torch.arange(size, device=labels.device)
        seen = torch.zeros((count + 1) * size, dtype=torch.bool, device=labels.device)
        seen[(labels * size + index.view(view)).flatten()] = True
        table = seen.view(count + 1, size)[1:]
        place = torch.where(table, index, -1)
        highs.append(place.amax(1))
        lows.append(torch.where(table, index, size).amin(1))
    return torch.stack(lows, 1), torch.stack(highs, 1)


def _round_up(size: Tensor) -> Tensor:
    """To 1, 2, 4, 8, then in steps of a quarter of the next lower power of two."""
    power = torch.floor(torch.log2(size.double()))
    step = torch.where(size > 8, 2.0 ** (power - 2), 2.0**power).clamp_min(1)
    return (torch.ceil(size / step) * step).long()
