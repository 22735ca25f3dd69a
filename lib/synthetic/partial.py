"""Take ground truth away again: what a study looks like while annotators work on it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.synthetic.generate import SyntheticVolume

Annotation = Literal["full", "boxes", "groups", "none"]
PARTIAL: tuple[Annotation, ...] = ("boxes", "groups", "none")


def class_sets_of(volume: SyntheticVolume, hierarchy: LabelHierarchy) -> NDArray[np.int32]:
    """Class sets of the whole ground truth; uncertain voxels are unknown.

    Returns:
        (X, Y, Z) int32 bit masks.
    """
    lut = np.array([*(1 << c for c in range(hierarchy.num_classes)), hierarchy.unknown], np.int32)
    return np.asarray(lut[volume.fine])  # index -1 is the last entry


def annotate(
    volume: SyntheticVolume, hierarchy: LabelHierarchy, kind: Annotation, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """Labels as if only part of the work were done.

    Args:
        volume: image and ground truth.
        hierarchy: the default hierarchy.
        kind: "full"; "boxes": a few boxes are done; "groups": every voxel's group and no
            objects; "none".
        seed: places the boxes.

    Returns:
        Class sets (X, Y, Z) int32 and instance ids (X, Y, Z) int64, or None for "none".
    """
    if kind == "none":
        return None
    class_sets = class_sets_of(volume, hierarchy)
    instance = volume.instance.copy()
    if kind == "groups":
        instance[:] = IGNORE_INDEX
        for group in hierarchy.group_sets:
            class_sets[(class_sets & ~group) == 0] = group
    if kind == "boxes":
        hidden = ~_boxes(volume.fine.shape, np.random.default_rng(seed))
        class_sets[hidden] = hierarchy.unknown
        instance[hidden] = IGNORE_INDEX
    return class_sets, instance


def _boxes(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """True in five boxes of a third of each side."""
    inside = np.zeros(shape, bool)
    for _ in range(5):
        size = [max(1, n // 3) for n in shape]
        low = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)]
        inside[tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))] = True
    return inside
