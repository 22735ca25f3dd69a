"""Structure tensor targets: the local shape of an object, from its distance transform."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.targets.smoothing import smooth_outer_products


def structure_tensors(
    distance: Tensor,
    depth: Tensor,
    labels: Tensor,
    unknown: Tensor,
    count: int,
    voxel_size_nm: Tensor,
    sigma_nm: float,
) -> Tensor:
    """`structure_tensor` of each sample: (B, *S) maps and (B, S) nm to (B, S * S, *S)."""
    return torch.stack(
        [
            structure_tensor(
                distance[b], depth[b], labels[b], unknown[b], count, tuple(spacing), sigma_nm
            )
            for b, spacing in enumerate(voxel_size_nm.tolist())
        ]
    )


def structure_tensor(
    distance: Tensor,
    depth: Tensor,
    labels: Tensor,
    unknown: Tensor,
    count: int,
    spacing: tuple[float, ...],
    sigma_nm: float,
) -> Tensor:
    """Smoothed outer product of the distance's unit gradient, for all objects of one patch.

    J = G_sigma * (g g^T) inside the object, scaled to trace 1, blended toward I/S by `depth`.
    Where J is zero (an object without boundary, a flat distance) the target is I/S.

    Args:
        distance: (*S) float32 nm from `object_distance`.
        depth: (*S) float32, d / max d of the object.
        labels: (*S) int64 in 0..count, 0 none.
        unknown: (*S) bool.
        count: number of objects.
        spacing: nm, one per axis.
        sigma_nm: standard deviation of the smoothing, which never crosses the object's border.

    Returns:
        (S * S, *S) float32, row by row; 0 outside of objects.

    Source: spec/clarifications.md, "L_cov".
    """
    dims = labels.ndim
    gradient = _unit_gradient(distance, labels, unknown, spacing)
    pairs = [(i, j) for i in range(dims) for j in range(i, dims)]
    smooth = smooth_outer_products(gradient, labels, count, spacing, sigma_nm)
    trace = sum((smooth[pairs.index((i, i))] for i in range(dims)), torch.zeros_like(depth))
    inside = labels > 0
    scale = torch.where(inside & (trace > 0), (1.0 - depth) / trace, 0.0)
    isotropic = torch.where(trace > 0, depth, 1.0).mul_(inside) / dims
    out = torch.empty((dims * dims, *labels.shape), device=labels.device)
    for (i, j), channel in zip(pairs, smooth, strict=True):
        torch.mul(channel, scale, out=out[dims * i + j])
        if i == j:
            out[dims * i + j] += isotropic
        else:
            out[dims * j + i] = out[dims * i + j]
    return out


def _unit_gradient(
    distance: Tensor, labels: Tensor, unknown: Tensor, spacing: tuple[float, ...]
) -> Tensor:
    """(S, *S) unit gradient of each object's own distance, which is 0 outside of the object.

    Central differences; one-sided where a neighbour is unknown or beyond the patch.
    """
    d = torch.where(torch.isfinite(distance), distance, 0.0)
    parts = []
    for axis, step in enumerate(spacing):
        difference, reach = torch.zeros_like(d), torch.zeros_like(d)
        size = d.shape[axis]
        if size > 1:
            for here, there, sign in ((0, 1, 1.0), (1, 0, -1.0)):
                a, b = (here, size - 1), (there, size - 1)
                same = labels.narrow(axis, *a) == labels.narrow(axis, *b)
                usable = ~unknown.narrow(axis, *b)
                value = torch.where(same, d.narrow(axis, *b), 0.0) - d.narrow(axis, *a)
                difference.narrow(axis, *a).add_(torch.where(usable, value, 0.0), alpha=sign)
                reach.narrow(axis, *a).add_(usable, alpha=step)
        parts.append(torch.where(reach > 0, difference / reach, 0.0))
    gradient = torch.stack(parts)
    length = gradient.square().sum(0).sqrt_()
    return gradient.mul_(torch.where((length > 0) & (labels > 0), 1.0 / length, 0.0))
