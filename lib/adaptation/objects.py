"""Objects learn at once: how fragments join is fitted to the objects that were marked.

Where boundaries are can be asked of the published network, of the study's heads, or of a boundary
head of the study's own; each gives a volume's fragments and their contacts. The contacts' log
odds get an offset. Quarters of the marked objects are held back in turn, and what is chosen
without a quarter is judged on it; it is used where it lowers the adapted Rand error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.adaptation.annotated import PARTS, Annotated
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.joining import JoinModel
from lib.prediction.learned import Joining
from lib.prediction.objects import joined_cells

LEAST_OBJECTS = 8
"""Objects that can tell one way of joining from another."""
LEAST_GAIN = 0.03
"""Adapted Rand error that a way of joining must save on what was held back."""
BY_CHANCE = 0.8
"""Share of the error of marks moved elsewhere below which that of the marks must be: where an image
says nothing, cells of the right size alone are better than one cell."""
POOR = 0.2
"""Adapted Rand error of the published network from which on a study's own boundary head may take
its place. Marks in a few boxes see little of a merge that goes on through a volume: where the
network was right already, heads that were better within the boxes merged neurites outside. And
where marks are corrections of its objects, from which on anything may be changed: four objects
drawn anew in a section chose an offset by which all others fell apart (0.03 to 0.12)."""
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
class Arm:
    """One way to find boundaries.

    Args:
        name: for people; "" for the published network's.
        volumes: those with marked objects, by it.
        learned: whether its boundaries are a head's that was fitted to the marks.
    """

    name: str
    volumes: Sequence[Annotated]
    learned: bool = False


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


def learn_objects(
    arms: Sequence[Arm],
    joining: JoinModel,
    hierarchy: LabelHierarchy,
    crumb: int,
    corrections: bool = False,
) -> LearnedObjects:
    """Choose where boundaries come from and how fragments join, judged on parts held back.

    Args:
        arms: the published network's first, simpler ones before others.
        joining: of the published weights.
        hierarchy: of the labels.
        crumb: cells below so many voxels join their best neighbour.
        corrections: people corrected the machine's objects, and left others as they were.
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
        if arm.learned and before < POOR:
            continue
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
    how = CANDIDATES[int(all_marks.argmin())]
    chance = _chance(arms[number], how, joining, hierarchy, crumb)
    used = after < before - LEAST_GAIN and better > 0.5
    reason = "" if used else f"the error would go from {before:.2f} to {after:.2f}"
    if used and corrections and before < POOR:
        used, reason = False, f"the error beside what was corrected is {before:.2f}"
    if used and after > BY_CHANCE * chance:
        used, reason = (
            False,
            f"they would fit the marks ({after:.2f}) as they fit any ({chance:.2f})",
        )
    return LearnedObjects(
        number, how, before, after, count, used, reason, arms[number].name,
        tuple(all_marks.tolist()),
    )  # fmt: skip


def _chance(
    arm: Arm, how: Joining, joining: JoinModel, hierarchy: LabelHierarchy, crumb: int
) -> float:
    """The error of marks that were moved elsewhere, the mean over volumes by objects."""
    total = 0.0
    for volume in arm.volumes:
        logits = how.on(joining).logits(volume.graph)
        cells = joined_cells(volume.graph, logits, hierarchy, crumb)
        total += len(volume.part) * volume.chance(cells)
    return total / max(sum(len(v.part) for v in arm.volumes), 1)


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
