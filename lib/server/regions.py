"""The region of an image that a request is limited to."""

from __future__ import annotations

import math
from typing import Any

from lib.server.errors import refuse
from lib.volumes.boxes import Box, Triple


def region(value: Any, shape: Triple) -> Box | None:
    """The region that an answer is limited to: [i0, i1, j0, j1, k0, k1], ends in any order.

    Returns:
        Viewer voxels, cut to the image; None where the request has no region.

    Raises:
        HTTPException: 400 for what is no list of six numbers, or a region off the image.
    """
    if not value:
        return None
    if not isinstance(value, list) or len(value) != 6 or not all(is_coordinate(v) for v in value):
        raise refuse(f"roi: expected [i0, i1, j0, j1, k0, k1], found {value!r}")
    ends = [round(float(v)) for v in value]
    spans = []
    for axis, size in enumerate(shape):
        low, high = sorted(ends[2 * axis : 2 * axis + 2])
        spans.append((max(low, 0), min(high + 1, size)))
        if spans[axis][0] >= spans[axis][1]:
            raise refuse(f"roi: {value} holds no voxel of an image of {shape}")
    return spans[0], spans[1], spans[2]


def is_coordinate(value: Any) -> bool:
    """Whether a value is a finite number that can be a place in an image."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and abs(value) < 1e9
