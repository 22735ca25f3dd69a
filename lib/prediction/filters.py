"""Cheap filter responses of an image, for heads that learn beside the network's features.

Where the network has never seen such an image its features say little of faint or inverted
boundaries; filters say the same of every image. Scales are lengths in nm, at least what the voxels
resolve. In thick sections filters work within each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from bioimage_cpp import filters
from numpy.typing import NDArray

from lib.prediction.boundary import has_thick_sections
from lib.volumes.boxes import Box, Triple, box_slices, minus, shift_box
from lib.volumes.crop import widen

SCALES_NM = (10.0, 20.0, 40.0)
LEAST_SIGMA = (0.7, 1.4, 2.8)
"""Of each scale, in voxels of the finest axis: coarser images are filtered by what they resolve."""
REACH = 3.0
"""Standard deviations after which a kernel ends."""
EACH = 6
COUNT = EACH * len(SCALES_NM)
"""Responses of a voxel: at each scale the mean, the gradient's magnitude, the largest and smallest
curvature, and those of the structure tensor."""


def filter_responses(
    image: NDArray[np.float32], voxel_size_nm: Sequence[float], part: Box | None = None
) -> NDArray[np.float32]:
    """Responses of a part of an image, which depend on what lies within `filter_halo` of it.

    Args:
        image: (X, Y, Z) normalised.
        voxel_size_nm: (x, y, z).
        part: of the image; None: all of it.

    Returns:
        (COUNT, *part), of the order of 1.
    """
    where = tuple(slice(None) for _ in range(3)) if part is None else box_slices(part)
    if image.shape[2] > 1 and not has_thick_sections(voxel_size_nm):
        return np.stack(_responses(image, voxel_size_nm, where))
    x, y, sections = where
    found = [
        np.stack(_responses(np.ascontiguousarray(image[..., z]), voxel_size_nm[:2], (x, y)))
        for z in range(*sections.indices(image.shape[2]))
    ]
    return np.stack(found, -1)


def responses_at(
    voxels: Callable[[Box], NDArray[np.float32]],
    shape: Triple,
    box: Box,
    voxel_size_nm: Sequence[float],
) -> NDArray[np.float32]:
    """(COUNT, *box) responses of a box of a volume, the same whatever the boxes are.

    Args:
        voxels: gives the normalised image of a box.
        shape: of the volume.
    """
    wide = widen(box, filter_halo(voxel_size_nm), shape)
    inner = shift_box(box, minus((wide[0][0], wide[1][0], wide[2][0])))
    return filter_responses(voxels(wide), voxel_size_nm, inner)


def filter_halo(voxel_size_nm: Sequence[float]) -> Triple:
    """Voxels around a box on which its responses depend."""
    thick = has_thick_sections(voxel_size_nm)
    spread = [max(s) for s in zip(*_sigmas(voxel_size_nm), strict=True)]
    halo = [2 * math.ceil(REACH * s) + 2 for s in spread]  # the structure tensor filters twice
    return halo[0], halo[1], 0 if thick else halo[2]


def _sigmas(voxel_size_nm: Sequence[float]) -> list[list[float]]:
    """Standard deviations along each axis in voxels, by scale."""
    finest = min(voxel_size_nm)
    return [
        [max(scale / finest, least) * finest / v for v in voxel_size_nm]
        for scale, least in zip(SCALES_NM, LEAST_SIGMA, strict=True)
    ]


def _responses(
    image: NDArray[np.float32], voxel_size_nm: Sequence[float], where: tuple[slice, ...]
) -> list[NDArray[np.float32]]:
    """Of an image of two or three dimensions; derivatives grow with the scale, to be alike."""
    out = []
    for sigma in _sigmas(voxel_size_nm):
        width = max(sigma)
        asked = {"window_size": REACH}
        bent = filters.hessian_of_gaussian_eigenvalues(image, sigma, **asked)
        tensor = filters.structure_tensor_eigenvalues(image, sigma, sigma, **asked)
        out += [
            filters.gaussian_smoothing(image, sigma, **asked)[where],
            width * filters.gaussian_gradient_magnitude(image, sigma, **asked)[where],
            width**2 * bent[(*where, 0)],
            width**2 * bent[(*where, -1)],
            width * np.sqrt(np.maximum(tensor[(*where, 0)], 0.0)),
            width * np.sqrt(np.maximum(tensor[(*where, -1)], 0.0)),
        ]
    return out
