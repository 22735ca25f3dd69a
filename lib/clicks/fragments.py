"""Clicks that start from the automatic objects: the annotator corrects what is on the screen.

Where the objects of an image have been found before, their map cuts the image into fragments.
A fragment that holds positive points only is part of the answer as a whole, one that holds
negative points only is not; one that holds both is cut between them, along the boundaries of the
embedding and by what the network says.
A merge error heals in part: what hangs on by a thin bridge only is taken off a fragment, and
where the network's answer is of a group of classes that little of the fragment has (a
mitochondrion in a neurite), all else is. On all other fragments its answer decides: one that
it mostly covers joins (a split error heals), and so do the voxels of no fragment that it
covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.clicks.masks import (
    Mask,
    Points,
    Terrain,
    bounds,
    clicked_object,
    parts_holding,
)
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, minus, shift_box
from lib.volumes.contrast import LazyImage
from lib.volumes.frames import SECTION_RATIO, ViewerFrame

Ids = NDArray[np.uint32]

UNKNOWN = 2**32 - 1
MOSTLY = 0.5
"""Share of a fragment that the network's answer must exceed for the whole fragment to join."""
BRIDGE = 2
"""Voxels that are taken off a fragment all around to see what hangs together."""
OWN_GROUP = 0.4
"""By how much more of the network's answer than of the fragment must be of the answer's group of
classes for the fragment to be another object."""
AGREED = 0.5
"""Share of the positive points that those of the answer's group must exceed for the same."""
SAMPLED = 2000
"""Voxels by which the groups of an answer and of a fragment are judged."""
INSIDE = 1.0
"""Logit of a fragment that is in: whatever the network says of its voxels."""


class FramedLabels:
    """A label map in the network's frame, read lazily.

    Args:
        frame: of the image.
        labels: (shape of the frame), viewer order, integers.
    """

    def __init__(self, frame: ViewerFrame, labels: LazyImage) -> None:
        assert tuple(labels.shape) == frame.shape, (labels.shape, frame.shape)
        self.frame, self.labels = frame, labels

    @property
    def shape(self) -> tuple[int, ...]:
        return self.frame.network_shape

    def __getitem__(self, index: Any) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = ((s.start, s.stop) for s in index)
        box: Box = ((a, b), (c, d), (e, f))
        values = np.asarray(self.labels[box_slices(self.frame.viewer_box(box))])
        return self.frame.labels_to_network(values, box)


@dataclass(frozen=True)
class Evidence:
    """What the network says about the clicked object.

    Args:
        mask: (x, y, z) its answer on `box`.
        logits: (x, y, z), UNREACHED or negative where it sees nothing of the object.
        box: network voxels.
        groups: (N, 3) network voxels -> (N,) their most probable group of classes (class, where
            there are no groups), -1 unseen.
        boundary: network voxels -> (x, y, z) in [0, 1], 1 where objects end, 0 unseen.
    """

    mask: Mask
    logits: NDArray[np.float32]
    box: Box
    groups: Callable[[Points], NDArray[np.int64]]
    boundary: Callable[[Box], NDArray[np.float32]]


@dataclass(frozen=True)
class Claims:
    """What the points say about the fragments that they lie in.

    Args:
        labels: (X, Y, Z) ids of the fragments, 0 none.
        wholly: ids with positive points only.
        cut: ids with points of both signs.
        denied: ids with negative points only.
    """

    labels: LazyImage
    wholly: NDArray[np.int64]
    cut: NDArray[np.int64]
    denied: NDArray[np.int64]


def join_fragments(
    claims: Claims,
    evidence: Evidence,
    limit: Box,
    positive: Points,
    negative: Points,
    voxel_size_nm: Sequence[float],
) -> tuple[Mask, Box, int, bool]:
    """The clicked object, made of fragments.

    Args:
        claims: `claims_of` the points.
        evidence: of the network.
        limit: how far the object is followed; holds `evidence.box`.
        positive: (P, 3), negative: (N, 3) points in the volume, not on one voxel.
        voxel_size_nm: (x, y, z).

    Returns:
        mask on a box, the box, the number of parts with a positive point that do not touch,
        and whether the limit cut the object.
    """
    foreign = _foreign(evidence, claims, positive)
    box = evidence.box
    while True:
        ids = _read(claims.labels, box)
        at = box_slices(shift_box(evidence.box, minus(box_origin(box))))
        chosen = _chosen(ids, at, evidence.mask, claims)
        chosen[at] &= ~foreign
        following, limited = _grown(box, chosen, limit, claims.labels.shape)
        if following == box:
            break
        box = following
    low, high = np.array(box).T
    near = [p[((p >= low) & (p < high)).all(1)] - low for p in (positive, negative)]
    for fragment in np.concatenate((claims.wholly, claims.cut)).tolist():
        chosen &= ~_beyond_bridges(ids == fragment, near[0], voxel_size_nm)
    logits = np.full(ids.shape, -1.0, np.float32)
    logits[at] = np.where(evidence.mask & (ids[at] == 0), evidence.logits, -1.0)
    logits[chosen] = INSIDE
    terrain = _terrain(evidence, claims, ids, box)
    mask, parts = clicked_object(logits, near[0], near[1], terrain)
    if len(claims.wholly):
        mine = _among(ids, claims.wholly) & chosen
        mask |= parts_holding(mine, near[0])  # a cut beside it takes nothing from it
    return mask, box, parts, limited


def claims_of(labels: LazyImage, positive: Points, negative: Points) -> Claims:
    """What points say about the fragments."""
    mine, theirs = (_ids_at(labels, points) for points in (positive, negative))
    wholly, denied = np.setdiff1d(mine, theirs), np.setdiff1d(theirs, mine)
    return Claims(labels, wholly, np.intersect1d(mine, theirs), denied)


def disputed_voxels(claims: Claims, box: Box) -> Mask | None:
    """Voxels of a box in fragments with points of both signs; None where there are none."""
    return _among(_read(claims.labels, box), claims.cut) if len(claims.cut) else None


def _terrain(evidence: Evidence, claims: Claims, ids: Ids, box: Box) -> Terrain:
    """What fragments with points of both signs are cut by, on a box with its ids (x, y, z)."""
    logits, boundary = np.zeros((2, *ids.shape), np.float32)
    logits[box_slices(shift_box(evidence.box, minus(box_origin(box))))] = evidence.logits
    disputed = _among(ids, claims.cut)
    if disputed.any():
        spans = bounds(disputed)
        (a, b), (c, d), (e, f) = ((s.start, s.stop) for s in spans)
        boundary[spans] = evidence.boundary(shift_box(((a, b), (c, d), (e, f)), box_origin(box)))
    return Terrain(logits, boundary)


def _beyond_bridges(fragment: Mask, points: Points, voxel_size_nm: Sequence[float]) -> Mask:
    """What of a fragment hangs on the points' part of it by a thin bridge only.

    Nothing where a point lies in a thin place itself.

    Args:
        fragment: (x, y, z).
        points: (P, 3) in it or not, on the same voxels.
        voxel_size_nm: (x, y, z); bridges are looked for along the axes of the finest voxels.
    """
    nothing = np.zeros_like(fragment)
    points = points[fragment[tuple(points.T)]]
    if not len(points):
        return nothing
    spans = bounds(fragment)
    whole = fragment[spans]
    along = np.array(voxel_size_nm) < SECTION_RATIO * min(voxel_size_nm)
    cross, cube = (ndimage.generate_binary_structure(3, n) for n in (1, 3))
    for axis in np.flatnonzero(~along):
        level = np.indices(cube.shape)[axis] == 1
        cross, cube = cross & level, cube & level
    # The image's border is no boundary of an object.
    core = ndimage.binary_erosion(whole, cross, iterations=BRIDGE, border_value=1)
    at = points - [span.start for span in spans]
    if not core[tuple(at.T)].all():
        return nothing
    part = ndimage.binary_dilation(parts_holding(core, at), cube, iterations=BRIDGE + 1, mask=whole)
    nothing[spans] = whole & ~part
    return nothing


def _foreign(evidence: Evidence, claims: Claims, positive: Points) -> Mask:
    """Voxels of claimed fragments beyond the network's answer, where that is of another group.

    Returns:
        bool on `evidence.box`.
    """
    ids = _read(claims.labels, evidence.box)
    foreign = np.zeros(ids.shape, bool)
    for fragment in np.concatenate((claims.wholly, claims.cut)).tolist():
        whole = ids == fragment
        if _is_of_own_group(evidence, whole, positive):
            foreign |= whole & ~evidence.mask
    return foreign


def _is_of_own_group(evidence: Evidence, fragment: Mask, positive: Points) -> bool:
    """Whether answer and most points are of one group, and the fragment (x, y, z) mostly is not."""
    own = evidence.mask & fragment & (evidence.logits > 0)  # not the mere marks of clicks
    answer, other = (_groups_in(evidence, mask) for mask in (own, fragment))
    if not len(answer) or not len(other):
        return False
    values, counts = np.unique(answer, return_counts=True)
    main = values[np.argmax(counts)]
    if (evidence.groups(positive) == main).mean() <= AGREED:
        return False  # a point beyond the mitochondrion means the neurite around it
    return bool((answer == main).mean() - (other == main).mean() > OWN_GROUP)


def _groups_in(evidence: Evidence, mask: Mask) -> NDArray[np.int64]:
    """Groups of some voxels of a mask on the evidence's box, those that were seen."""
    voxels = np.flatnonzero(mask)
    voxels = voxels[:: max(1, len(voxels) // SAMPLED)]
    places = np.stack(np.unravel_index(voxels, mask.shape), 1) + np.array(box_origin(evidence.box))
    groups = evidence.groups(places)
    return groups[groups >= 0]


def _chosen(ids: Ids, at: tuple[slice, ...], mask: Mask, claims: Claims) -> Mask:
    """Fragments that are in, as far as whole fragments go: claimed, or mostly covered."""
    covered, counts = fastremap.unique(ids[at][mask], return_counts=True)
    free = (covered > 0) & ~np.isin(covered, np.concatenate((claims.denied, claims.cut)))
    free &= ~np.isin(covered, claims.wholly)
    wanted = np.concatenate((claims.wholly, claims.cut))
    if free.any():
        every, totals = fastremap.unique(ids, return_counts=True)
        size = totals[np.searchsorted(every, covered[free])]
        wanted = np.concatenate((wanted, covered[free][counts[free] > MOSTLY * size]))
    return _among(ids, wanted)


def _among(ids: Ids, wanted: NDArray[Any]) -> Mask:
    if not len(wanted):
        return np.zeros(ids.shape, bool)
    kept: Mask = fastremap.mask_except(ids, [int(i) for i in wanted]) != 0
    return kept


def _grown(box: Box, chosen: Mask, limit: Box, shape: Sequence[int]) -> tuple[Box, bool]:
    """The box, half as long again beyond every face that the object reaches."""
    spans = []
    limited = False
    for axis, (low, high) in enumerate(box):
        first, last = limit[axis]
        deep = last - first > 1  # else the answer is wanted in one section
        more = max(1, (high - low) // 2)
        if chosen.take(0, axis).any():
            limited |= deep and low == first > 0
            first = max(first, low - more)
        else:
            first = low
        if chosen.take(-1, axis).any():
            limited |= deep and high == last < shape[axis]
            last = min(last, high + more)
        else:
            last = high
        spans.append((first, last))
    return (spans[0], spans[1], spans[2]), limited


def _read(labels: LazyImage, box: Box) -> Ids:
    """Ids of a box; unknown counts as none."""
    ids = np.ascontiguousarray(labels[box_slices(box)]).astype(np.uint32, copy=False)
    assert ids.shape == box_shape(box)
    unknown = ids == UNKNOWN
    return np.where(unknown, np.uint32(0), ids) if unknown.any() else ids


def _ids_at(labels: LazyImage, points: Points) -> NDArray[np.int64]:
    """The fragments that hold some points, ascending."""
    found = set()
    for x, y, z in points.tolist():
        found.add(int(_read(labels, ((x, x + 1), (y, y + 1), (z, z + 1)))[0, 0, 0]))
    return np.array(sorted(found - {0}), np.int64)
