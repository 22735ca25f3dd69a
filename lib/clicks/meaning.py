"""What a correction means: of the changes that a point may ask for, the one that is made.

A point on what is wrong asks for anything from the voxels around it to a whole cell: a ball up to
the nearest border, the part of its fragment around it, or a region of the fragment graph, the
pieces that hang together most firmly first. Which of them brings the answer nearest to what the
annotator wants is learned from simulated annotators on training data (benchmarks/fit_clicks.py),
from what can be seen without knowing the truth: how firmly a region hangs together and with its
surroundings, how large the change is, how deep the point lies, and how often it was corrected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.clicks.changes import KINDS, Answer, Change, Correction, Pick, changes_of
from lib.clicks.cheapest import Pieces
from lib.clicks.masks import Mask
from lib.clicks.points import Points
from lib.networks.model import NeuropilNet
from lib.prediction.perceptron import LARGEST_LOGIT, Perceptron

logger = logging.getLogger("neuropil.clicks")

FEATURES = 2 * 26
CENTRAL = 0
"""Column of `seen_of`: whether the point lies in the middle of its object."""

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
            moves = found & (answer.mask != adds)
            moved, again = float(moves.sum()), float(answer.told[pieces.ids[moves]].sum())
            contacts, part = [0.0] * 6, 0.0
        else:
            size = float(sizes[change.pieces].sum())
            here = float(share[change.pieces] @ sizes[change.pieces])
            moved = size - here if adds else here
            again = float(sizes[change.pieces & answer.told & (share != adds)].sum())
            contacts = _contacts(pieces, change.pieces, within)
            part = float(change.pieces[pieces.objects == owner].mean())
        rows.append([
            inner.central, change.kind == KINDS.index("ball"), change.kind == KINDS.index("part"),
            np.log1p(moved), np.log(max(moved, 1.0) / total), moved / max(size, 1.0),
            np.log(max(moved, 1.0) / whole), np.log1p(moved) / 3.0 - np.log1p(depth.own),
            *contacts, change.level, change.next, part,
            depth.own, np.log1p(depth.own), depth.own / max(depth.around, 1e-6),
            np.log1p(inner.own), inner.own / max(inner.around, 1e-6),
            owner == answer.base, correction.nth, np.log(total), again / max(moved, 1.0),
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


def all_that_holds(answer: Answer, correction: Correction, changes: Sequence[Change]) -> int:
    """The largest change: where an object is to fall in two, nothing else is asked."""
    return len(changes) - 1


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
