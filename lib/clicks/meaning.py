"""What a correction means: of the changes that a point may ask for, the one that is made.

A point on what is wrong asks for anything from the voxels around it to a whole cell: a ball up to
the nearest border, the part of its fragment around it, or a region of the fragment graph, the
pieces that hang together most firmly first. Which of them brings the answer nearest to what the
annotator wants is learned from simulated annotators on training data (benchmarks/fit_clicks.py),
from what can be seen without knowing the truth: how firmly a region hangs together and with its
surroundings, how large the change is, how deep the point lies, and how often it was corrected.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

from lib.clicks.cheapest import Pieces
from lib.clicks.masks import Mask
from lib.clicks.parting import parted
from lib.clicks.points import Points
from lib.clicks.scale import BEYOND, Depth, around, ball, depth_at
from lib.networks.model import NeuropilNet
from lib.prediction.perceptron import LARGEST_LOGIT, Perceptron
from lib.volumes.boxes import Triple

logger = logging.getLogger("neuropil.clicks")

REACH = 14
"""Voxels of the finest axis up to which a point's depth is looked at."""
GROWTH = 1.25
"""A region is worth considering if it is so many times as large as the last one."""
PART = 2.0
"""How far the part of a fragment reaches, in the point's depths."""
KINDS = ("ball", "part", "region")
FEATURES = 2 * 25
CENTRAL = 0
"""Column of `seen_of`: whether the point lies in the middle of its object."""

Pick = NDArray[np.bool_]
"""(P + 1,) some of the pieces."""


@dataclass(frozen=True)
class Change:
    """What a correction may mean.

    Args:
        kind: index into `KINDS`.
        pieces: of a region; None: `voxels` are meant.
        voxels: of the box.
        level: log odds of the weakest contact that holds a region together.
        next: of the contact that would make it larger.
    """

    kind: int
    pieces: Pick | None = None
    voxels: Mask | None = None
    level: float = 0.0
    next: float = 0.0

    def mask(self, ids: NDArray[np.uint32]) -> Mask:
        """(x, y, z) its voxels."""
        if self.pieces is None:
            assert self.voxels is not None, "a change has pieces or voxels"
            return self.voxels
        found: Mask = self.pieces[ids]
        return found


@dataclass(frozen=True)
class Correction:
    """A point on what is wrong, and what is known where it lies.

    Args:
        point: voxel of the box.
        adds: it is for the object (False: against it).
        depth: of the point in what is the answer, or is not, as it is wrong there.
        inner: the same as far as it lies in the point's object.
        nth: how many corrections of its sign there are with it.
        opposed: pieces with points of the other sign.
    """

    point: Triple
    adds: bool
    depth: Depth
    inner: Depth
    nth: int
    opposed: NDArray[np.int64]


class Answer:
    """The pieces that are the object so far, and the voxels.

    Args:
        pieces: of the objects that hold points.
        base: the object that the first point lies in, 0 none.
        chosen: (P + 1,) its pieces.
    """

    def __init__(self, pieces: Pieces, base: int, chosen: Pick) -> None:
        self.pieces, self.base = pieces, base
        self.share = chosen.astype(np.float64)
        self.mask: Mask = chosen[pieces.ids]
        self.sizes = np.bincount(pieces.ids.ravel(), minlength=len(chosen)).astype(np.float64)

    def depths(self, point: Triple, voxel_size_nm: Sequence[float]) -> tuple[Depth, Depth]:
        """How deep a point lies in the answer, or in what is not the answer, and in its object as
        far as that is so."""
        spacing = [v / min(voxel_size_nm) for v in voxel_size_nm]
        spans, at = around(point, REACH, spacing, self.mask.shape)
        mask = self.mask[spans]
        objects = 2 * self.pieces.objects[self.pieces.ids[spans]] + mask
        plain, inner = (depth_at(each, at, voxel_size_nm, REACH) for each in (mask, objects))
        return plain, inner

    def take(self, change: Change, adds: bool) -> None:
        """Make a change."""
        voxels = change.mask(self.pieces.ids)
        self.mask = self.mask | voxels if adds else self.mask & ~voxels
        if change.pieces is not None:
            self.share[change.pieces] = adds


Choose = Callable[[Answer, Correction, Sequence[Change]], int]
"""Index of the change that is made."""


def corrected(
    answer: Answer,
    positive: Points,
    negative: Points,
    voxel_size_nm: Sequence[float],
    choose: Choose,
) -> Mask:
    """The answer, changed by what each point means.

    Requests tell points of the two signs apart and not their order. So those for what is not the
    object yet come first, then those against it, and then those for what these took too much of:
    the order in which people would have set them.

    Args:
        answer: before any correction; it changes.
        positive, negative: points of the box; the first positive one says which object is meant.
        voxel_size_nm: (x, y, z).
        choose: which of the changes is meant.
    """
    ids = answer.pieces.ids
    own, against = (ids[tuple(p.T)].astype(np.int64) for p in (positive, negative))
    brought = ~answer.mask[tuple(positive.T)]
    brought[:1] = True  # it is what everything else corrects
    count = {True: 0, False: 0}
    for points, adds, opposed in (
        (positive, True, against),
        (negative, False, own[brought]),
        (positive, True, against),  # for what those against it took too much of
    ):
        for point in points[1:] if adds else points:
            x, y, z = (int(v) for v in point)
            if answer.mask[x, y, z] == adds:
                continue
            count[adds] += 1
            depth, inner = answer.depths((x, y, z), voxel_size_nm)
            others = np.setdiff1d(opposed, 0)
            correction = Correction((x, y, z), adds, depth, inner, count[adds], others)
            changes = changes_of(answer, correction, voxel_size_nm)
            answer.take(changes[choose(answer, correction, changes)], adds)
    return answer.mask


def changes_of(
    answer: Answer, correction: Correction, voxel_size_nm: Sequence[float]
) -> list[Change]:
    """All that a correction may mean."""
    pieces, point, own = answer.pieces, correction.point, correction.depth.own
    x, y, z = pieces.ids.shape
    near = ball((x, y, z), point, own + BEYOND, voxel_size_nm)
    found = [Change(KINDS.index("ball"), voxels=near)]
    piece = int(pieces.ids[point])
    if not piece:
        return found
    wide = ball((x, y, z), point, PART * (own + BEYOND), voxel_size_nm)
    found.append(Change(KINDS.index("part"), voxels=wide & (pieces.ids == piece)))
    if piece in correction.opposed:
        return found
    zone = pieces.objects == pieces.objects[piece]
    if len(correction.opposed):
        zone &= parted(pieces, np.array([piece]), correction.opposed) == 1
    return found + regions(pieces, zone, piece, answer.sizes)


def regions(pieces: Pieces, zone: Pick, piece: int, sizes: NDArray[np.float64]) -> list[Change]:
    """The pieces around one that hang together at some firmness, ever less of it.

    Args:
        pieces: of the objects that hold points.
        zone: those in question, `piece` among them.
        piece: the one with the point.
        sizes: (P + 1,) voxels.

    Returns:
        regions of which each holds the ones before it; the last is all of `zone` that hangs
        together with the piece.
    """
    order, joins = _as_they_join(pieces, zone, piece)
    volume = np.cumsum(sizes[order])
    lowest = np.minimum.accumulate(np.append(LARGEST_LOGIT, joins))  # of the first n + 1 pieces
    following = np.append(joins, -LARGEST_LOGIT)
    ends = np.flatnonzero(following < lowest)  # what comes next hangs together less
    found: list[Change] = []
    last = 0.0
    for end in ends.tolist():
        if volume[end] < GROWTH * last and end != ends[-1]:
            continue
        last = volume[end]
        inner = np.zeros(len(zone), np.bool_)
        inner[order[: end + 1]] = True
        level, after = float(lowest[end]), float(following[end])
        found.append(Change(KINDS.index("region"), inner, None, level, after))
    return found


def _as_they_join(
    pieces: Pieces, zone: Pick, piece: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pieces in the order in which the firmest contact with those before joins them, and the log
    odds (N - 1,) of these contacts.

    Source: Prim 1957, on the spanning tree that single linkage follows.
    """
    one, other = pieces.edges.T
    use = zone[one] & zone[other]
    costs = 2.0 * LARGEST_LOGIT - np.clip(pieces.logits[use], -LARGEST_LOGIT, LARGEST_LOGIT)
    graph = coo_matrix((costs, (one[use], other[use])), (len(zone), len(zone)))
    tree = minimum_spanning_tree(graph.tocsr())
    tree = (tree + tree.T).tocsr()
    order, seen = [piece], {piece}
    joins: list[float] = []
    heap: list[tuple[float, int]] = []
    here = piece
    while True:
        span = slice(tree.indptr[here], tree.indptr[here + 1])
        for cost, there in zip(tree.data[span].tolist(), tree.indices[span].tolist(), strict=True):
            if there not in seen:
                heapq.heappush(heap, (cost, there))
        if not heap:
            return np.array(order), np.array(joins, np.float64)
        cost, here = heapq.heappop(heap)
        seen.add(here)
        order.append(here)
        joins.append(2.0 * LARGEST_LOGIT - cost)


def seen_of(
    answer: Answer, correction: Correction, changes: Sequence[Change]
) -> NDArray[np.float32]:
    """(C, FEATURES) what is seen of each change, without knowing what is true."""
    pieces, sizes, share = answer.pieces, answer.sizes, answer.share
    adds, depth, inner = correction.adds, correction.depth, correction.inner
    piece = int(pieces.ids[correction.point])
    owner = int(pieces.objects[piece])
    within = share > 0.5
    total = max(float(share @ sizes), 1.0)
    whole = max(float(sizes[pieces.objects == owner].sum()), 1.0) if owner else 1.0
    rows = []
    for change in changes:
        if change.pieces is None:
            found = change.mask(pieces.ids)
            size = float(found.sum())
            moved = float((found & (answer.mask != adds)).sum())
            contacts, part = [0.0] * 6, 0.0
        else:
            size = float(sizes[change.pieces].sum())
            here = float(share[change.pieces] @ sizes[change.pieces])
            moved = size - here if adds else here
            contacts = _contacts(pieces, change.pieces, within)
            part = float(change.pieces[pieces.objects == owner].mean())
        rows.append([
            inner.central, change.kind == KINDS.index("ball"), change.kind == KINDS.index("part"),
            np.log1p(moved), np.log(max(moved, 1.0) / total), moved / max(size, 1.0),
            np.log(max(moved, 1.0) / whole), np.log1p(moved) / 3.0 - np.log1p(depth.own),
            *contacts, change.level, change.next, part,
            depth.own, np.log1p(depth.own), depth.own / max(depth.around, 1e-6),
            np.log1p(inner.own), inner.own / max(inner.around, 1e-6),
            owner == answer.base, correction.nth, np.log(total),
        ])  # fmt: skip
    seen = np.array(rows, np.float32)
    return np.concatenate([seen, seen * np.float32(adds)], 1)


def _contacts(pieces: Pieces, region: Pick, inside: Pick) -> list[float]:
    """Of a region's contacts with the answer, and with what is not the answer: the firmest, the
    mean, and the logarithm of their size."""
    one, other = pieces.edges.T
    crossing = region[one] != region[other]
    logits = np.clip(pieces.logits[crossing], -LARGEST_LOGIT, LARGEST_LOGIT)
    sizes = pieces.sizes[crossing]
    beyond = inside[np.where(region[one], other, one)[crossing]]
    found: list[float] = []
    for side in (beyond, ~beyond):
        if not side.any():
            found += [-LARGEST_LOGIT, -LARGEST_LOGIT, 0.0]
            continue
        weight = sizes[side]
        mean = float(logits[side] @ weight / weight.sum())
        found += [float(logits[side].max()), mean, float(np.log1p(weight.sum()))]
    return found


@dataclass(frozen=True)
class Meaning:
    """Decides which change a correction means.

    Args:
        worth: of each change, from what is seen of it; None: a point in the middle of its object
            means all that holds to it, another one the border.
    """

    worth: Perceptron | None = None

    def choose(self, answer: Answer, correction: Correction, changes: Sequence[Change]) -> int:
        """Index of the change that is made."""
        seen = seen_of(answer, correction, changes)
        if self.worth is None:
            return len(seen) - 1 if seen[0, CENTRAL] else 0
        return int(self.worth.outputs(seen).argmax())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as weights files keep them."""
        assert self.worth is not None, "the plain rule is not kept"
        return {"worth": self.worth.to_dict()}


PLAIN = Meaning()
"""Without a fitted model."""


def meaning_of(net: NeuropilNet) -> Meaning:
    """What goes with a network's weights; the plain rule where nothing was fitted, or, with a
    warning, where it was fitted to what another version sees."""
    data: Mapping[str, Any] | None = net.meaning
    if data is None:
        return PLAIN
    worth = Perceptron.from_dict(data["worth"])
    if worth.width != FEATURES:
        logger.warning(
            "corrections mean objects or borders: the weights hold a model for %d features of a "
            "change, this version has %d; fit it again with benchmarks/fit_clicks.py",
            worth.width, FEATURES,
        )  # fmt: skip
        return PLAIN
    return Meaning(worth)
