"""Speckle: how much of a class map is off the class that most of each true object has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.metrics.object_scores import contingency


@dataclass(frozen=True)
class Speckle:
    """Counts, which add up over items.

    Args:
        off: voxels of true objects that are of another class than most of their object.
        voxels: of true objects, those of organelles left out.
    """

    off: int = 0
    voxels: int = 0

    def __add__(self, other: Speckle) -> Speckle:
        return Speckle(self.off + other.off, self.voxels + other.voxels)

    @property
    def share(self) -> float:
        """Of voxels off the majority; NaN without any."""
        return self.off / self.voxels if self.voxels else float("nan")


def speckle_of(
    instances: NDArray[np.int64], predicted: NDArray[np.int16], hierarchy: LabelHierarchy
) -> Speckle:
    """The speckle of a predicted class map.

    Args:
        instances: true ids, > 0 an object.
        predicted: fine classes, of the same shape. Voxels predicted as a class that lies
            inside others (a mitochondrion of the object) are left out.
        hierarchy: of the classes.
    """
    inside = np.array([c.inside for c in hierarchy.classes])
    counted = (instances > 0) & ~inside[predicted]
    # classes from 1: label 0 of a table is background
    table = contingency(instances[counted], predicted[counted].astype(np.int64) + 1)
    ids, index = np.unique(table.truth, return_inverse=True)
    most = np.zeros(len(ids), np.int64)
    np.maximum.at(most, index, table.counts)
    voxels = int(counted.sum())
    return Speckle(voxels - int(most.sum()), voxels)
