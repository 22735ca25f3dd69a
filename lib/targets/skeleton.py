"""Skeletons of all objects of a patch, and directions to them."""

from __future__ import annotations

import kimimaro
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from lib.targets.direction import unit_vectors

_TEASAR = {"scale": 2.0, "const": 50.0, "pdrf_scale": 100000, "pdrf_exponent": 4}


def skeleton_mask(labels: NDArray[np.int64], spacing: tuple[float, ...]) -> NDArray[np.bool_]:
    """The voxels of the objects' centrelines.

    Independent of the network and of augmentation by flips, turns and crops, so it can be
    computed once for an item and cached with it (batch key "skeleton").

    Args:
        labels: (*S) ids, 0 or less for none.
        spacing: nm, one per axis.

    Returns:
        (*S) bool. Small objects may have no voxel in it.

    Source: TEASAR (Sato et al. 2000) as implemented by kimimaro (Silversmith et al. 2021).
    """
    shape3 = (*labels.shape, *[1] * (3 - labels.ndim))
    spacing3 = (*spacing, *[1.0] * (3 - labels.ndim))
    volume = np.asfortranarray(np.maximum(labels, 0).astype(np.uint32).reshape(shape3))
    skeletons = kimimaro.skeletonize(
        volume,
        teasar_params=_TEASAR,
        dust_threshold=0,
        anisotropy=spacing3,
        fix_borders=False,
        progress=False,
        parallel=1,
    )
    mask = np.zeros(shape3, bool)
    for skeleton in skeletons.values():
        index = np.rint(skeleton.vertices / np.asarray(spacing3, np.float32)).astype(np.int64)
        mask[tuple(index.T)] = True
    return mask.reshape(labels.shape) & (labels > 0)


def skeleton_direction(
    labels: Tensor, depth: Tensor, voxel_size_nm: Tensor, cached: Tensor | None = None
) -> Tensor:
    """Unit vectors toward the nearest skeleton voxel of the voxel's object.

    An object without skeleton voxel in the patch (tiny, or cut by the patch after the
    skeleton was cached) uses its deepest voxels instead. Runs on the CPU: label maps on a GPU
    are copied to the host, as no skeletonisation for GPUs is at hand.

    Args:
        labels: (B, *S) int64, 0 none, unique over the batch.
        depth: (B, *S) float32, d / max d of the object.
        voxel_size_nm: (B, S) float.
        cached: (B, *S) bool, skeleton voxels of the item; None computes them here.

    Returns:
        (B, S, *S) float32; zero on the skeleton and outside of objects.
    """
    host, deep, spacings = labels.cpu().numpy(), depth.cpu().numpy(), voxel_size_nm.tolist()
    offsets = []
    for b, spacing in enumerate(spacings):
        if cached is None:
            mask = skeleton_mask(host[b], tuple(spacing))
        else:
            mask = cached[b].cpu().numpy() & (host[b] > 0)
        offsets.append(_nearest_offset(host[b], _complete(mask, host[b], deep[b]), spacing))
    offset = torch.from_numpy(np.stack(offsets)).to(labels.device)
    return unit_vectors(offset, labels, voxel_size_nm)


def _complete(
    mask: NDArray[np.bool_], labels: NDArray[np.int64], depth: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Add the deepest voxels of the objects that have none in the mask."""
    count = int(labels.max(initial=0)) + 1
    has = np.zeros(count, bool)
    has[labels[mask]] = True
    has[0] = True
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, labels.ravel(), depth.ravel())
    missing = ~has[labels]
    completed: NDArray[np.bool_] = mask | (missing & (depth >= deepest[labels]))
    return completed


def _nearest_offset(
    labels: NDArray[np.int64], mask: NDArray[np.bool_], spacing: list[float]
) -> NDArray[np.float32]:
    """(S, *S) offset in voxels to the nearest voxel of `mask` with the same label.

    One k-d tree serves all objects: the label is a further coordinate, so far apart that
    another object's voxel is never the nearest.
    """
    offset = np.zeros((labels.ndim, *labels.shape), np.float32)
    inside, sites = np.nonzero(labels > 0), np.nonzero(mask)
    if sites[0].size == 0:
        return offset
    apart = 2.0 * float(np.linalg.norm(np.multiply(labels.shape, spacing))) + 1.0

    def points(where: tuple[NDArray[np.intp], ...]) -> NDArray[np.float64]:
        place = [w * s for w, s in zip(where, spacing, strict=True)]
        return np.stack([*place, labels[where] * apart], 1)

    tree = cKDTree(points(sites))
    _, nearest = tree.query(points(inside), workers=torch.get_num_threads())
    for axis in range(labels.ndim):
        offset[(axis, *inside)] = sites[axis][nearest] - inside[axis]
    return offset
