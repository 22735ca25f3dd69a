"""Clicks in, the clicked object out: one answer for every list of clicks.

    points -> the objects and fragments that they lie in, as far as these reach
    -> where these fall apart between points of both signs (lib/clicks/parting.py)
    -> of all that each point may mean, what it does (lib/clicks/meaning.py) -> mask

An object that nobody has seen yet is less firm: the network's answer to the points may take
fragments off it (lib/clicks/cheapest.py).

Nothing is remembered but what does not depend on clicks: undo is dropping the last click, and
a replay is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cc3d
import numpy as np
from numpy.typing import NDArray

from lib.clicks.changes import Answer
from lib.clicks.cheapest import cheapest, pieces_of
from lib.clicks.ground import Ids
from lib.clicks.masks import CONNECTIVITY, Mask, parts_with
from lib.clicks.meaning import all_that_holds, corrected, meaning_of
from lib.clicks.organelles import organelle_of
from lib.clicks.parting import around_points
from lib.clicks.points import Points, clean_points, inside, without
from lib.clicks.prompted import prompted_costs
from lib.clicks.reach import Reach
from lib.clicks.scale import BEYOND, ball, depth_at
from lib.clicks.source import Clicks, ClickSource
from lib.clicks.starting import StartingMask, edited, stands_for
from lib.volumes.boxes import Box, box_origin, box_shape


@dataclass(frozen=True)
class ClickAnswer:
    """The clicked object.

    Args:
        mask: bool on `box`; everything outside the box is not the object.
        box: network voxels.
        warnings: for the annotator, sentences.
        windows: windows that the network looked at.
        fragments: whether it starts from objects that were found before.
        organelle: class of the organelle that it is, -1: it is a cell.
    """

    mask: Mask
    box: Box
    warnings: tuple[str, ...] = ()
    windows: int = 1
    fragments: bool = False
    organelle: int = -1


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
        warnings.append("no positive point; the answer is empty")
        return _kept(_nothing(), start, positive, negative, section, warnings)
    inner = organelle_of(source, clicks, meant, negative, section)
    if inner is not None:
        answer = ClickAnswer(inner.mask, inner.box, (), inner.windows, organelle=inner.fine)
    else:
        if clicks.kind == "organelle":
            warnings.append(
                "no organelle is seen at the points, so the cell is answered; set one in the "
                "middle of the organelle, or paint it"
            )
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
        own, against = inside(positive, reach.box), inside(negative, reach.box)
        wanted = _among(standing, standing[tuple(own.T)])
        if not reach.follow(wanted):
            break
    mask = wanted
    if len(own) > 1 or len(against) or not reach.stands:
        mask = _corrected(source, reach, clicks, standing, wanted, own, against)
    if not standing[tuple(own[0])]:
        mask = mask | ball(box_shape(reach.box), own[0], BEYOND, source.voxel_size_nm)
    mask[tuple(own.T)] = True  # a click never vanishes
    mask[tuple(against.T)] = False
    mask, parts = _parts_kept(mask, own, wanted)
    warnings = []
    if reach.limited:
        warnings.append("the object goes on beyond the limit of the click window")
    if parts > 1:
        warnings.append(
            f"the positive points lie in {parts} parts that do not touch; all are in the answer"
        )
    kept = source.objects is not None
    return ClickAnswer(mask, reach.box, tuple(warnings), reach.looked_at, kept)


def _parts_kept(mask: Mask, own: Points, wanted: Mask) -> tuple[Mask, int]:
    """The parts of a mask that hold points, and how many these are; what a cut has parted from them
    stays as well where it is more than what was taken off, since no point speaks of it."""
    found, parts = parts_with(mask, own)
    taken = int((wanted & ~mask).sum())
    rest = cc3d.connected_components(np.asarray(mask & ~found & wanted), connectivity=CONNECTIVITY)
    sizes = np.bincount(rest.ravel())
    stays = (sizes > taken) & (taken > 0)
    stays[0] = False
    return found | stays[rest], parts


def _corrected(
    source: ClickSource,
    reach: Reach,
    clicks: Clicks,
    standing: Ids,
    wanted: Mask,
    own: Points,
    against: Points,
) -> Mask:
    """The object of the first point, changed by what each of the others means."""
    size, box = source.voxel_size_nm, reach.box
    pieces = pieces_of(reach.ground, box, standing, wanted)
    speaking = np.array([depth_at(standing, p, size).central for p in against], np.bool_)
    disputed = np.intersect1d(_at(pieces.ids, own), _at(pieces.ids, against[speaking]))
    if len(disputed):  # a fragment of two objects: cut it first
        beyond = np.zeros(pieces.ids.shape, np.bool_)
        for number in disputed.tolist():
            piece = pieces.ids == number
            here, there = (p[piece[tuple(p.T)]] for p in (own, against[speaking]))
            beyond |= around_points(source, box, piece, here, there)
        pieces = pieces_of(reach.ground, box, standing, wanted, beyond)
    base = int(standing[tuple(own[0])])
    chosen = (pieces.objects == base) & (pieces.objects > 0)
    if not reach.stands:
        low = np.array(box_origin(box))
        said = prompted_costs(source, clicks, own + low, against + low, pieces.ids, box)
        chosen = cheapest(pieces, base, _at(pieces.ids, own), said)
    choose = all_that_holds if clicks.split else meaning_of(source.net).choose
    return corrected(Answer(pieces, base, chosen), own, against, size, choose)


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


def _among(standing: Ids, objects: Ids) -> Mask:
    table = np.zeros(int(standing.max(initial=0)) + 1, np.bool_)
    table[objects[objects > 0]] = True
    mask: Mask = table[standing]
    return mask


def _at(ids: Ids, points: Points) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.setdiff1d(ids[tuple(points.T)], 0).astype(np.int64)
    return found


def _nothing() -> ClickAnswer:
    return ClickAnswer(np.zeros((1, 1, 1), np.bool_), ((0, 1), (0, 1), (0, 1)), (), 0)
