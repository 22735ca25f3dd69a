"""Clicks in, the clicked object out: one answer for every list of clicks.

    window around the clicks -> features (from the cache) -> logits -> connected object
    -> into neighbouring windows while the object reaches a face -> one mask
    -> made of the automatic objects, where there are any (lib/clicks/fragments.py)

Nothing is remembered but features, which do not depend on clicks: undo is dropping the last
click, and a replay is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lib.clicks.fragments import Claims, Evidence, claims_of, join_fragments
from lib.clicks.growth import CARRIED_POINTS, Canvas, grow, in_section
from lib.clicks.masks import (
    Mask,
    Points,
    clicked_object,
    contradictions,
    interior_points,
    keep_edits,
)
from lib.clicks.source import Clicks, ClickSource
from lib.clicks.windows import growth_limit, window_at
from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    box_slices,
    hull,
    minus,
    shift_box,
)

NEAR_MISS = 2
"""A point this many voxels outside the volume is moved onto its border."""


@dataclass(frozen=True)
class StartingMask:
    """An object made earlier, perhaps edited by hand.

    Args:
        mask: bool on `box`.
        box: network voxels.
    """

    mask: Mask
    box: Box


@dataclass(frozen=True)
class ClickAnswer:
    """The clicked object.

    Args:
        mask: bool on `box`; everything outside the box is not the object.
        box: network voxels.
        warnings: for the annotator, sentences.
        windows: windows looked at.
        fragments: whether it is made of automatic objects.
    """

    mask: Mask
    box: Box
    warnings: tuple[str, ...] = ()
    windows: int = 1
    fragments: bool = False


def segment_clicked(
    source: ClickSource,
    clicks: Clicks,
    start: StartingMask | None = None,
    section: int | None = None,
) -> ClickAnswer:
    """The object that the clicks mean.

    Args:
        source: network, image and cache.
        clicks: any number of points; with `start` and `section`, all that the answer depends on.
        start: kept where no click contradicts it.
        section: answer in this section (last network axis) only.

    Returns:
        The best answer there is, with warnings where the clicks contradict each other.
    """
    positive, warnings = clean_points(clicks.positive, source.shape, "positive")
    negative, more = clean_points(clicks.negative, source.shape, "negative")
    negative, both = contradictions(positive, negative)
    warnings += more
    if both:
        warnings.append(
            f"{both} negative point(s) lie on a positive one; the positive point was taken"
        )
    if section is not None:
        positive, negative = (p[p[:, 2] == section] for p in (positive, negative))
    anchors = positive
    if not len(anchors) and start is not None:
        anchors = _points_of(start, negative, section)
    if not len(anchors):
        warnings.append("no positive point inside the image; the answer is empty")
        return _nothing(start, warnings)
    fragments = source.fragments
    claims = None if fragments is None else claims_of(fragments, anchors, negative)
    canvas, limited = grow(source, clicks, anchors, negative, section, claims)
    evidence, parts = _evidence(canvas, start, anchors, negative, section)
    if claims is None:
        mask, whole = evidence.mask, evidence.box
    else:
        mask, whole, parts, limited = _joined(source, claims, evidence, anchors, negative, section)
    if limited:
        warnings.append("the object goes on beyond the limit of the click window")
    low, high = np.array(whole).T
    negative = negative[((negative >= low) & (negative < high)).all(1)]
    if parts > 1 and len(positive):
        warnings.append(
            f"the positive points lie in {parts} parts that do not touch; all are in the answer"
        )
    if start is not None:
        before = np.zeros_like(mask)
        before[box_slices(shift_box(start.box, minus(box_origin(whole))))] = start.mask
        mask = _edited(before, mask, positive - low, negative - low, section, int(low[2]))
    return ClickAnswer(mask, whole, tuple(warnings), len(canvas.logits), claims is not None)


def _evidence(
    canvas: Canvas,
    start: StartingMask | None,
    anchors: Points,
    negative: Points,
    section: int | None,
) -> tuple[Evidence, int]:
    """The network's answer, and the number of its parts."""
    whole = canvas.box([] if start is None else [start.box])
    low, high = np.array(whole).T
    negative = negative[((negative >= low) & (negative < high)).all(1)]
    logits = in_section(canvas.blended(whole), whole, section)
    if len(canvas.objects) == 1 and whole in canvas.objects:  # nothing to blend
        mask, parts = canvas.objects[whole]
    else:
        mask, parts = clicked_object(logits, anchors - low, negative - low)
    return Evidence(mask, logits, whole, canvas.groups, canvas.boundary), parts


def _joined(
    source: ClickSource,
    claims: Claims,
    evidence: Evidence,
    anchors: Points,
    negative: Points,
    section: int | None,
) -> tuple[Mask, Box, int, bool]:
    """`join_fragments`, in one section where only that is asked for."""
    box = evidence.box
    first = window_at(anchors[0].tolist(), source.window, source.shape)
    limit = growth_limit(first, source.inference.click_window_limit, source.shape)
    limit = hull([limit, box])
    if section is not None:
        at, flat = section - box[2][0], (section, section + 1)
        seen = slice(at, at + 1)
        limit = limit[0], limit[1], flat
        evidence = replace(
            evidence,
            mask=evidence.mask[:, :, seen],
            logits=evidence.logits[:, :, seen],
            box=(box[0], box[1], flat),
        )
    part, found, parts, limited = join_fragments(
        claims, evidence, limit, anchors, negative, source.voxel_size_nm
    )
    whole = hull([found, box])
    mask = np.zeros(box_shape(whole), bool)
    mask[box_slices(shift_box(found, minus(box_origin(whole))))] = part
    return mask, whole, parts, limited


def clean_points(
    points: Sequence[Sequence[int]], shape: Triple, kind: str
) -> tuple[Points, list[str]]:
    """Distinct points inside the volume, sorted where they were doubled.

    Viewers send points outside the volume: near its border they are moved onto it, farther
    away left out; either with a warning.

    Returns:
        (N, 3) int64 in the given order, and warnings.
    """
    rows = np.asarray(points, np.float64).reshape(-1, 3)
    rows = np.rint(rows).astype(np.int64)
    size = np.asarray(shape)
    inside = rows.clip(0, size - 1)
    missed = np.abs(rows - inside).max(1, initial=0)
    warnings = []
    if (missed > NEAR_MISS).any():
        count = int((missed > NEAR_MISS).sum())
        warnings.append(f"{count} {kind} point(s) outside the image were left out")
    if ((missed > 0) & (missed <= NEAR_MISS)).any():
        warnings.append(f"{kind} point(s) just outside the image were moved onto its border")
    kept = inside[missed <= NEAR_MISS]
    distinct: list[NDArray[np.int64]] = []
    seen: set[tuple[int, ...]] = set()
    for row in kept:
        if tuple(row) not in seen:
            seen.add(tuple(row))
            distinct.append(row)
    return np.array(distinct, np.int64).reshape(-1, 3), warnings


def _points_of(start: StartingMask, negative: Points, section: int | None) -> Points:
    """Voxels that stand for an earlier mask, away from what is now denied."""
    low = np.array(box_origin(start.box))
    mask = start.mask
    if section is not None:
        mask = mask & (np.arange(start.box[2][0], start.box[2][1]) == section)
    depth = np.full(start.mask.shape, 100.0, np.float32)
    x, y, z = np.indices(start.mask.shape, sparse=True)
    for a, b, c in negative - low:
        depth = np.minimum(depth, np.abs(x - a) + np.abs(y - b) + np.abs(z - c))
    points: Points = interior_points(mask, depth.astype(np.float32), CARRIED_POINTS) + low
    return points


def _edited(
    before: Mask, answer: Mask, positive: Points, negative: Points, section: int | None, first: int
) -> Mask:
    """`keep_edits`; an answer in one section changes that section only."""
    if section is None:
        return keep_edits(before, answer, positive, negative)
    at = slice(section - first, section - first + 1)
    offset = np.array([0, 0, section - first])
    out = before.copy()
    out[:, :, at] = keep_edits(
        before[:, :, at], answer[:, :, at], positive - offset, negative - offset
    )
    return out


def _nothing(start: StartingMask | None, warnings: list[str]) -> ClickAnswer:
    if start is not None:
        return ClickAnswer(start.mask, start.box, tuple(warnings), 0)
    empty: Box = ((0, 1), (0, 1), (0, 1))
    return ClickAnswer(np.zeros((1, 1, 1), bool), empty, tuple(warnings), 0)
