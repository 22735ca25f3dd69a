"""Clicks in, the clicked object out: one answer for every list of clicks.

    points -> the objects and fragments that they lie in, as far as these reach
    -> where these fall apart between points of both signs (lib/clicks/parting.py)
    -> what each point means: the largest region that it lies in the middle of -> mask

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

from lib.clicks.cheapest import Pieces, cheapest, pieces_of
from lib.clicks.ground import Ids
from lib.clicks.masks import CONNECTIVITY, Mask, parts_with
from lib.clicks.organelles import organelle_of
from lib.clicks.parting import MIDDLE, around_points, in_the_middle, parted, regions
from lib.clicks.points import Points, clean_points, inside, without
from lib.clicks.prompted import prompted_costs
from lib.clicks.reach import Reach
from lib.clicks.said import Said, said_of
from lib.clicks.scale import ball, depth_at
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
        said = said_of(standing, reach.box, positive, negative, source.voxel_size_nm)
        wanted = _among(standing, said.objects)
        if not reach.follow(wanted):
            break
    mask = wanted
    if len(said.negative) or len(said.objects) > 1 or not reach.stands:
        mask = _cut(source, reach, clicks, said, standing, wanted)
    shape = box_shape(reach.box)
    for touch in said.added:
        near = ball(shape, touch.point, touch.radius, source.voxel_size_nm)
        mask = mask | (near & ~wanted)
    for touch in said.removed:
        mask = mask & ~ball(shape, touch.point, touch.radius, source.voxel_size_nm)
    own = inside(positive, reach.box)
    mask[tuple(own.T)] = True  # a click never vanishes
    mask[tuple(inside(negative, reach.box).T)] = False
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


def _cut(
    source: ClickSource,
    reach: Reach,
    clicks: Clicks,
    said: Said,
    standing: Ids,
    wanted: Mask,
) -> Mask:
    """The change of the objects in question that honours all points."""
    pieces = pieces_of(reach.ground, reach.box, standing, wanted)
    positive, negative = (_pieces_at(pieces.ids, p) for p in (said.positive, said.negative))
    disputed = np.intersect1d(positive, negative)
    if len(disputed):  # a fragment of two objects: cut it first
        beyond = _disputed(source, reach.box, pieces, disputed, said)
        pieces = pieces_of(reach.ground, reach.box, standing, wanted, beyond)
        positive, negative = (_pieces_at(pieces.ids, p) for p in (said.positive, said.negative))
    negative = np.setdiff1d(negative, positive)
    holds = parted(pieces, positive, negative)
    chosen = (pieces.objects == said.base) & (pieces.objects > 0)
    if not reach.stands:
        low = np.array(box_origin(reach.box))
        asked = said.positive + low, said.negative + low
        answer = prompted_costs(source, clicks, *asked, pieces.ids, reach.box)
        chosen = cheapest(pieces, said.base, positive, answer)
    mask: Mask = chosen[pieces.ids]
    size = source.voxel_size_nm
    adds, takes = (MIDDLE / max(1, n) for n in (len(said.positive) - 1, len(said.negative)))
    for number in positive[pieces.objects[positive] != said.base].tolist():
        own = said.positive[pieces.ids[tuple(said.positive.T)] == number]
        if adds < MIDDLE or any(depth_at(standing, p, size).middle for p in own):
            inner = (pieces.objects == pieces.objects[number]) & (holds <= 1)
            mask |= _meant(pieces, inner, number, own, size, adds, pieces.ids == number)
        else:  # deep in the other object, but beside its middle: at a border that it is beyond
            mask |= around_points(source, reach.box, pieces.ids == number, own[:0], own)
    for label, number in enumerate(negative.tolist(), 2):
        against = said.negative[pieces.ids[tuple(said.negative.T)] == number]
        least = _around(source, reach.box, pieces, np.array([number]), said)
        mask &= ~_meant(pieces, holds == label, number, against, size, takes, least)
    return mask


def _meant(
    pieces: Pieces,
    inner: NDArray[np.bool_],
    number: int,
    points: Points,
    voxel_size_nm: tuple[float, float, float],
    share: float,
    least: Mask,
) -> Mask:
    """The largest of the regions that points lie in the middle of."""
    for region in regions(pieces, inner, number):
        found: Mask = region[pieces.ids]
        if in_the_middle(found, points, voxel_size_nm, share):
            return found
    return least


def _disputed(
    source: ClickSource, box: Box, pieces: Pieces, chosen: NDArray[np.int64], said: Said
) -> Mask:
    """What of pieces with points of both signs is not the object: of its own what lies around the
    points against it, of others all but what lies around those for it."""
    own = chosen[pieces.objects[chosen] == said.base]
    gone = _around(source, box, pieces, own, said)
    swapped = replace(said, positive=said.negative, negative=said.positive)
    for number in np.setdiff1d(chosen, own).tolist():
        kept = _around(source, box, pieces, np.array([number]), swapped)
        gone |= (pieces.ids == number) & ~kept
    return gone


def _around(
    source: ClickSource, box: Box, pieces: Pieces, chosen: NDArray[np.int64], said: Said
) -> Mask:
    """What of some pieces belongs to the points against the object in them."""
    gone = np.zeros(pieces.ids.shape, np.bool_)
    for number in chosen.tolist():
        piece = pieces.ids == number
        own, against = (p[piece[tuple(p.T)]] for p in (said.positive, said.negative))
        gone |= around_points(source, box, piece, own, against)
    return gone


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


def _among(standing: Ids, objects: tuple[int, ...]) -> Mask:
    table = np.zeros(int(standing.max(initial=0)) + 1, np.bool_)
    table[list(objects)] = True
    mask: Mask = table[standing]
    return mask


def _pieces_at(ids: Ids, points: Points) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.setdiff1d(ids[tuple(points.T)], 0).astype(np.int64)
    return found


def _nothing() -> ClickAnswer:
    return ClickAnswer(np.zeros((1, 1, 1), np.bool_), ((0, 1), (0, 1), (0, 1)), (), 0)
