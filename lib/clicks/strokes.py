"""Strokes and boxes as points: other ways to say the same to the same model."""

from __future__ import annotations

from collections.abc import Sequence

import edt
import numpy as np
from numpy.typing import NDArray

from lib.clicks.masks import Mask, bounds
from lib.clicks.points import Points
from lib.volumes.boxes import Box, box_origin, box_slices
from lib.volumes.contrast import LazyImage

MOST_POINTS = 20
"""A stroke of any length costs no more than so many points."""
NEGATIVE_SHARE = 0.4
"""Of the points that stand for strokes of both signs."""
CORE = 0.6
"""A stroke is as sure as it is deep: points lie where it has this share of its greatest depth."""
CANDIDATES = 4000
"""Voxels among which points are chosen."""


def stroke_points(
    positive: Mask, negative: Mask, voxel_size_nm: Sequence[float]
) -> tuple[list[list[int]], list[list[int]]]:
    """A few points for painted strokes, spread along them.

    Args:
        positive, negative: (X, Y, Z) where was painted.
        voxel_size_nm: (x, y, z).

    Returns:
        Positive and negative points, together at most MOST_POINTS.
    """
    against = round(MOST_POINTS * NEGATIVE_SHARE) if positive.any() else MOST_POINTS
    negatives = _spread_in(negative, against, voxel_size_nm)
    positives = _spread_in(positive, MOST_POINTS - len(negatives), voxel_size_nm)
    return positives, negatives


def fewer_points(
    points: Sequence[Sequence[int]], voxel_size_nm: Sequence[float], most: int = MOST_POINTS
) -> list[list[int]]:
    """Points that stand for a stroke of many; the same list where it has few."""
    rows = np.asarray(points, np.int64).reshape(-1, 3)
    if len(rows) <= most:
        return [list(p) for p in points]
    return _listed(spread_points(rows, most, voxel_size_nm))


def spread_points(points: Points, count: int, voxel_size_nm: Sequence[float]) -> Points:
    """At most `count` of some points (N, 3): the first, then always the one farthest from all.

    Source: farthest-point sampling, Gonzalez 1985.
    """
    if count < 1 or not len(points):
        return points[:0]
    chosen = [0]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        steps = (points - points[chosen[-1]]) * np.asarray(voxel_size_nm)
        nearest = np.minimum(nearest, (steps**2).sum(1))
        farthest = int(np.argmax(nearest))
        if nearest[farthest] == 0:
            break
        chosen.append(farthest)
    return points[chosen]


def box_points(
    objects: LazyImage | None, box: Box, voxel_size_nm: Sequence[float]
) -> list[list[int]]:
    """Points on the object that a box was drawn around.

    The object that fills the box best, by the share of its voxels in the box's middle half that
    it has and by how much of it stays inside; the middle of the box where there are no objects.

    Args:
        objects: (X, Y, Z) ids, 0 none; None: there are none.
        box: inside the item.
        voxel_size_nm: (x, y, z).
    """
    middle = [[(a + b) // 2 for a, b in box]]
    if objects is None:
        return middle
    around = _around(box, tuple(int(n) for n in objects.shape))
    ids = np.asarray(objects[box_slices(around)])
    low = np.array(box_origin(around))
    inner = tuple(slice(a - o, b - o) for (a, b), o in zip(box, low, strict=True))
    found, counts = np.unique(ids[inner], return_counts=True)
    every, totals = np.unique(ids, return_counts=True)
    inside = counts / totals[np.searchsorted(every, found)]
    score = np.where(found > 0, counts * inside**2, 0.0)
    if not score.any():
        return middle
    best = np.zeros(ids.shape, np.bool_)
    best[inner] = ids[inner] == found[int(np.argmax(score))]
    return _listed(np.array(_spread_in(best, 4, voxel_size_nm)) + low)


def _around(box: Box, shape: tuple[int, ...]) -> Box:
    """A box with half its extent more on every side, inside the item."""
    x, y, z = (
        (max(0, a - (b - a) // 2), min(n, b + (b - a) // 2))
        for (a, b), n in zip(box, shape, strict=True)
    )
    return x, y, z


def _spread_in(mask: Mask, count: int, voxel_size_nm: Sequence[float]) -> list[list[int]]:
    """Points deep inside a mask, the deepest first."""
    if not mask.any():
        return []
    spans = bounds(mask)
    local = np.pad(mask[spans], 1)
    depth: NDArray[np.float32] = edt.edt(local, anisotropy=tuple(voxel_size_nm))[1:-1, 1:-1, 1:-1]
    voxels = np.argwhere(depth >= CORE * depth.max())
    order = np.argsort(-depth[tuple(voxels.T)], kind="stable")
    voxels = voxels[order[:: max(1, len(order) // CANDIDATES)]]
    low = np.array([s.start for s in spans])
    return _listed(spread_points(voxels, count, voxel_size_nm) + low)


def _listed(points: Points) -> list[list[int]]:
    return [[int(v) for v in p] for p in points]
