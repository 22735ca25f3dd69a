"""What came back from a viewer as it was shown, right beside what a person corrected.

Who runs the machine, corrects it and submits sends everything back, and only what was changed is
known: the machine's mistakes, and nothing of what it had right. Heads that learn from mistakes
alone turn the right answers round as well (mitochondria of the VNC: IoU 0.81 -> 0.15 on the other
sections after three were corrected). So what came back unchanged among corrections, in the same
section, holds its class in place where the person was correcting: where no less of the class was
left as it was shown, in that section, than was painted anew. Where the machine had found little of
it, the person was painting from nothing, perhaps only some of it, and what came back says nothing.

This holds for a study's own heads, which a gate judges, and never for truth.
"""

from __future__ import annotations

import functools
import operator

import numpy as np
from numpy.typing import NDArray

from lib.data.items import Labels
from lib.labels.hierarchy import LabelHierarchy

REACH = 32
"""Network voxels in plane around what a person decided that they looked at as well."""


def with_what_came_back(
    labels: Labels, shown: NDArray[np.int32], hierarchy: LabelHierarchy
) -> Labels:
    """Labels in which classes are held in place beside corrections.

    Args:
        labels: what people decided, network frame: sections along the last axis.
        shown: (X, Y, Z) class sets, what came back as the machine said it included.
        hierarchy: of the classes.

    Returns:
        labels; the same where nobody corrected anything.
    """
    sets = labels.class_sets
    decided = sets != hierarchy.unknown
    held = False
    for z in np.flatnonzero(decided.any((0, 1))):
        back = looked_at(decided[..., z]) & ~decided[..., z] & (shown[..., z] != hierarchy.unknown)
        said = shown[..., z][back]
        kinds = _corrected(sets[..., z][decided[..., z]], said, hierarchy)
        if kinds:
            every = functools.reduce(operator.or_, kinds)
            others = hierarchy.unknown & ~(every & ~said)
            sets[..., z][back] = np.where(np.isin(said, kinds), said, others)
            held = True
    return labels.with_class_sets(sets) if held else labels


def looked_at(decided: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(X, Y) of a section: what lies between the voxels that a person decided, and around them.

    All of it, and not what is close to some decision alone: of what the machine had right there
    would be too little, and its mistakes would count too much.
    """
    found = np.zeros_like(decided)
    x, y = (np.flatnonzero(decided.any(axis)) for axis in (1, 0))
    low, high = (max(int(line[0]) - REACH, 0) for line in (x, y)), (x[-1], y[-1])
    found[tuple(slice(a, int(b) + REACH + 1) for a, b in zip(low, high, strict=True))] = True
    return found


def _corrected(
    painted: NDArray[np.int32], left: NDArray[np.int32], hierarchy: LabelHierarchy
) -> list[int]:
    """Classes and groups of which as many voxels of a section were left as shown as painted."""
    most = hierarchy.num_classes // 2
    kinds, counts = np.unique(painted, return_counts=True)
    return [
        int(kind)
        for kind, count in zip(kinds, counts, strict=True)
        if int(kind).bit_count() <= most and np.count_nonzero(left == kind) >= count
    ]
