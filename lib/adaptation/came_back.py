"""What came back from a viewer as it was shown, right beside what a person corrected.

Who runs the machine, corrects it and submits sends everything back, and only what was changed is
known: the machine's mistakes, and nothing of what it had right. Heads that learn from mistakes
alone turn the right answers round as well (mitochondria of the VNC: IoU 0.81 -> 0.15 on the other
sections after three were corrected). So what came back unchanged beside corrections, in the same
section, holds its class in place where the person was correcting: where no less of the class was
left as it was shown than was painted anew. Where the machine had found little of it, the person
was painting from nothing, perhaps only some of it, and what came back says nothing.

This holds for a study's own heads, which a gate judges, and never for truth.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.data.items import Labels
from lib.labels.hierarchy import LabelHierarchy

REACH = 32
"""Network voxels in plane around what a person decided: that they looked at."""


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
    kinds = _corrected(labels, shown, hierarchy)
    if not kinds:
        return labels
    every = functools.reduce(operator.or_, kinds)
    sets = labels.palette[labels.codes]
    for z, back in _looked_at(labels, shown, hierarchy):
        said = shown[..., z][back]
        others = hierarchy.unknown & ~(every & ~said)
        sets[..., z][back] = np.where(np.isin(said, kinds), said, others)
    palette, codes = np.unique(sets, return_inverse=True)
    assert len(palette) <= 256, "class sets, far fewer than a byte holds"
    return replace(
        labels, codes=codes.reshape(sets.shape).astype(np.uint8), palette=palette.astype(np.int32)
    )


class _Beside(NamedTuple):
    section: int
    back: NDArray[np.bool_]
    """(X, Y) unchanged, within reach of what was decided."""


def _looked_at(
    labels: Labels, shown: NDArray[np.int32], hierarchy: LabelHierarchy
) -> Iterator[_Beside]:
    known = labels.palette != hierarchy.unknown
    size = 2 * REACH + 1
    for z in range(shown.shape[2]):
        decided = known[labels.codes[..., z]]
        if decided.any():
            near = ndimage.maximum_filter(decided, size, mode="constant")
            yield _Beside(z, near & ~decided & (shown[..., z] != hierarchy.unknown))


def _corrected(labels: Labels, shown: NDArray[np.int32], hierarchy: LabelHierarchy) -> list[int]:
    """Classes and groups of which as much was left as shown, where a person looked, as painted."""
    most = hierarchy.num_classes // 2
    counts = np.bincount(labels.codes.ravel(), minlength=len(labels.palette))
    painted = {
        int(s): int(n)
        for s, n in zip(labels.palette, counts, strict=True)
        if n and int(s).bit_count() <= most
    }
    left = dict.fromkeys(painted, 0)
    for z, back in _looked_at(labels, shown, hierarchy):
        for kind, number in zip(*np.unique(shown[..., z][back], return_counts=True), strict=True):
            if int(kind) in left:
                left[int(kind)] += int(number)
    return [kind for kind, number in painted.items() if left[kind] >= number]
