"""Objects learn at once: how fragments join is fitted to the objects that were marked.

Where boundaries are can be asked of the published network, of the study's heads, or of a boundary
head of the study's own; each gives a volume's fragments and their contacts. The contacts' log
odds get an offset. Quarters of the marked objects are held back in turn, and what is chosen
without a quarter is judged on it; it is used where it lowers the adapted Rand error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.labels.class_sets import cells_only
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.metrics.object_scores import Contingency, contingency
from lib.prediction.graph import FragmentGraph
from lib.prediction.joining import JoinModel
from lib.prediction.learned import Joining
from lib.prediction.objects import joined_cells

PARTS = 4
"""Quarters of the marked objects that are held back in turn."""
LEAST_OBJECTS = 8
"""Objects that can tell one way of joining from another."""
LEAST_GAIN = 0.03
"""Adapted Rand error that a way of joining must save on what was held back."""
WORTH = 0.01
"""Adapted Rand error by which boundaries of another kind must be better than simpler ones."""
OFFSETS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
PLAIN_OFFSETS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Added to the log odds of the weights' join model, and of the mean affinity alone."""


CANDIDATES = (
    *(Joining(offset) for offset in OFFSETS),
    *(Joining(offset, plain=True) for offset in PLAIN_OFFSETS),
)
AS_IT_IS = OFFSETS.index(0.0)


@dataclass(frozen=True)
class Annotated:
    """One volume with objects that people marked.

    Args:
        graph: of its fragments.
        table: voxels that each marked object and each fragment share.
        part: object -> the quarter it lies in.
        depth: sections, where an object is one section's piece of a cell (number % depth is
            its section); 0 where objects are whole.
    """

    graph: FragmentGraph
    table: Contingency
    part: Mapping[int, int]
    depth: int = 0

    def errors(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """(2 * PARTS + 1, 2): adapted Rand error and voxels of some of the objects.

        Of each part's, of all but each part's, of all. An object counts as merged with others
        of whatever part.

        Args:
            cells: (N + 1,) the cell of each fragment.
        """
        truth, counts = self.table.truth, self.table.counts.astype(np.float64)
        guess = cells[self.table.guess]
        if self.depth:  # what joins across sections is not known
            guess = guess * self.depth + truth % self.depth
        own, found = (np.unique(ids, return_inverse=True) for ids in (truth, guess))
        keys, index = np.unique(own[1] * len(found[0]) + found[1], return_inverse=True)
        joint = np.bincount(index, counts).astype(np.float64)
        object_of, cell_of = np.divmod(keys, max(len(found[0]), 1))
        size, taken = (np.bincount(of, joint).astype(np.float64)[of] for of in (object_of, cell_of))
        parts = np.array([self.part[int(o)] for o in own[0]], np.int64)[object_of]
        choices = [parts == p for p in range(PARTS)]
        choices += [~c for c in choices] + [np.ones(len(parts), np.bool_)]
        return np.array([_error(joint, size, taken, c) for c in choices])


@dataclass(frozen=True)
class Arm:
    """One way to find boundaries.

    Args:
        name: for people; "" for the published network's.
        volumes: those with marked objects, by it.
    """

    name: str
    volumes: Sequence[Annotated]


@dataclass(frozen=True)
class LearnedObjects:
    """What was learned about objects.

    Args:
        arm: index of the arm that is used.
        joining: of its fragments.
        before, after: adapted Rand error on the parts held back.
        objects: marked ones.
        used: whether it is used.
        reason: why not; "" where it is.
        by: name of the arm.
        errors: of all marked objects, by candidate, in that arm.
    """

    arm: int = 0
    joining: Joining = field(default_factory=Joining)
    before: float = 0.0
    after: float = 0.0
    objects: int = 0
    used: bool = False
    reason: str = ""
    by: str = ""
    errors: tuple[float, ...] = ()

    @property
    def sentence(self) -> str:
        """What was learned, before and after, and whether it is in use."""
        told = f"objects, adapted Rand error {self.before:.2f} -> {self.after:.2f}"
        if self.used:
            by = f", boundaries from {self.by}" if self.by else ""
            return f"{told} by {self.objects} marked objects{by}, in use"
        if not self.objects:
            return ""
        return f"objects left as they were: {self.reason}"


def annotated(
    graph: FragmentGraph,
    fragments: NDArray[np.uint32],
    ids: NDArray[np.int64],
    sets: NDArray[np.int32],
    hierarchy: LabelHierarchy,
    sectionwise: bool = False,
) -> Annotated:
    """What labels say of a volume's fragments.

    Args:
        graph: of the volume.
        fragments: (X, Y, Z) ids.
        ids: (X, Y, Z) object ids, 0 none, -1 unknown.
        sets: (X, Y, Z) class sets; organelles lie in cells, so their ids say nothing of cells.
        hierarchy: of the labels.
        sectionwise: ids say nothing of what belongs together across sections.
    """
    cells = cells_only(np.where(ids > 0, ids, IGNORE_INDEX), sets, hierarchy)
    depth = cells.shape[2] if sectionwise else 0
    if depth:
        cells = np.where(cells > 0, cells * depth + np.arange(depth), IGNORE_INDEX)
    return Annotated(graph, contingency(cells, fragments), _parts(cells), depth)


def learn_objects(
    arms: Sequence[Arm], joining: JoinModel, hierarchy: LabelHierarchy, crumb: int
) -> LearnedObjects:
    """Choose where boundaries come from and how fragments join, judged on parts held back.

    Args:
        arms: the published network's first, simpler ones before others.
        joining: of the published weights.
        hierarchy: of the labels.
        crumb: cells below so many voxels join their best neighbour.
    """
    count = sum(len(v.part) for v in arms[0].volumes) if arms else 0
    if count < LEAST_OBJECTS:
        return LearnedObjects(
            objects=count, reason=f"{count} marked objects, {LEAST_OBJECTS} are needed to tell"
        )
    parts = np.arange(PARTS)
    before, after, better, number = 1.0, 1.0, 0.0, 0
    baseline, all_marks = np.ones(PARTS), np.zeros(len(CANDIDATES))
    for index, arm in enumerate(arms):
        errors, voxels = _errors(arm, joining, hierarchy, crumb)
        share = voxels[:PARTS] / max(voxels[:PARTS].sum(), 1.0)
        chosen = errors[:, PARTS : 2 * PARTS].argmin(0)  # for each part, without it
        held = errors[chosen, parts]
        if index == 0:
            baseline = errors[AS_IT_IS, :PARTS]
            before = float(share @ baseline)
        if index == 0 or float(share @ held) < after - WORTH:
            after, better = float(share @ held), float(share[held < baseline].sum())
            number, all_marks = index, errors[:, -1]
    used = after < before - LEAST_GAIN and better > 0.5
    reason = "" if used else f"the error would go from {before:.2f} to {after:.2f}"
    return LearnedObjects(
        number, CANDIDATES[int(all_marks.argmin())], before, after, count, used, reason,
        arms[number].name, tuple(all_marks.tolist()),
    )  # fmt: skip


def best_joining(
    learned: LearnedObjects, arm: Arm, joining: JoinModel, hierarchy: LabelHierarchy, crumb: int
) -> Joining:
    """How fragments join best in the arm that was learned and in another one alike.

    All marked objects are considered.
    """
    errors = _errors(arm, joining, hierarchy, crumb)[0][:, -1] + np.array(learned.errors)
    return CANDIDATES[int(np.argmin(errors))]


def _errors(
    arm: Arm, joining: JoinModel, hierarchy: LabelHierarchy, crumb: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(candidates, 2 * PARTS + 1) errors, the mean over volumes by voxels, and the voxels."""
    total = np.zeros((len(CANDIDATES), 2 * PARTS + 1))
    voxels = np.zeros(2 * PARTS + 1)
    for volume in arm.volumes:
        graph = volume.graph
        raw = {plain: Joining(plain=plain).on(joining).raw(graph) for plain in (False, True)}
        for number, candidate in enumerate(CANDIDATES):
            logits = candidate.on(joining).calibrated(raw[candidate.plain])
            each = volume.errors(joined_cells(graph, logits, hierarchy, crumb))
            total[number] += each[:, 0] * each[:, 1]
        voxels += each[:, 1]  # of the objects, whatever cells are
    return total / np.maximum(voxels, 1.0), voxels


def _error(
    joint: NDArray[np.float64],
    size: NDArray[np.float64],
    taken: NDArray[np.float64],
    keep: NDArray[np.bool_],
) -> tuple[float, float]:
    """Adapted Rand error over the voxels that `keep` says, and how many these are.

    Args:
        joint: (P,) voxels that an object and a cell share.
        size, taken: (P,) all voxels of that object, and all marked ones of that cell.
        keep: (P,) bool.
    """
    own = joint[keep]
    both = float((own * (own - 1.0)).sum())
    total = float((own * (size[keep] + taken[keep] - 2.0)).sum())
    return (1.0 - 2.0 * both / total if total else 0.0), float(own.sum())


def _parts(cells: NDArray[np.int64]) -> dict[int, int]:
    """The quarter of each object: halves along the two longer axes, by its middle."""
    ids, middle = middles(cells)
    if not len(ids):
        return {}
    axes = longer_axes(middle)
    halves = [middle[:, a] > np.median(middle[:, a]) for a in axes]
    part = halves[0].astype(int) + 2 * halves[1].astype(int)
    return {int(i): int(p) for i, p in zip(ids, part, strict=True)}


def middles(cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N,) objects and the (N, 3) middles of their voxels."""
    where = np.nonzero(cells > 0)
    ids, index = np.unique(cells[where], return_inverse=True)
    count = np.bincount(index.ravel())
    middle = np.stack([np.bincount(index.ravel(), axis) / count for axis in where], 1)
    return ids, middle


def longer_axes(middle: NDArray[np.float64]) -> NDArray[np.int64]:
    """The two axes along which objects lie farthest apart, the longest first."""
    return np.argsort(-np.ptp(middle, axis=0), kind="stable")[:2].astype(np.int64)
