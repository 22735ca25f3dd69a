"""Split and merge errors of the automatic instances, and what two clicks make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lib.evaluation.click_sessions import Answers
from lib.metrics.clicks import Click, first_click, mask_iou, seeded_generator
from lib.metrics.object_scores import contingency

CASES = 5
"""Errors that are healed, at most, of each kind."""
LARGE = 500
"""Voxels that a body and an instance share at least."""
MOSTLY, SHARED = 0.7, 0.2
"""Share of an instance in a body from which it is a piece of it, or a merge with it."""

Places = list[tuple[int, int, bool]]
"""Where to click: (body, instance, positive)."""


def heal(
    name: str,
    ids: NDArray[np.int64],
    automatic: NDArray[np.uint32],
    voxel_size_nm: Sequence[float],
    answer: Answers,
) -> Iterator[tuple[str, int, float, float]]:
    """Heal a few errors of each kind by clicks inside the pieces, as sessions begin.

    Args:
        name: seeds the clicks, with kind and body.
        ids: (X, Y, Z) bodies, -1 unknown.
        automatic: (X, Y, Z) instances, 0 none.
        voxel_size_nm: (x, y, z).
        answer: the app.

    Yields:
        (kind, body, IoU of the better instance clicked on, IoU of the answer to both clicks)
    """
    known = ids >= 0
    cases = [("split", p) for p in islice(splits(ids, automatic), CASES)]
    cases += [("merge", p) for p in islice(merges(ids, automatic), CASES)]
    for kind, places in cases:
        body = places[0][0]
        generator = seeded_generator(name + kind, body)
        clicks = []
        for true, guess, positive in places:
            piece = (ids == true) & (automatic == guess)
            where = first_click(piece, voxel_size_nm, generator).position
            clicks.append(Click(where, positive))
        truth = ids == body
        before = max(mask_iou(truth, automatic == g, known) for _, g, _ in places)
        yield kind, body, before, mask_iou(truth, answer(clicks), known)


def splits(ids: NDArray[np.int64], automatic: NDArray[np.uint32]) -> Iterator[Places]:
    """Two positive clicks on the two largest instances that lie mostly in one body."""
    parts: dict[int, list[int]] = {}
    for body, guess, share in _overlaps(ids, automatic):
        if share > MOSTLY:
            parts.setdefault(body, []).append(guess)
    for body, found in parts.items():
        if len(found) > 1:
            yield [(body, guess, True) for guess in found[:2]]


def merges(ids: NDArray[np.int64], automatic: NDArray[np.uint32]) -> Iterator[Places]:
    """A positive and a negative click on the two bodies with most of one instance."""
    bodies: dict[int, list[int]] = {}
    for body, guess, share in _overlaps(ids, automatic):
        if share > SHARED:
            bodies.setdefault(guess, []).append(body)
    for guess, found in bodies.items():
        if len(found) > 1:
            yield [(found[0], guess, True), (found[1], guess, False)]


def _overlaps(
    ids: NDArray[np.int64], automatic: NDArray[np.uint32]
) -> list[tuple[int, int, float]]:
    """(body, instance, share of the instance) of large overlaps, the largest first."""
    table = contingency(ids, automatic)
    instances, place = np.unique(table.guess, return_inverse=True)
    size = np.bincount(place, table.counts, len(instances))[place]
    large = np.flatnonzero((table.truth > 0) & (table.guess > 0) & (table.counts >= LARGE))
    order = large[np.argsort(-table.counts[large], kind="stable")]
    return [
        (int(table.truth[i]), int(table.guess[i]), float(table.counts[i] / size[i])) for i in order
    ]
