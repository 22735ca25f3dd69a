"""The class map at the level of objects: each cell has one class; organelles lie inside it, and
sheaths, too thin to be grouped well, stay as they were seen."""

from __future__ import annotations

from collections.abc import Collection

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.affinities import sheath_classes
from lib.prediction.agglomeration import organelle_classes
from lib.prediction.classes import FINE_VALUE, GROUP_VALUE
from lib.prediction.organelles import find_organelles

MOSTLY = 0.5
"""Of an organelle's voxels, the least share that lies in one cell; what spreads over more cells
is none. Half a cell and half no cell is none, either."""

CLEAR = 0.9
"""Of a cell's votes for one group, the least share that one class has which is told. Where labels
never told an axon from a dendrite, networks answer now one, now the other."""

SLAB_VOXELS = 2**24
"""Voxels whose votes are counted at once."""


def classes_of_objects(
    fine: NDArray[np.uint8],
    cells: NDArray[np.uint32],
    hierarchy: LabelHierarchy,
    inference: InferenceSettings,
    learned: Collection[str] | None = None,
) -> NDArray[np.uint8]:
    """Give every cell one class: what most of its voxels are, organelles and sheaths left out.

    A cell has its group instead of a class where the class is in doubt among its voxels
    (`CLEAR`, `fallback_fine`, `fallback_coarse`) or was never learned. Organelles too small to
    stand (`min_object_voxels`), or spread over several cells, are the cell around them. Sheaths,
    and what lies in no cell, keep their class.

    Args:
        fine: (X, Y, Z) uint8, fine class + 1.
        cells: (X, Y, Z) ids of cells, 0 none.
        hierarchy: of the classes.
        inference: thresholds.
        learned: names of the classes whose answers mean something; others are told by their
            group. None: all.

    Returns:
        (X, Y, Z) uint8: fine class + 1, or group + 101.
    """
    cells, _ = fastremap.renumber(cells)  # edited maps have ids of any height
    organelles = find_organelles(fine, cells, hierarchy, inference.min_object_voxels)
    stands = (organelles.cells > 0) & (organelles.shares >= MOSTLY)
    votes = cell_votes(fine, cells, hierarchy)
    of_cell = values_of_cells(votes, hierarchy, inference, learned)
    return told_by_cells(fine, of_cell[cells], stands[organelles.ids], hierarchy, learned)


def told_by_cells(
    fine: NDArray[np.uint8],
    of_cell: NDArray[np.uint8],
    organelles: NDArray[np.bool_],
    hierarchy: LabelHierarchy,
    learned: Collection[str] | None,
) -> NDArray[np.uint8]:
    """The class map, from what each voxel's cell is called.

    Args:
        fine: (X, Y, Z) uint8, fine class + 1.
        of_cell: (X, Y, Z) uint8, value of the cell that each voxel lies in, 0 in none.
        organelles: (X, Y, Z) whether an organelle that stands lies there.
        hierarchy, learned: see `classes_of_objects`.

    Returns:
        (X, Y, Z) uint8: fine class + 1, or group + 101.
    """
    kept = organelles | _is_of(sheath_classes(hierarchy))[fine]
    own = _told_by_group(hierarchy, learned)
    values: NDArray[np.uint8] = np.where((of_cell > 0) & ~kept, of_cell, own[fine])
    return values


def name_cells(
    values: NDArray[np.uint8],
    cells: NDArray[np.uint32],
    points: NDArray[np.int64],
    fine: NDArray[np.uint8],
    hierarchy: LabelHierarchy,
) -> None:
    """Give cells the class that points on them name, in place; what lies in them stays.

    Nothing is done where points on one cell name several classes, and by points that name an
    organelle or a sheath.

    Args:
        values: (X, Y, Z) of `classes_of_objects`.
        cells: (X, Y, Z) ids, 0 none.
        points: (P, 3) voxels.
        fine: (P,) fine class + 1 that each names.
    """
    aside = _is_of([*organelle_classes(hierarchy), *sheath_classes(hierarchy)])
    for k, (_, members) in enumerate(hierarchy.groups):
        aside[k + GROUP_VALUE] = aside[[c + FINE_VALUE for c in members]].all()
    at = cells[tuple(points.T)]
    for cell in np.unique(at[at > 0]):
        told = np.unique(fine[at == cell])
        told = told[~aside[told]]
        if len(told) == 1:
            values[(cells == cell) & ~aside[values]] = told[0]


def cell_votes(
    fine: NDArray[np.uint8], cells: NDArray[np.uint32], hierarchy: LabelHierarchy
) -> NDArray[np.int64]:
    """(N + 1, C) voxels of each cell by fine class; sums over parts are those of the whole.

    Args:
        fine: (X, Y, Z) uint8, fine class + 1.
        cells: (X, Y, Z) ids 1..N, 0 none.
        hierarchy: of the classes.
    """
    width = hierarchy.num_classes + FINE_VALUE
    count = int(cells.max(initial=0)) + 1
    votes = np.zeros(count * width, np.int64)
    depth = max(1, SLAB_VOXELS // max(1, cells[..., 0].size))
    for z in range(0, cells.shape[2], depth):
        keys = cells[..., z : z + depth].astype(np.int64) * width + fine[..., z : z + depth]
        votes += np.bincount(keys.ravel(), minlength=count * width)
    return votes.reshape(count, width)[:, FINE_VALUE:]


def values_of_cells(
    votes: NDArray[np.int64],
    hierarchy: LabelHierarchy,
    inference: InferenceSettings,
    learned: Collection[str] | None,
) -> NDArray[np.uint8]:
    """(N + 1,) uint8, what each cell is called; 0 at index 0.

    Args:
        votes: of `cell_votes`.
        hierarchy, inference, learned: see `classes_of_objects`.
    """
    without = votes.copy()
    without[:, [*organelle_classes(hierarchy), *sheath_classes(hierarchy)]] = 0
    votes = np.where(without.any(1)[:, None], without, votes)
    shares = votes / np.maximum(votes.sum(1), 1)[:, None]
    best = shares.argmax(1)
    values: NDArray[np.uint8] = (best + FINE_VALUE).astype(np.uint8)
    if not hierarchy.num_groups:
        values[0] = 0
        return values
    groups = shares @ hierarchy.coarse_lut
    group = groups.argmax(1)
    vague = (shares.max(1) < inference.fallback_fine) & (groups.max(1) >= inference.fallback_coarse)
    named = np.array([learned is None or c.name in learned for c in hierarchy.classes])
    grouped = hierarchy.coarse_lut.any(1)
    of_group = groups[np.arange(len(best)), hierarchy.coarse_lut.argmax(1)[best]]
    mixed = grouped[best] & (shares.max(1) < CLEAR * of_group)
    by_group = vague | mixed | (~named[best] & grouped[best])
    values[by_group] = group[by_group] + GROUP_VALUE
    values[0] = 0
    return values


def _is_of(classes: Collection[int]) -> NDArray[np.bool_]:
    """(256,) whether a value is one of some fine classes."""
    table = np.zeros(256, np.bool_)
    table[[c + FINE_VALUE for c in classes]] = True
    return table


def _told_by_group(hierarchy: LabelHierarchy, learned: Collection[str] | None) -> NDArray[np.uint8]:
    """(256,) what a voxel outside cells is called, by its fine value."""
    table = np.arange(256, dtype=np.uint8)
    for i, fine in enumerate(hierarchy.classes):
        if learned is not None and fine.name not in learned and hierarchy.coarse_lut[i].any():
            table[i + FINE_VALUE] = int(hierarchy.coarse_lut[i].argmax()) + GROUP_VALUE
    return table
