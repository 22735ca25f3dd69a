"""What points say about the objects of a box: which are meant, and which points mean borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.clicks.ground import Ids
from lib.clicks.points import Points, inside
from lib.clicks.scale import BEYOND, depth_at
from lib.volumes.boxes import Box, Triple


@dataclass(frozen=True)
class Touch:
    """A click that speaks of a border: a ball around it changes.

    Args:
        point: relative to the box.
        radius: voxels of the finest axis.
    """

    point: Triple
    radius: float


@dataclass(frozen=True)
class Said:
    """What the points say about the objects of a box.

    Args:
        base: the object that is meant, 0 none.
        objects: those that are in question, the base among them.
        positive: (P, 3), negative: (N, 3) points that speak of objects, relative to the box.
        added, removed: those that speak of borders.
    """

    base: int
    objects: tuple[int, ...]
    positive: Points
    negative: Points
    added: tuple[Touch, ...]
    removed: tuple[Touch, ...]


def said_of(
    standing: Ids,
    box: Box,
    positive: Points,
    negative: Points,
    voxel_size_nm: tuple[float, float, float],
) -> Said:
    """Which objects the points speak of, and which points speak of borders only."""
    own, against = inside(positive, box), inside(negative, box)
    base = int(standing[tuple(own[0])])
    objects, speaking, added = [base] if base else [], [own[0]], []
    for point in own[1:]:
        there = int(standing[tuple(point)])
        if there == base and base:
            speaking.append(point)
            continue
        depth = depth_at(standing, point, voxel_size_nm) if there else None
        if depth is not None and depth.central:
            speaking.append(point)
            objects.append(there)
        else:
            added.append(_touch(point, depth.own if depth else 0.0))
    denying, removed = [], []
    for point in against:
        there = int(standing[tuple(point)])
        if there not in objects:
            continue
        depth = depth_at(standing, point, voxel_size_nm)
        if depth.central:
            denying.append(point)
        else:
            removed.append(_touch(point, depth.own))
    if not base:
        added.append(_touch(own[0], 0.0))
    return Said(
        base,
        tuple(dict.fromkeys(objects)),
        _rows(speaking),
        _rows(denying),
        tuple(added),
        tuple(removed),
    )


def _touch(point: NDArray[np.int64], depth: float) -> Touch:
    x, y, z = (int(v) for v in point)
    return Touch((x, y, z), depth + BEYOND)


def _rows(points: list[NDArray[np.int64]]) -> Points:
    return np.array(points, np.int64).reshape(-1, 3)
