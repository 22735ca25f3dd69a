"""Answers for a region of an image: in their place, or alone with a place of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple, box_origin, box_slices
from lib.volumes.opened import Affine, RequestImage
from lib.volumes.regions import MOST_SHOWN


def in_region(
    values: NDArray[Any], image: RequestImage, limits: Box | None, request: dict[str, Any]
) -> tuple[NDArray[Any], Affine, dict[str, Any]]:
    """The answer for a region as it goes to the viewer.

    On the image's own grid, 0 outside the region, unless the request says `result_region` or
    the image is larger than what is sent to viewers: then the region alone, placed by its
    affine.

    Args:
        values: (x, y, z) of the region, or of the image where there is none.
        limits: the region, viewer voxels.

    Returns:
        the map, its affine, and what the reply tells: `region` [i0, i1, j0, j1, k0, k1], and
        `alone`, whether the map holds the region only.
    """
    if limits is None:
        return values, image.affine, {}
    told: dict[str, Any] = {"region": [v for span in limits for v in span], "alone": False}
    large = int(np.prod(image.shape, dtype=np.int64)) > MOST_SHOWN
    if request.get("result_region") or large:
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array(box_origin(limits), float)
        return values, affine, {**told, "alone": True}
    whole = np.zeros(image.shape, values.dtype, order="F")
    whole[box_slices(limits)] = values
    return whole, image.affine, told


def triple(values: NDArray[Any]) -> Triple:
    """The shape of a volume."""
    x, y, z = values.shape
    return x, y, z
