"""Fragments of a volume, and the cells that they are joined into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.agglomeration import (
    absorb,
    agglomerate,
    cannot_stand_alone,
    cell_votes,
    organelle_classes,
)
from lib.prediction.classes import FINE_VALUE
from lib.prediction.graph import FragmentGraph
from lib.prediction.joining import JoinModel
from lib.volumes.boxes import Box, box_slices


@dataclass(frozen=True)
class Objects:
    """The cells of a volume.

    Args:
        ids: (X, Y, Z) uint32, 0 no cell, cells 1..N without gaps.
        classes: (N + 1,) uint8, the fine class + 1 that most of a cell's voxels have, organelles
            left out where there is anything else; 0 at index 0.
        sizes: (N + 1,) int64, voxels of each cell; index 0 is what is in no cell.
        of_fragments: (F + 1,) int64, the cell of each fragment.
        fragments: that they are made of, in the network's frame, where these are kept.
    """

    ids: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    of_fragments: NDArray[np.int64]
    fragments: Fragments | None = None

    @property
    def count(self) -> int:
        """How many cells there are."""
        return len(self.sizes) - 1

    @property
    def largest_share(self) -> float:
        """The largest cell's share of all cells' voxels; near 1 means all were merged."""
        total = int(self.sizes[1:].sum())
        return float(self.sizes[1:].max() / total) if total else 0.0

    def within(self, box: Box) -> Objects:
        """The objects of a part, numbered anew; sizes are those within it.

        Args:
            box: of the voxels of `ids`.
        """
        found = np.ascontiguousarray(self.ids[box_slices(box)])
        present, sizes = np.unique(found, return_counts=True)
        if present[0] != 0:
            present, sizes = np.append(0, present), np.append(0, sizes)
        ids = np.searchsorted(present, found).astype(np.uint32)
        at = np.searchsorted(present, self.of_fragments).clip(max=len(present) - 1)
        of_fragments = np.where(present[at] == self.of_fragments, at, 0)
        return Objects(ids, self.classes[present], sizes.astype(np.int64), of_fragments)


@dataclass(frozen=True)
class Fragments:
    """The fragments of a volume and their graph.

    Args:
        ids: (X, Y, Z) uint32, 0 none, 1..F.
        graph: their contacts.
    """

    ids: NDArray[np.uint32]
    graph: FragmentGraph

    def objects(
        self,
        joining: JoinModel,
        hierarchy: LabelHierarchy,
        crumb: int,
        split_merge: float = 0.0,
    ) -> Objects:
        """Join fragments into cells; takes milliseconds, so that a slider may ask again.

        Args:
            joining: gives the log odds of each contact.
            hierarchy: of the network.
            crumb: cells below so many voxels join their best neighbour.
            split_merge: -1 splits more, 1 merges more.
        """
        graph = self.graph
        logits = joining.logits(graph)
        cells = joined_cells(graph, logits, hierarchy, crumb, split_merge)
        votes = cell_votes(graph, cells)
        votes[0] = graph.votes[0]
        sizes = votes.sum(1)
        inside = [c + FINE_VALUE for c in organelle_classes(hierarchy)]
        without = votes.copy()
        without[:, inside] = 0
        mostly = np.where(without.any(1)[:, None], without, votes)
        classes = mostly.argmax(1).astype(np.uint8)
        classes[0] = 0
        ids = cells.astype(np.uint32)[self.ids]
        return Objects(ids, classes, sizes, cells)


def joined_cells(
    graph: FragmentGraph,
    logits: NDArray[np.float64],
    hierarchy: LabelHierarchy,
    crumb: int,
    split_merge: float = 0.0,
) -> NDArray[np.int64]:
    """(N + 1,) the cell of each fragment: joined, then freed of what cannot stand alone.

    Args:
        graph: of a volume.
        logits: (E,) log odds of each contact.
        hierarchy: of the network.
        crumb: cells below so many voxels join their best neighbour.
        split_merge: -1 splits more, 1 merges more.
    """
    cells = agglomerate(graph, logits, split_merge)
    return absorb(graph, logits, cells, cannot_stand_alone(graph, cells, hierarchy, crumb))
