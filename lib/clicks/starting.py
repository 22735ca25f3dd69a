"""Masks that were made earlier: kept where no click contradicts them."""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np

from lib.clicks.masks import Mask, parts_holding, place_in
from lib.clicks.points import Points, inside
from lib.volumes.boxes import Box, box_origin, box_shape, hull

CORE = 0.6
"""Voxels of an earlier mask that have this share of its greatest depth may stand for it."""


@dataclass(frozen=True)
class StartingMask:
    """An object made earlier, perhaps edited by hand.

    Args:
        mask: bool on `box`.
        box: network voxels.
    """

    mask: Mask
    box: Box


def stands_for(
    start: StartingMask,
    negative: Points,
    voxel_size_nm: tuple[float, float, float],
    section: int | None,
) -> Points:
    """(1, 3) the voxel that an earlier mask is meant by: deep in it, far from what is denied.

    Args:
        start: the mask.
        negative: (N, 3) points on what is not the object.
        voxel_size_nm: (x, y, z).
        section: only this section is looked at.

    Returns:
        (0, 3) where the mask is empty.
    """
    low = np.array(box_origin(start.box))
    mask = start.mask
    if section is not None:
        mask = mask & (np.arange(*start.box[2]) == section)
    if not mask.any():
        return np.zeros((0, 3), np.int64)
    depth = edt.edt(np.ascontiguousarray(np.pad(mask, 1)), anisotropy=voxel_size_nm)
    depth = depth[1:-1, 1:-1, 1:-1]
    voxels = np.argwhere(depth >= CORE * depth.max())
    away = np.full(len(voxels), np.inf)
    for point in negative - low:
        away = np.minimum(away, (((voxels - point) * voxel_size_nm) ** 2).sum(1))
    found: Points = voxels[[int(np.argmax(away))]] + low
    return found


def edited(
    start: StartingMask,
    mask: Mask,
    box: Box,
    positive: Points,
    negative: Points,
    section: int | None,
) -> StartingMask:
    """An earlier mask, changed where the clicks contradict it.

    Args:
        start: the mask before.
        mask: what the clicks alone give, bool on `box`.
        box: network voxels.
        positive: (P, 3), negative: (N, 3) points inside the image.
        section: nothing else changes.
    """
    whole = hull([start.box, box]) if mask.any() else start.box
    before, after = (np.zeros(box_shape(whole), np.bool_) for _ in range(2))
    before[place_in(start.box, whole)] = start.mask
    if mask.any():
        after[place_in(box, whole)] = mask
    own, against = inside(positive, whole), inside(negative, whole)
    if section is None:
        return StartingMask(keep_edits(before, after, own, against), whole)
    at = section - whole[2][0]
    if not 0 <= at < before.shape[2]:
        return StartingMask(before, whole)
    seen = slice(at, at + 1)
    own, against = (p - np.array([0, 0, at]) for p in (own, against))
    before[:, :, seen] = keep_edits(before[:, :, seen], after[:, :, seen], own, against)
    return StartingMask(before, whole)


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
