"""From the fragment graph to cells: which fragments belong together, all contacts considered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.multicut import GreedyAdditiveMulticut, MulticutObjective
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.classes import FINE_VALUE
from lib.prediction.graph import FragmentGraph

SLIDER = 3.0
"""Log odds that `split_merge` of 1 adds to every contact, and -1 takes away."""
ROUNDS = 8
TOGETHER = 2**21
"""Contacts that the solver is given at once, where they can be parted."""


def agglomerate(
    graph: FragmentGraph, logits: NDArray[np.float64], split_merge: float = 0.0
) -> NDArray[np.int64]:
    """The cell of each fragment.

    A multicut: what a contact says for or against weighs by the square root of its pairs.
    Fragments join greedily, the surest first, while the sum over all contacts of two clusters
    speaks for it.

    Args:
        graph: of the volume.
        logits: (E,) log odds that the fragments of each contact belong together.
        split_merge: -1 splits more, 1 merges more.

    Returns:
        (N + 1,) int64 cells from 1 on without gaps, 0 at index 0.

    Source: Keuper et al. 2015 (greedy additive edge contraction).
    """
    costs = (logits + SLIDER * split_merge) * np.sqrt(graph.contact)
    cells = np.arange(graph.count + 1, dtype=np.int64)
    for edges in _apart(graph, costs > 0):
        ends = graph.edges[edges]
        used = np.zeros(len(cells), np.bool_)
        used[ends] = True
        nodes, number = np.flatnonzero(used), np.cumsum(used) - 1
        solver = UndirectedGraph.from_unique_edges(len(nodes), number[ends].astype(np.uint64))
        objective = MulticutObjective(solver, costs[edges])
        del solver, ends  # the objective has its own
        found = np.asarray(GreedyAdditiveMulticut().optimize(objective)).astype(np.int64)
        # a cell is called by one of its fragments until all are known
        _, first = np.unique(found, return_index=True)
        cells[nodes] = nodes[first][np.searchsorted(found[first], found)]
    return compact(cells)


def _apart(graph: FragmentGraph, together: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Contacts that can be decided without the others, some at a time.

    Between parts of a graph that no contact would join the sum of the contacts speaks against
    it, whatever is joined in them; these contacts are left out.

    Args:
        graph: of the volume.
        together: (E,) bool, contacts that speak for a join.
    """
    one, other = graph.edges[together].T
    size = graph.count + 1
    links = coo_array((np.ones(len(one), np.bool_), (one, other)), (size, size))
    _, part = connected_components(links, directed=False)
    within = np.flatnonzero(part[graph.edges[:, 0]] == part[graph.edges[:, 1]])
    of = part[graph.edges[within, 0]]
    order = np.argsort(of, kind="stable")
    ends = np.cumsum(np.bincount(of))
    cuts = ends[np.searchsorted(ends, np.arange(TOGETHER, len(of), TOGETHER))]
    for piece in np.split(order, np.unique(cuts)):
        if len(piece):
            yield within[np.sort(piece)]


def absorb(
    graph: FragmentGraph,
    logits: NDArray[np.float64],
    cells: NDArray[np.int64],
    small: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Give cells that cannot stand alone to the neighbour that most speaks for them.

    What touches no other cell stays as it is, and so does a cell whose neighbour is smaller.

    Args:
        graph: of the volume.
        logits: (E,) log odds.
        cells: (N + 1,) cell of each fragment, without gaps.
        small: (M + 1,) bool, the cells to give away.

    Returns:
        (N + 1,) int64 cells without gaps.
    """
    small = small.copy()
    small[0] = False
    for _ in range(ROUNDS):
        pairs = cells[graph.edges]
        between = pairs[:, 0] != pairs[:, 1]
        use = between & (small[pairs[:, 0]] | small[pairs[:, 1]])
        if not use.any():
            break
        one = np.concatenate([pairs[use, 0], pairs[use, 1]])
        other = np.concatenate([pairs[use, 1], pairs[use, 0]])
        count = len(small)
        keys, index = np.unique(one * count + other, return_inverse=True)
        weight = np.tile(graph.contact[use], 2)
        mean = np.bincount(index, np.tile(logits[use], 2) * weight) / np.bincount(index, weight)
        one, other = np.divmod(keys, count)
        giving = small[one]
        one, other, mean = one[giving], other[giving], mean[giving]
        target = np.arange(count)
        order = np.lexsort((other, mean))  # the last entry of a cell wins: its best neighbour
        target[one[order]] = other[order]
        # two small cells may choose each other: only steps up in (size, id) are taken
        sizes = np.bincount(cells, graph.sizes, count)
        height = np.empty(count, np.int64)
        height[np.lexsort((np.arange(count), sizes))] = np.arange(count)
        target = np.where(height[target] > height, target, np.arange(count))
        if (target == np.arange(count)).all():
            break
        while (target[target] != target).any():
            target = target[target]
        still = small & (target == np.arange(count))
        kept, cells = np.unique(target[cells], return_inverse=True)
        cells = cells.ravel()
        small = still[kept]
    return cells.astype(np.int64)


def cannot_stand_alone(
    graph: FragmentGraph, cells: NDArray[np.int64], hierarchy: LabelHierarchy, crumb: int
) -> NDArray[np.bool_]:
    """(M + 1,) cells below `crumb` voxels, and those that are mostly organelle.

    An organelle lies in a cell, so what is an organelle through and through is a part of the
    cell that was cut off at its membrane.
    """
    votes = cell_votes(graph, cells)
    inside = np.zeros(votes.shape[1], np.bool_)
    inside[[c + FINE_VALUE for c in organelle_classes(hierarchy)]] = True
    sizes = votes.sum(1)
    return np.asarray((sizes < crumb) | (2 * votes[:, inside].sum(1) > sizes))


def cell_votes(graph: FragmentGraph, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M + 1, C) voxels of each cell by class value."""
    votes = np.zeros((int(cells.max(initial=0)) + 1, graph.votes.shape[1]), np.int64)
    np.add.at(votes, cells, graph.votes)
    return votes


def organelle_classes(hierarchy: LabelHierarchy) -> tuple[int, ...]:
    """Fine classes that lie in cells."""
    return tuple(i for i, c in enumerate(hierarchy.classes) if c.inside)


def compact(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """(N + 1,) the same partition, numbered from 1 by first fragment; 0 for index 0."""
    _, first, index = np.unique(labels[1:], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    return np.concatenate([np.zeros(1, np.int64), rank[index.ravel()]])
