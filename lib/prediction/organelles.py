"""The second level of objects: organelles, and the cell that each lies in.

Cells are found by grouping fragments; an organelle is a connected piece of one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.agglomeration import organelle_classes
from lib.prediction.classes import FINE_VALUE


@dataclass(frozen=True)
class Organelles:
    """Organelles and their cells.

    Args:
        ids: (X, Y, Z) uint32 organelles 1..M, 0 none.
        classes: (M + 1,) uint8 fine class + 1 of each; 0 at index 0.
        cells: (M + 1,) int64 the cell that holds most of each, 0 none.
        shares: (M + 1,) float64 of its voxels, those in that cell; 0 at index 0.
        sizes: (M + 1,) int64 voxels; 0 at index 0.
    """

    ids: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    cells: NDArray[np.int64]
    shares: NDArray[np.float64]
    sizes: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many organelles there are."""
        return len(self.sizes) - 1


def find_organelles(
    classes: NDArray[np.uint8],
    cells: NDArray[np.uint32],
    hierarchy: LabelHierarchy,
    least_voxels: int,
) -> Organelles:
    """The organelles of a class map.

    Args:
        classes: (X, Y, Z) uint8 fine class + 1.
        cells: (X, Y, Z) ids of cells, 0 none.
        hierarchy: says which classes lie in cells.
        least_voxels: smaller pieces are left out.
    """
    pieces, inner = organelle_pieces(classes, hierarchy)
    sizes = np.bincount(pieces.ravel())
    kept = sizes >= max(least_voxels, 1)
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    ids = numbers[pieces]
    count = int(kept.sum())
    inside = ids > 0
    own = ids[inside].astype(np.int64)
    class_of = np.zeros(count + 1, np.uint8)
    class_of[own] = inner[inside]
    keys, voxels = np.unique(
        own * (int(cells.max(initial=0)) + 1) + cells[inside], return_counts=True
    )
    order = np.lexsort((-keys, voxels))  # the largest share of each is written last
    organelle, cell = np.divmod(keys[order], int(cells.max(initial=0)) + 1)
    cell_of = np.zeros(count + 1, np.int64)
    cell_of[organelle] = cell
    held = np.zeros(count + 1, np.int64)
    held[organelle] = voxels[order]
    own_sizes = np.bincount(own, minlength=count + 1)
    return Organelles(ids, class_of, cell_of, held / np.maximum(own_sizes, 1), own_sizes)


def organelle_pieces(
    classes: NDArray[np.uint8], hierarchy: LabelHierarchy
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Connected pieces of the organelles' classes, however small.

    Args:
        classes: (X, Y, Z) uint8 fine class + 1.
        hierarchy: says which classes lie in cells.

    Returns:
        (X, Y, Z) pieces from 1 on, 0 none; and the class + 1 there, 0 none.
    """
    table = np.zeros(256, np.uint8)
    for c in organelle_classes(hierarchy):
        table[c + FINE_VALUE] = c + FINE_VALUE
    inner = table[classes]
    pieces: NDArray[Any] = cc3d.connected_components(np.asarray(inner), connectivity=6)
    return pieces, inner
