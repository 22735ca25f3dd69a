"""Masks: their parts, and cuts between points."""

from __future__ import annotations

from typing import Any, Final

import cc3d
import dijkstra3d
import numpy as np
from numpy.typing import NDArray

from lib.clicks.points import Points, without
from lib.volumes.boxes import Box, box_origin, box_slices, minus, shift_box

Mask = NDArray[np.bool_]

CONNECTIVITY: Final = 6
"""Faces only: across a thin membrane, diagonal voxels of two objects often touch."""
OUTSIDE_COST = 1e6


def separate(mask: Mask, steps: NDArray[np.float32], positive: Points, negative: Points) -> Mask:
    """Cut a mask between positive and negative points.

    A voxel stays where the cheapest way to a positive point costs no more than to a negative
    one, and where it hangs together with a positive point.

    Args:
        mask: (x, y, z) that holds all points.
        steps: (x, y, z) what a step through each voxel costs.
        positive: (P, 3), negative: (N, 3) voxels, at least one of each.

    Source: geodesic (seeded, minimum-cost path) segmentation, Bai & Sapiro 2009.
    """
    negative = without(negative, positive)
    spans = bounds(mask)
    low = np.array([s.start for s in spans])
    cost = np.where(mask[spans], steps[spans], np.float32(OUTSIDE_COST))
    near, far = (
        dijkstra3d.distance_field(cost, [tuple(p) for p in points - low], connectivity=6)
        for points in (positive, negative)
    )
    out = np.zeros_like(mask)
    out[spans] = mask[spans] & (near <= far)
    return parts_holding(out, positive)


def parts_holding(mask: Mask, points: Points) -> Mask:
    """The connected parts of a mask (x, y, z) in which some of the points (N, 3) lie."""
    found, _ = parts_with(mask, points)
    return found


def parts_with(mask: Mask, points: Points) -> tuple[Mask, int]:
    """`parts_holding`, and how many parts these are."""
    if not len(points) or not mask.any():
        return np.zeros_like(mask), 0
    parts: NDArray[Any] = cc3d.connected_components(np.asarray(mask), connectivity=CONNECTIVITY)
    wanted = np.unique(parts[tuple(points.T)])
    wanted = wanted[wanted > 0]
    table = np.zeros(int(parts.max()) + 1, np.bool_)
    table[wanted] = True
    return table[parts], len(wanted)


def bounds(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest box around a mask that is not empty."""
    spans = []
    planes = mask.any(axis=2)
    for line in (planes.any(axis=1), planes.any(axis=0), mask.any(axis=(0, 1))):
        where = np.flatnonzero(line)
        spans.append(slice(int(where[0]), int(where[-1]) + 1))
    return spans[0], spans[1], spans[2]


def place_in(part: Box, whole: Box) -> tuple[slice, slice, slice]:
    """Where a box lies in an array of another that holds it."""
    return box_slices(shift_box(part, minus(box_origin(whole))))
