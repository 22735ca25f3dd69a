"""From logits to the clicked object: connectivity, separation, and edits that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cc3d
import dijkstra3d
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = NDArray[np.int64]

CONNECTIVITY: Final = 6
"""Faces only: across a thin membrane, diagonal voxels of two objects often touch."""
OUTSIDE_COST = 1e6
CONTRAST = 2.0
"""How dear a step of a cut is through what the network denies, against what it says is inside."""
RIDGE = 50.0
"""How much a boundary adds to the cost of a step through it."""


@dataclass(frozen=True)
class Terrain:
    """What a cut goes by where logits do not tell how surely a voxel belongs.

    Args:
        logits: (x, y, z) of belonging, negative ones too; 0 no opinion.
        boundary: (x, y, z) in [0, 1], 1 where objects end; 0 not seen.
    """

    logits: NDArray[np.float32]
    boundary: NDArray[np.float32]


def clicked_object(
    logits: NDArray[np.float32],
    positive: Points,
    negative: Points,
    terrain: Terrain | None = None,
) -> tuple[Mask, int]:
    """The voxels that belong to the clicked object.

    Voxels with a positive logit that are connected to a positive point; where that holds a
    negative point too, it is cut between the points.

    Args:
        logits: (x, y, z).
        positive: (P, 3) voxels inside, at least one.
        negative: (N, 3) voxels inside.
        terrain: by which to cut; the logits themselves, where it is not given.

    Returns:
        (x, y, z) mask, and the number of connected parts that hold a positive point.
    """
    inside = logits > 0
    for point in positive:
        inside[_around(point, inside.shape)] = True
    for point in negative:  # but not where it would cover a negative point
        if not _holds(positive, point):
            inside[tuple(point)] &= logits[tuple(point)] > 0
    spans = bounds(inside)
    local = inside[spans]
    low = np.array([s.start for s in spans])
    parts = cc3d.connected_components(np.asarray(local), connectivity=CONNECTIVITY)
    wanted = np.unique(parts[tuple((positive - low).T)])
    mask = _select(parts, wanted)
    against = negative - low
    against = against[((against >= 0) & (against < mask.shape)).all(1)]
    against = against[mask[tuple(against.T)]]
    if len(against):
        steps = _steps(logits[spans])
        if terrain is not None:
            there = Terrain(terrain.logits[spans], terrain.boundary[spans])
            steps = _steps_across(there, against)
        mask = separate(mask, steps, positive - low, against)
    whole = np.zeros_like(inside)
    whole[spans] = mask
    return whole, len(wanted)


def separate(
    mask: Mask,
    steps: tuple[NDArray[np.float32], NDArray[np.float32]],
    positive: Points,
    negative: Points,
) -> Mask:
    """Cut a mask between positive and negative points.

    A voxel stays where the cheapest way to a positive point costs no more than to a negative
    one. What the cut leaves without a positive point goes.

    Args:
        mask: (x, y, z); each part holds a positive point.
        steps: what a step through each voxel (x, y, z) costs on the way to a positive point,
            and to a negative one.
        positive: (P, 3), negative: (N, 3) voxels in the mask.

    Source: geodesic (seeded, minimum-cost path) segmentation, Bai & Sapiro 2009.
    """
    parts = cc3d.connected_components(np.asarray(mask), connectivity=CONNECTIVITY)
    out = mask.copy()
    owners = parts[tuple(negative.T)]
    for part in np.unique(owners):
        spans = bounds(parts == part)
        low = np.array([s.start for s in spans])
        here = parts[spans] == part
        mine = positive[parts[tuple(positive.T)] == part] - low
        theirs = negative[owners == part] - low
        # Points on one voxel: the positive one stands.
        theirs = np.array([p for p in theirs if not _holds(mine, p)], np.int64).reshape(-1, 3)
        if not len(theirs):
            continue
        near, far = (
            dijkstra3d.distance_field(
                np.where(here, step[spans], np.float32(OUTSIDE_COST)),
                [tuple(p) for p in points],
                connectivity=6,
            )
            for step, points in zip(steps, (mine, theirs), strict=True)
        )
        keep = here & (near <= far)
        connected = cc3d.connected_components(np.asarray(keep), connectivity=CONNECTIVITY)
        keep &= _select(connected, np.unique(connected[tuple(mine.T)]))
        out[spans][here] = keep[here]
    return out


def _steps(logits: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Dear through voxels of low logit, as at the neck or the faint membrane of two objects."""
    cost = (1.0 + 5.0 * np.exp(-logits.clip(0.0, 4.0))).astype(np.float32)
    return cost, cost


def _steps_across(
    terrain: Terrain, negative: Points
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Dear to a positive point through what is denied, to a negative one through what is not.

    Both ways are dear across boundaries. Where the logits do not deny the negative points
    (N, 3) either, theirs is the level that counts as undecided.
    """
    logits = terrain.logits.clip(-8.0, 8.0)
    undecided = max(float(logits[tuple(negative.T)].mean()), 0.0)
    inside = (CONTRAST - 1.0) / (1.0 + np.exp(undecided - logits))
    ridge = 1.0 + RIDGE * terrain.boundary**2
    mine, theirs = (CONTRAST - inside) * ridge, (1.0 + inside) * ridge
    return mine.astype(np.float32), theirs.astype(np.float32)


def keep_edits(start: Mask, answer: Mask, positive: Points, negative: Points) -> Mask:
    """An earlier mask, changed only where a new click contradicts it.

    Parts that the answer would add are added where one holds a positive point outside the
    earlier mask; parts it would remove are removed where one holds a negative point inside.

    Args:
        start: (x, y, z) the mask before, edited by hand.
        answer: (x, y, z) what the clicks alone give.
        positive: (P, 3), negative: (N, 3) voxels inside.
    """
    out = start.copy()
    new_positive = positive[~start[tuple(positive.T)]]
    out |= parts_holding(answer & ~start, new_positive)
    new_negative = negative[start[tuple(negative.T)]]
    out &= ~parts_holding(start & ~answer, new_negative)
    return out


def interior_points(mask: Mask, logits: NDArray[np.float32], count: int) -> Points:
    """A few voxels that stand for a mask: the surest first, then those farthest from them.

    Returns:
        (up to count, 3) int64.
    """
    voxels = np.argwhere(mask)
    if not len(voxels):
        return np.zeros((0, 3), np.int64)
    sure = logits[mask]
    voxels = voxels[sure >= np.median(sure)]
    chosen = [voxels[int(np.argmax(logits[tuple(voxels.T)]))]]
    apart = np.full(len(voxels), np.inf)
    while len(chosen) < min(count, len(voxels)):
        apart = np.minimum(apart, np.abs(voxels - chosen[-1]).sum(1))
        chosen.append(voxels[int(np.argmax(apart))])
    points: Points = np.stack(chosen).astype(np.int64)
    return points


def contradictions(positive: Points, negative: Points) -> tuple[Points, int]:
    """Negative points without those that lie on a positive one, and how many those were."""
    kept = [p for p in negative if not _holds(positive, p)]
    return np.array(kept, np.int64).reshape(-1, 3), len(negative) - len(kept)


def parts_holding(mask: Mask, points: Points) -> Mask:
    """The connected parts of a mask (x, y, z) in which some of the points (N, 3) lie."""
    if not len(points):
        return np.zeros_like(mask)
    parts = cc3d.connected_components(np.asarray(mask), connectivity=CONNECTIVITY)
    wanted = np.unique(parts[tuple(points.T)])
    return _select(parts, wanted[wanted > 0])


def _select(parts: NDArray[Any], wanted: NDArray[Any]) -> Mask:
    """Where a map of parts holds one of the wanted numbers."""
    table = np.zeros(int(parts.max()) + 1, bool)
    table[wanted] = True
    chosen: Mask = table[parts]
    return chosen


def _around(point: Sequence[int], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The 3 x 3 voxels around a point in its section: a click never vanishes."""
    x, y, z = (int(p) for p in point)
    return slice(max(x - 1, 0), x + 2), slice(max(y - 1, 0), y + 2), slice(z, z + 1)


def _holds(points: Points, point: Points) -> bool:
    return bool((points == point).all(1).any())


def bounds(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest box around a mask that is not empty."""
    spans = []
    planes = mask.any(axis=2)
    for line in (planes.any(axis=1), planes.any(axis=0), mask.any(axis=(0, 1))):
        where = np.flatnonzero(line)
        spans.append(slice(int(where[0]), int(where[-1]) + 1))
    return spans[0], spans[1], spans[2]
