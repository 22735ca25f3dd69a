"""The fragment graph: all fragments of a volume, their contacts, and what is known of each.

It is what agglomeration, clicks, the proofreading queue and blockwise runs read. Statistics of
blocks add up exactly, so the graph of a volume does not depend on how contacts were counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from bioimage_cpp.graph import UndirectedGraph, distributed
from numpy.typing import NDArray

from lib.prediction.scratch import Scratch, forget
from lib.targets.pairs import NEAREST, Offset
from lib.volumes.boxes import Box, box_shape

REACHES = ("in plane", "across sections", "near", "far")
"""Kinds of pairs, in the order of `FragmentGraph.stats`: next neighbours in plane and across
sections, partners a few voxels away, partners beyond."""
NEAR = 4.5
"""Partners up to so many of the finest voxels away are "near"."""
COUNT, MEAN, SQUARES, LEAST, MOST = range(5)
"""Columns of `FragmentGraph.stats`; SQUARES is the sum of squared deviations from the mean."""
ROWS = 2**14
"""Contacts whose statistics are looked at together: those of a large volume stay on the disk."""


@dataclass(frozen=True)
class FragmentGraph:
    """Fragments and their contacts.

    Args:
        edges: (E, 2) int64 fragments that touch, the smaller id first, in ascending order.
        stats: (E, 4, 5) float64 statistics of the affinities (0 apart .. 1 together) of the
            pairs that cross a contact, by reach.
        votes: (N + 1, C) int64 voxels of each fragment by class value; row 0 is what is in no
            fragment.
        scratch: where statistics lie, while it is open; None: in memory.
    """

    edges: NDArray[np.int64]
    stats: NDArray[np.float64]
    votes: NDArray[np.int64]
    scratch: Scratch | None = None

    @property
    def count(self) -> int:
        """How many fragments there are."""
        return len(self.votes) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N + 1,) voxels of each fragment."""
        found: NDArray[np.int64] = self.votes.sum(1)
        return found

    @cached_property
    def contact(self) -> NDArray[np.float64]:
        """(E,) pairs of next neighbours across each contact, at least 1."""
        found = np.ones(len(self.stats))
        for rows in portions(len(found)):
            np.maximum(self.stats[rows, :2, COUNT].sum(1), 1.0, out=found[rows])
            forget(self.stats)
        return found

    @cached_property
    def touched(self) -> NDArray[np.float64]:
        """(N + 1,) pairs of next neighbours across all contacts of each fragment."""
        ends = [np.bincount(end, self.contact, self.count + 1) for end in self.edges.T]
        found: NDArray[np.float64] = np.asarray(ends, np.float64).sum(0)
        return found

    def mean_affinity(self) -> NDArray[np.float64]:
        """(E,) mean affinity of the next neighbours across each contact."""
        next_to = self.stats[:, :2]
        total: NDArray[np.float64] = (next_to[..., COUNT] * next_to[..., MEAN]).sum(1)
        return total / self.contact

    def contracted(
        self, cells: NDArray[np.int64]
    ) -> tuple[FragmentGraph, NDArray[np.bool_], NDArray[np.int64]]:
        """The graph of clusters of fragments: contacts and votes of their fragments, pooled.

        Args:
            cells: (N + 1,) the cluster of each fragment, 1..M without gaps, 0 at index 0.

        Returns:
            The graph; (E,) bool, the contacts that lie between two clusters; and, for each of
            these, the contact of the new graph that it is a part of.
        """
        count = int(cells.max(initial=0)) + 1
        one, other = cells[self.edges[:, 0]], cells[self.edges[:, 1]]
        between = one != other
        keys = (np.minimum(one, other) * count + np.maximum(one, other))[between]
        del one, other
        keys, index = np.unique(keys, return_inverse=True)
        votes = np.zeros((count, self.votes.shape[1]), np.int64)
        np.add.at(votes, cells, self.votes)
        edges = np.stack(np.divmod(keys, count), 1).astype(np.int64)
        target = np.full(len(self.edges), -1, np.int64)
        target[between] = index.ravel()
        stats = room(self.scratch, (len(keys), *self.stats.shape[1:]))
        pooled(self.stats, target, stats)
        return FragmentGraph(edges, stats, votes, self.scratch), between, index.ravel()


@dataclass(frozen=True)
class BlockContacts:
    """What one block adds to the graph.

    Args:
        edges: (E, 2) uint64 fragments that touch in it.
        stats: for each reach, ((P, 2) uint64 pairs, (P, 5) float64 statistics).
    """

    edges: NDArray[np.uint64]
    stats: tuple[tuple[NDArray[np.uint64], NDArray[np.float64]], ...]


def contacts_of_block(
    fragments: NDArray[np.uint32],
    affinities: NDArray[np.float16],
    offsets: Sequence[Offset],
    voxel_size_nm: Sequence[float],
    own: Box,
) -> BlockContacts:
    """Count the contacts of one block.

    Args:
        fragments: (X, Y, Z) ids of the whole volume, of the block and, beyond its upper faces,
            of as many voxels as the longest offset.
        affinities: (A, X, Y, Z) in [-1, 1] of the same voxels.
        offsets: A offsets.
        voxel_size_nm: (x, y, z).
        own: the block's own box within these arrays; pairs that start in it are its own.
    """
    begin, size = [a for a, _ in own], list(box_shape(own))
    found = []
    for reach in range(len(REACHES)):
        channels = [i for i, o in enumerate(offsets) if reach_of(o, voxel_size_nm) == reach]
        if channels:
            together = (affinities[channels].astype(np.float64) + 1.0) / 2.0
            pairs = [offsets[i] for i in channels]
            found.append(distributed.block_affinity_stats(fragments, together, pairs, begin, size))
        else:
            found.append((np.zeros((0, 2), np.uint64), np.zeros((0, 5))))
    edges = distributed.block_region_adjacency_edges(fragments, begin, size)
    return BlockContacts(edges, tuple(found))


def merge_contacts(
    blocks: Iterable[BlockContacts], votes: NDArray[np.int64], scratch: Scratch | None = None
) -> FragmentGraph:
    """The graph of a volume from the contacts of all its blocks.

    Args:
        blocks: in any order; they are gone through twice.
        votes: (N + 1, C) voxels of each fragment by class value.
        scratch: where the statistics lie, while it is open; None: in memory.
    """
    edges = distributed.merge_edges([block.edges for block in blocks])
    edges = edges[edges[:, 0] > 0]  # 0 is no fragment
    graph = UndirectedGraph.from_unique_edges(len(votes), edges)
    stats = room(scratch, (len(REACHES), len(edges), 5))
    for block in blocks:
        for reach, total in enumerate(stats):
            distributed.merge_block_edge_stats(graph, total, *block.stats[reach])
        forget(stats)
    return FragmentGraph(edges.astype(np.int64), stats.transpose(1, 0, 2), votes, scratch)


def room(scratch: Scratch | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Zeros for statistics."""
    return np.zeros(shape) if scratch is None else scratch.array(shape, np.float64)


def portions(count: int) -> Iterator[slice]:
    """Rows 0..count, some at a time."""
    return (slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS))


def pooled(stats: NDArray[np.float64], index: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    """Statistics of contacts, of all that belong together in one.

    Args:
        stats: (E, R, 5) of `FragmentGraph.stats`.
        index: (E,) the row of `out` that each belongs to; -1: none.
        out: (M, R, 5) zeros; they stay where there are no pairs.

    Source: Chan et al. 1979 (squared deviations of pooled samples).
    """
    out[..., LEAST] = np.inf  # the largest begins at 0: affinities lie in 0..1
    for rows, at in _of_index(stats, index):
        some = rows[..., COUNT] > 0
        np.add.at(out[..., COUNT], at, rows[..., COUNT])
        np.add.at(out[..., MEAN], at, rows[..., COUNT] * rows[..., MEAN])
        np.minimum.at(out[..., LEAST], at, np.where(some, rows[..., LEAST], np.inf))
        np.maximum.at(out[..., MOST], at, np.where(some, rows[..., MOST], 0.0))
        forget(out)
    for part in portions(len(out)):
        found = out[part]
        found[..., MEAN] /= np.maximum(found[..., COUNT], 1.0)
        found[found[..., COUNT] == 0] = 0.0
        forget(out)
    for rows, at in _of_index(stats, index):
        moved = rows[..., COUNT] * (rows[..., MEAN] - out[at][..., MEAN]) ** 2
        np.add.at(out[..., SQUARES], at, rows[..., SQUARES] + moved)
        forget(out)


def _of_index(
    stats: NDArray[np.float64], index: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """The statistics that belong somewhere, and where, some at a time."""
    for rows in portions(len(index)):
        use = index[rows] >= 0
        yield stats[rows][use], index[rows][use]
        forget(stats)


def reach_of(offset: Offset, voxel_size_nm: Sequence[float]) -> int:
    """Index into `REACHES` of a partner."""
    if offset in NEAREST:
        return 1 if offset[2] else 0
    nm = math.sqrt(sum((o * v) ** 2 for o, v in zip(offset, voxel_size_nm, strict=True)))
    return 2 if nm <= NEAR * min(voxel_size_nm) else 3
