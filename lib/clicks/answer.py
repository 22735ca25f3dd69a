"""Clicks in, the clicked object out: one answer for every list of clicks.

    points -> the objects and fragments that they lie in, as far as these reach
    -> what each contact of the fragments costs, from the graph and from the network's answer
    -> the cheapest change that honours all points (lib/clicks/cheapest.py) -> mask

Nothing is remembered but what does not depend on clicks: undo is dropping the last click, and
a replay is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lib.clicks.cheapest import cheapest, pieces_of
from lib.clicks.ground import Ids
from lib.clicks.masks import Mask, bounds, parts_with, separate
from lib.clicks.organelles import organelle_of
from lib.clicks.points import Points, clean_points, inside, without
from lib.clicks.prompted import prompted_costs
from lib.clicks.reach import Reach
from lib.clicks.ridges import ridges
from lib.clicks.scale import BEYOND, ball, depth_at
from lib.clicks.source import Clicks, ClickSource
from lib.clicks.starting import StartingMask, edited, stands_for
from lib.volumes.boxes import Box, Triple, box_origin, shift_box


@dataclass(frozen=True)
class ClickAnswer:
    """The clicked object.

    Args:
        mask: bool on `box`; everything outside the box is not the object.
        box: network voxels.
        warnings: for the annotator, sentences.
        windows: windows that the network looked at.
        fragments: whether it starts from objects that were found before.
    """

    mask: Mask
    box: Box
    warnings: tuple[str, ...] = ()
    windows: int = 1
    fragments: bool = False


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


def segment_clicked(
    source: ClickSource,
    clicks: Clicks,
    start: StartingMask | None = None,
    section: int | None = None,
) -> ClickAnswer:
    """The object that the clicks mean.

    Args:
        source: network, image, objects and cache.
        clicks: any number of points; with `start` and `section`, all that the answer depends on.
        start: kept where no click contradicts it.
        section: answer in this section (last network axis) only.

    Returns:
        The best answer there is, with warnings where the clicks contradict each other.
    """
    positive, warnings = clean_points(clicks.positive, source.shape, "positive")
    negative, more = clean_points(clicks.negative, source.shape, "negative")
    warnings += more
    if both := len(negative) - len(negative := without(negative, positive)):
        warnings.append(
            f"{both} negative point(s) lie on a positive one; the positive point was taken"
        )
    if section is not None:
        positive, negative = (p[p[:, 2] == section] for p in (positive, negative))
    meant = positive
    if not len(meant) and start is not None:
        meant = stands_for(start, negative, source.voxel_size_nm, section)
    if not len(meant):
        warnings.append("no positive point inside the image; the answer is empty")
        return _kept(_nothing(), start, positive, negative, section, warnings)
    inner = organelle_of(source, clicks, meant, negative, section)
    if inner is not None:
        answer = ClickAnswer(inner.mask, inner.box, (), inner.windows)
    else:
        answer = _of_objects(source, clicks, meant, negative, section)
    warnings += answer.warnings
    return _kept(answer, start, positive, negative, section, warnings)


def _of_objects(
    source: ClickSource,
    clicks: Clicks,
    positive: Points,
    negative: Points,
    section: int | None,
) -> ClickAnswer:
    """The answer from fragments and their contacts."""
    reach = Reach(source, positive, negative, section)
    while True:
        standing = reach.standing()
        said = _said(standing, reach.box, positive, negative, source.voxel_size_nm)
        wanted = _among(standing, said.objects)
        if not reach.follow(wanted):
            break
    mask = wanted
    if len(said.negative) or len(said.objects) > 1 or not reach.stands:
        mask = _cut(source, reach, clicks, said, standing, wanted)
    for touch in said.added:
        near = ball(_at_origin(mask), touch.point, touch.radius, source.voxel_size_nm)
        mask = mask | (near & ~wanted)
    for touch in said.removed:
        mask = mask & ~ball(_at_origin(mask), touch.point, touch.radius, source.voxel_size_nm)
    own = inside(positive, reach.box)
    mask[tuple(own.T)] = True  # a click never vanishes
    mask[tuple(inside(negative, reach.box).T)] = False
    mask, parts = parts_with(mask, own)
    warnings = []
    if reach.limited:
        warnings.append("the object goes on beyond the limit of the click window")
    if parts > 1:
        warnings.append(
            f"the positive points lie in {parts} parts that do not touch; all are in the answer"
        )
    kept = source.objects is not None
    return ClickAnswer(mask, reach.box, tuple(warnings), reach.looked_at, kept)


def _said(
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


def _cut(
    source: ClickSource,
    reach: Reach,
    clicks: Clicks,
    said: Said,
    standing: Ids,
    wanted: Mask,
) -> Mask:
    """The cheapest change of the objects in question."""
    pieces = pieces_of(reach.ground, reach.box, standing, wanted)
    positive, negative = (_pieces_at(pieces.ids, p) for p in (said.positive, said.negative))
    disputed = np.intersect1d(positive, negative)
    if len(disputed):  # a fragment of two objects: cut it first
        beyond = np.zeros(wanted.shape, np.bool_)
        for piece in disputed.tolist():
            beyond |= _beyond(source, reach.box, pieces.ids == piece, said)
        pieces = pieces_of(reach.ground, reach.box, standing, wanted, beyond)
        positive, negative = (_pieces_at(pieces.ids, p) for p in (said.positive, said.negative))
    base = int(standing[tuple(said.positive[0])])
    low = np.array(box_origin(reach.box))
    asked = said.positive + low, said.negative + low
    answer = prompted_costs(source, clicks, *asked, pieces.ids, reach.box)
    negative = np.setdiff1d(negative, positive)
    chosen = cheapest(pieces, base, positive, negative, answer, firm=reach.stands)
    mask: Mask = chosen[pieces.ids]
    return mask


def _beyond(source: ClickSource, box: Box, piece: Mask, said: Said) -> Mask:
    """What of a piece with points of both signs is not the object."""
    own, against = (p[piece[tuple(p.T)]] for p in (said.positive, said.negative))
    spans = bounds(piece)
    (a, b), (c, d), (e, f) = ((s.start, s.stop) for s in spans)
    steps = np.ones(piece.shape, np.float32)
    part = shift_box(((a, b), (c, d), (e, f)), box_origin(box))
    steps[spans] = ridges(source, part, np.concatenate((own, against)) + np.array(box_origin(box)))
    return piece & ~separate(piece, steps, own, against)


def _kept(
    answer: ClickAnswer,
    start: StartingMask | None,
    positive: Points,
    negative: Points,
    section: int | None,
    warnings: list[str],
) -> ClickAnswer:
    """The answer, or an earlier mask changed where the clicks contradict it."""
    told = tuple(warnings)
    if start is None:
        return replace(answer, warnings=told)
    found = edited(start, answer.mask, answer.box, positive, negative, section)
    return replace(answer, mask=found.mask, box=found.box, warnings=told)


def _touch(point: NDArray[np.int64], depth: float) -> Touch:
    x, y, z = (int(v) for v in point)
    return Touch((x, y, z), depth + BEYOND)


def _among(standing: Ids, objects: tuple[int, ...]) -> Mask:
    table = np.zeros(int(standing.max(initial=0)) + 1, np.bool_)
    table[list(objects)] = True
    mask: Mask = table[standing]
    return mask


def _pieces_at(ids: Ids, points: Points) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.setdiff1d(ids[tuple(points.T)], 0).astype(np.int64)
    return found


def _rows(points: list[NDArray[np.int64]]) -> Points:
    return np.array(points, np.int64).reshape(-1, 3)


def _at_origin(mask: Mask) -> Box:
    x, y, z = mask.shape
    return (0, x), (0, y), (0, z)


def _nothing() -> ClickAnswer:
    return ClickAnswer(np.zeros((1, 1, 1), np.bool_), ((0, 1), (0, 1), (0, 1)), (), 0)
