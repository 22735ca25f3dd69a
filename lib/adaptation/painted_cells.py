"""What marked cells say of organelles that were painted in the same section.

People paint cells, and the mitochondria in them, and nothing else: no voxel is ever painted as
"not a mitochondrion". Whoever paints a mitochondrion in a marked cell has looked for them there,
though, and would have painted the others. So in a section with an organelle in a marked cell the
rest of all marked cells counts as not of its kind. Where only some were painted, fewer are found
than with all of them, and more than without the rule (benchmarks/first-day.md). This holds for a
study's own heads, which a gate judges, and never for truth: scores and training know nothing of it.
"""

from __future__ import annotations

from itertools import product

import cc3d
import numpy as np
from numpy.typing import NDArray

from lib.data.items import Labels
from lib.labels.hierarchy import LabelHierarchy

LEAST_HELD = 0.5
"""Share of an organelle's rim that one cell has to have to hold it."""


def without_painted_kinds(labels: Labels, hierarchy: LabelHierarchy) -> Labels:
    """Labels in which marked cells are not what was painted in some of them in the same section.

    Args:
        labels: of an item, network frame: sections along the last axis.
        hierarchy: says which classes lie inside cells.

    Returns:
        labels; the same where no organelle lies in a marked cell.
    """
    sets = labels.class_sets
    cells = np.where((sets & ~hierarchy.inside_set) != 0, np.maximum(labels.ids, 0), 0)
    ruled_out = False
    for kind in hierarchy.members(hierarchy.inside_set):
        painted = sets == 1 << kind
        for z in np.flatnonzero(painted.any((0, 1))):
            if lies_in_a_cell(painted[..., z], cells[..., z]):
                sets[..., z][cells[..., z] > 0] &= ~np.int32(1 << kind)
                ruled_out = True
    return labels.with_class_sets(sets) if ruled_out else labels


def lies_in_a_cell(painted: NDArray[np.bool_], cells: NDArray[np.int32]) -> bool:
    """Whether one cell has most of some painted organelle's rim.

    Args:
        painted: (X, Y) the organelles.
        cells: (X, Y) cell numbers, 0 where none.
    """
    pieces = cc3d.connected_components(painted.astype(np.uint8), connectivity=4).astype(np.int64)
    inner, outer = [], []
    for axis, step in product((0, 1), (1, -1)):
        here, there = (np.moveaxis(a, axis, 0)[::step] for a in (pieces, cells))
        free = np.moveaxis(~painted, axis, 0)[::step]
        edge = (here[:-1] != 0) & free[1:]
        inner.append(here[:-1][edge])
        outer.append(there[1:][edge])
    piece, cell = np.concatenate(inner), np.concatenate(outer)
    rim = np.bincount(piece)
    pairs, counts = np.unique(np.stack([piece, cell]), axis=1, return_counts=True)
    held = counts >= LEAST_HELD * rim[pairs[0]]
    return bool(np.any(held & (pairs[1] != 0)))
