"""Direction targets: the unit vector from a voxel to its object's centroid or skeleton."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.targets.objects import Objects


def voxel_coordinates(shape: torch.Size, device: torch.device) -> list[Tensor]:
    """Index along each axis, broadcastable to (B, *S), for B, *S = shape."""
    axes = range(1, len(shape))
    return [
        torch.arange(shape[a], device=device).view([-1 if i == a else 1 for i in range(len(shape))])
        for a in axes
    ]


def centroids(objects: Objects) -> Tensor:
    """Mean voxel index of each object's part in the patch.

    Returns:
        (K, S) float64, in voxels (exact sums: a centroid on a voxel is exactly on it).
    """
    shape = objects.labels.shape
    flat = objects.labels.flatten()
    means = []
    for axis, index in enumerate(voxel_coordinates(shape, flat.device), start=1):
        del axis
        weights = index.to(torch.float64).expand(shape).flatten()
        means.append(torch.bincount(flat, weights, minlength=objects.count + 1)[1:])
    return torch.stack(means, 1) / objects.voxels.unsqueeze(1)


def centroid_direction(objects: Objects, voxel_size_nm: Tensor) -> Tensor:
    """Unit vectors toward the centroid of the voxel's object, in physical space.

    Args:
        objects: the batch's objects.
        voxel_size_nm: (B, S) float.

    Returns:
        (B, S, *S) float32, channels in axis order; zero where the voxel is the centroid and
        outside of objects.

    Source: spec/clarifications.md, "L_dir".
    """
    shape = objects.labels.shape
    middle = torch.cat([voxel_size_nm.new_zeros((1, len(shape) - 1)).double(), centroids(objects)])
    offsets = []
    for axis, index in enumerate(voxel_coordinates(shape, objects.labels.device)):
        # Differences in voxels first: exact for a centroid on a voxel, whatever the voxel size.
        offsets.append(middle[:, axis].float()[objects.labels] - index)
    return unit_vectors(torch.stack(offsets, 1), objects.labels, voxel_size_nm)


def unit_vectors(offset: Tensor, labels: Tensor, voxel_size_nm: Tensor) -> Tensor:
    """Scale offsets in voxels (B, S, *S) to unit length in nm; zero outside of objects."""
    batch, dims = offset.shape[:2]
    vector = offset * voxel_size_nm.to(offset.dtype).view(batch, dims, *[1] * dims)
    length = vector.square().sum(1).sqrt_()
    scale = torch.where((length > 0) & (labels > 0), 1.0 / length, 0.0)
    return vector.mul_(scale.unsqueeze(1))
