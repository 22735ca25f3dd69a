"""A volume's fragments under marked objects: how well cells fit the marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.labels.class_sets import cells_only
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.metrics.object_scores import Contingency, contingency
from lib.prediction.graph import FragmentGraph

PARTS = 4
"""Quarters of the marked objects that are held back in turn."""
SHIFT = 0.382
"""Share of the box by which marks are moved to see what they would say of any image."""


@dataclass(frozen=True)
class Annotated:
    """One volume with objects that people marked.

    Args:
        graph: of its fragments.
        table: voxels that each marked object and each fragment share.
        part: object -> the quarter it lies in.
        elsewhere: `table` of the marks moved to other places.
        depth: sections, where an object is one section's piece of a cell (number % depth is
            its section); 0 where objects are whole.
    """

    graph: FragmentGraph
    table: Contingency
    part: Mapping[int, int]
    elsewhere: Sequence[Contingency] = ()
    depth: int = 0

    def errors(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """(2 * PARTS + 1, 2): adapted Rand error and voxels of some of the objects.

        Of each part's, of all but each part's, of all. An object counts as merged with others
        of whatever part.

        Args:
            cells: (N + 1,) the cell of each fragment.
        """
        shared = _shared(self.table, cells, self.depth)
        parts = np.array([self.part[int(o)] for o in shared.objects], np.int64)
        choices = [parts == p for p in range(PARTS)]
        choices += [~c for c in choices] + [np.ones(len(parts), np.bool_)]
        return np.array([shared.error(c) for c in choices])

    def chance(self, cells: NDArray[np.int64]) -> float:
        """Adapted Rand error of the marks moved elsewhere: what cells of this size are worth.

        Args:
            cells: (N + 1,) the cell of each fragment.
        """
        found = [_shared(table, cells, self.depth) for table in self.elsewhere]
        return float(np.mean([s.error(np.ones(len(s.objects), np.bool_))[0] for s in found]))


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
    elsewhere = [contingency(moved, fragments) for moved in _moved(cells, max(depth, 1))]
    return Annotated(graph, contingency(cells, fragments), _parts(cells), elsewhere, depth)


def _moved(cells: NDArray[np.int64], depth: int) -> Iterator[NDArray[np.int64]]:
    """The marks moved around within their sections; what comes in again gets numbers of its own."""
    for axes in ((0,), (1,), (0, 1)):
        moved = cells
        for axis in axes:
            by = round(SHIFT * cells.shape[axis]) | 1
            moved = np.roll(moved, by, axis)
            around = np.moveaxis(moved, axis, 0)[:by]  # a view
            around[around > 0] += (int(moved.max(initial=0)) // depth + 1) * depth
        yield moved


@dataclass(frozen=True)
class _Shared:
    """Voxels that objects and cells share, pair by pair.

    Args:
        objects: (P,) number of the object.
        joint: (P,) voxels that an object and a cell share.
        size, taken: (P,) all voxels of that object, and all marked ones of that cell.
    """

    objects: NDArray[np.int64]
    joint: NDArray[np.float64]
    size: NDArray[np.float64]
    taken: NDArray[np.float64]

    def error(self, keep: NDArray[np.bool_]) -> tuple[float, float]:
        """Adapted Rand error over pairs that (P,) `keep` says, and how many voxels these are."""
        own = self.joint[keep]
        both = float((own * (own - 1.0)).sum())
        total = float((own * (self.size[keep] + self.taken[keep] - 2.0)).sum())
        return (1.0 - 2.0 * both / total if total else 0.0), float(own.sum())


def _shared(table: Contingency, cells: NDArray[np.int64], depth: int) -> _Shared:
    """What the marks of a table share with cells; see `Annotated`."""
    truth, guess = table.truth, cells[table.guess]
    if depth:  # what joins across sections is not known
        guess = guess * depth + truth % depth
    own, found = (np.unique(ids, return_inverse=True) for ids in (truth, guess))
    keys, index = np.unique(own[1] * len(found[0]) + found[1], return_inverse=True)
    joint = np.bincount(index, table.counts.astype(np.float64)).astype(np.float64)
    object_of, cell_of = np.divmod(keys, max(len(found[0]), 1))
    size, taken = (np.bincount(of, joint).astype(np.float64)[of] for of in (object_of, cell_of))
    return _Shared(own[0][object_of], joint, size, taken)


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
