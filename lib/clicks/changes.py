"""All that a correction may mean: a ball up to the nearest border, the part of its fragment around
it, or a region of the fragment graph, the pieces that hang together most firmly first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

from lib.clicks.cheapest import Pieces
from lib.clicks.masks import Mask
from lib.clicks.parting import parted
from lib.clicks.scale import BEYOND, Depth, around, ball, depth_at
from lib.prediction.perceptron import LARGEST_LOGIT
from lib.volumes.boxes import Triple

REACH = 14
"""Voxels of the finest axis up to which a point's depth is looked at."""
GROWTH = 1.25
"""A region is worth considering if it is so many times as large as the last one."""
PART = 2.0
"""How far the part of a fragment reaches, in the point's depths."""
KINDS = ("ball", "part", "region")

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
        self.told = np.zeros(len(chosen), np.bool_)  # pieces that a correction has changed
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
            self.told |= change.pieces & (self.share != adds)
            self.share[change.pieces] = adds


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
