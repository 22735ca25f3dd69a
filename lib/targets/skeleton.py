"""Skeletons of all objects of a patch, and directions to them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize
from torch import Tensor

from lib.targets.direction import unit_vectors


def skeleton_mask(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The voxels of the objects' centrelines, by one thinning of the whole patch.

    Objects that touch are parted by one layer of voxels first, so that each is thinned by
    itself. Thinning peels voxel by voxel from everything that is not the object: unknown
    voxels and the patch border count as outside here. The result does not depend on voxel
    size, so it can be computed once for an item and cached with it (batch key "skeleton").

    Args:
        labels: (*S) ids, 0 or less for none; 2D or 3D.

    Returns:
        (*S) bool. Objects one or two voxels thin may have no voxel in it.

    Source: Lee, Kashyap & Chu, "Building skeleton models via 3-D medial surface/axis
    thinning algorithms", 1994, as implemented by scikit-image.
    """
    parted: NDArray[np.bool_] = (labels > 0) & (maximum_filter(labels, size=3) <= labels)
    flat = parted.squeeze()
    if flat.ndim < 2 or not flat.any():
        return parted
    thin = skeletonize(flat, method="lee")  # type: ignore[no-untyped-call]
    mask: NDArray[np.bool_] = thin.reshape(labels.shape) > 0
    return mask


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
        mask = skeleton_mask(host[b]) if cached is None else cached[b].cpu().numpy()
        mask = mask & (host[b] > 0)
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
