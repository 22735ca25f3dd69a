"""Objects learn at once: how fragments join is calibrated to the objects that were annotated.

No network pass is needed beside the one that gives the fragments: the contacts' log odds get a
slope and an offset. Parts of the volume are held back in turn; the calibration is used where it
lowers the adapted Rand error on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.metrics.object_scores import Contingency, adapted_rand_error, contingency
from lib.prediction.agglomeration import agglomerate
from lib.prediction.graph import FragmentGraph
from lib.prediction.joining import JoinModel, KnownJoins, calibrated, owners

PARTS = 4
"""Quarters of the annotated objects that are held back in turn."""
LEAST_OBJECTS = 8
"""Objects that can tell one calibration from another."""
LEAST_GAIN = 0.01
"""Adapted Rand error that a calibration must save on what was held back."""
SHIFTS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Added to the offset, in log odds: a contact's own odds do not know what agglomeration makes
of many of them."""


@dataclass(frozen=True)
class Annotated:
    """One volume with objects that people marked.

    Args:
        graph: of its fragments.
        table: voxels that each marked object and each fragment share.
        owner: (N + 1,) the object that holds most of each fragment, 0 none.
        part: object id -> the quarter it lies in.
    """

    graph: FragmentGraph
    table: Contingency
    owner: NDArray[np.int64]
    part: dict[int, int]

    def joins(self, without: int | None) -> KnownJoins:
        """What is known of the contacts, but for those with an object of a part."""
        outside = [o for o, part in self.part.items() if part != without]
        known = np.where(np.isin(self.owner, outside), self.owner, 0)
        one, other = known[self.graph.edges[:, 0]], known[self.graph.edges[:, 1]]
        together = np.where((one > 0) & (other > 0), one == other, -1)
        return KnownJoins(self.graph, together.astype(np.int8))

    def error(self, joining: JoinModel, parts: Sequence[int]) -> tuple[float, int]:
        """Adapted Rand error on the objects of some parts, and how many voxels they have."""
        cells = agglomerate(self.graph, joining.logits(self.graph))
        inside = [o for o, part in self.part.items() if part in parts]
        keep = np.isin(self.table.truth, inside)
        truth, guess = self.table.truth[keep], cells[self.table.guess[keep]]
        counts = self.table.counts[keep]
        if not len(truth):
            return 0.0, 0
        pairs, index = np.unique(np.stack([truth, guess], 1), axis=0, return_inverse=True)
        joint = np.bincount(index.ravel(), counts).astype(np.int64)
        table = Contingency(pairs[:, 0], pairs[:, 1], joint)
        return adapted_rand_error(table), int(counts.sum())


@dataclass(frozen=True)
class Calibration:
    """What was learned about objects.

    Args:
        slope, offset: of the contacts' log odds.
        before, after: adapted Rand error on the parts held back.
        objects: marked ones.
        used: whether it is used.
        reason: why not; "" where it is.
    """

    slope: float = 1.0
    offset: float = 0.0
    before: float = 0.0
    after: float = 0.0
    objects: int = 0
    used: bool = False
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What was learned, before and after, and whether it is in use."""
        told = f"objects, adapted Rand error {self.before:.2f} -> {self.after:.2f}"
        if self.used:
            return f"{told} by {self.objects} marked objects, in use"
        if not self.objects:
            return ""
        return f"objects left as they were: {self.reason}"

    def on(self, joining: JoinModel) -> JoinModel:
        """The model with this calibration."""
        return replace(joining, slope=self.slope, offset=self.offset) if self.used else joining


def annotated(
    graph: FragmentGraph,
    fragments: NDArray[np.uint32],
    ids: NDArray[np.int64],
    sets: NDArray[np.int32],
    hierarchy: LabelHierarchy,
) -> Annotated:
    """What labels say of a volume's fragments.

    Args:
        graph: of the volume.
        fragments: (X, Y, Z) ids.
        ids: (X, Y, Z) object ids, 0 none, -1 unknown.
        sets: (X, Y, Z) class sets; organelles lie in cells, so their ids say nothing of cells.
        hierarchy: of the labels.
    """
    inside = sum(1 << i for i, c in enumerate(hierarchy.classes) if c.inside)
    cells = np.where((ids > 0) & ((sets & ~inside) != 0), ids, IGNORE_INDEX)
    table = contingency(cells, fragments)
    return Annotated(graph, table, owners(graph.count, fragments, cells), _parts(cells))


def learn_objects(volumes: Sequence[Annotated], joining: JoinModel) -> Calibration:
    """Calibrate to marked objects, judged on parts held back.

    Args:
        volumes: with marked objects.
        joining: of the published weights.
    """
    count = sum(len(v.part) for v in volumes)
    if count < LEAST_OBJECTS:
        few = f"{count} marked objects, {LEAST_OBJECTS} are needed to tell"
        return Calibration(joining.slope, joining.offset, objects=count, reason=few)
    befores, afters, weights = [], [], []
    for part in range(PARTS):
        rest = [p for p in range(PARTS) if p != part]
        model = _fitted(volumes, joining, part, rest)
        before, voxels = _error(volumes, joining, [part])
        after, _ = _error(volumes, model, [part])
        befores.append(before)
        afters.append(after)
        weights.append(voxels)
    share = np.array(weights) / max(sum(weights), 1)
    before, after = (float(np.dot(share, e)) for e in (befores, afters))
    better = float(share[np.array(afters) < np.array(befores)].sum())
    model = _fitted(volumes, joining, None, list(range(PARTS)))
    used = after < before - LEAST_GAIN and better > 0.5
    reason = "" if used else f"the error would go from {before:.2f} to {after:.2f}"
    return Calibration(model.slope, model.offset, before, after, count, used, reason)


def _fitted(
    volumes: Sequence[Annotated], joining: JoinModel, without: int | None, parts: list[int]
) -> JoinModel:
    """The calibration that makes fewest errors on the parts that may be seen."""
    known = [volume.joins(without) for volume in volumes]
    fitted = calibrated(joining, known)
    candidates = [joining]
    for model in (joining, fitted):
        candidates += [replace(model, offset=model.offset + shift) for shift in SHIFTS]
    errors = [_error(volumes, model, parts)[0] for model in candidates]
    return candidates[int(np.argmin(errors))]


def _error(volumes: Sequence[Annotated], model: JoinModel, parts: list[int]) -> tuple[float, int]:
    found = [volume.error(model, parts) for volume in volumes]
    voxels = sum(n for _, n in found)
    return sum(e * n for e, n in found) / max(voxels, 1), voxels


def _parts(cells: NDArray[np.int64]) -> dict[int, int]:
    """The quarter of each object: halves along the two longer axes, by its middle."""
    where = np.nonzero(cells > 0)
    ids, index = np.unique(cells[where], return_inverse=True)
    if not len(ids):
        return {}
    count = np.bincount(index.ravel())
    middle = np.stack([np.bincount(index.ravel(), axis) / count for axis in where], 1)
    axes = np.argsort(-np.ptp(middle, axis=0), kind="stable")[:2]
    halves = [middle[:, a] > np.median(middle[:, a]) for a in axes]
    part = halves[0].astype(int) + 2 * halves[1].astype(int)
    return {int(i): int(p) for i, p in zip(ids, part, strict=True)}
