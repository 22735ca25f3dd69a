"""Every object of a volume: affinities -> fragments -> one graph of them -> cells.

The windows give affinities (blended as affinities: embeddings of two windows need not share a
frame of reference) and class maps, which are kept at two bytes a number, on disk where they
are large. Fragments are made block by block and never joined there; their contacts are counted
for the whole volume, and cells follow from all contacts at once. So the way in which a volume
is cut into blocks hardly shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.agglomeration import (
    absorb,
    agglomerate,
    cannot_stand_alone,
    cell_votes,
    organelle_classes,
)
from lib.prediction.boundary import (
    BoundaryScale,
    boundary_histogram,
    boundary_map,
    boundary_scale,
)
from lib.prediction.classes import FINE_VALUE, Progress
from lib.prediction.cutting import Block, cut_blocks
from lib.prediction.evidence import Evidence, collect_evidence
from lib.prediction.features import Shelf
from lib.prediction.fragments import fragments_of_block
from lib.prediction.graph import BlockContacts, FragmentGraph, contacts_of_block, merge_contacts
from lib.prediction.joining import JoinModel
from lib.prediction.scratch import Scratch
from lib.volumes.boxes import Box, box_slices, shift_box
from lib.volumes.contrast import LazyImage

Call = Callable[..., Any]
"""Calls its first argument with the others; a server does so in another process."""


def call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`."""
    return function(*arguments)


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


def predict_objects(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    *,
    hierarchy: LabelHierarchy,
    joining: JoinModel | None = None,
    progress: Progress | None = None,
    scratch_folder: Path | None = None,
    call: Call = call_here,
    shelf: Shelf | None = None,
) -> Objects:
    """All cells of a volume, with their classes; see `predict_fragments`."""
    found = predict_fragments(
        net,
        volume,
        voxel_size_nm,
        inference,
        hierarchy=hierarchy,
        progress=progress,
        scratch_folder=scratch_folder,
        call=call,
        shelf=shelf,
    )
    return found.objects(joining or JoinModel(), hierarchy, inference.min_object_voxels)


def predict_fragments(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    *,
    hierarchy: LabelHierarchy,
    progress: Progress | None = None,
    scratch_folder: Path | None = None,
    call: Call = call_here,
    shelf: Shelf | None = None,
) -> Fragments:
    """The fragments of a volume and their graph.

    Args:
        net: in evaluation mode, on the device that computes.
        volume: (X, Y, Z) image in the network's frame, read window by window.
        voxel_size_nm: (x, y, z) of the volume.
        inference: windows and blocks.
        hierarchy: of the network; says which classes can be objects.
        progress: called with (windows done, windows in all).
        scratch_folder: where large intermediate arrays go; the system's temporary folder
            when not given.
        call: how the work of a block is called.
        shelf: where the backbone's features are kept for the next run; None: nowhere.
    """
    with Scratch(inference.tile_bytes, scratch_folder) as scratch:
        evidence = collect_evidence(
            net, volume, voxel_size_nm, inference, hierarchy, scratch, progress, shelf
        )
        return group_volume(evidence, voxel_size_nm, inference, call)


def group_volume(
    evidence: Evidence,
    voxel_size_nm: Sequence[float],
    inference: InferenceSettings,
    call: Call = call_here,
) -> Fragments:
    """Fragments block by block, then the contacts of all of them, deterministically.

    Args:
        evidence: of the whole volume.
        voxel_size_nm: (x, y, z).
        inference: size of the blocks.
        call: how the work of a block is called.
    """
    blocks = cut_blocks(
        evidence.shape, inference.instance_block, block_overlap(voxel_size_nm, inference)
    )
    scale = evidence_scale(evidence, [b.core for b in blocks], voxel_size_nm)
    ids = np.zeros(evidence.shape, np.uint32)
    ledger = FragmentNumbers(evidence.class_values)
    for block in blocks:
        labels, places = call(
            fragments_of_block,
            *evidence.nearest(block.outer),
            np.asarray(evidence.foreground[box_slices(block.outer)]),
            tuple(voxel_size_nm),
            scale,
        )
        where = box_slices(block.core)
        core = _piece(labels, block, block.core)
        places = global_places(places, block.outer, evidence.shape)
        ids[where] = ledger.numbered(core, places)
        ledger.count(ids[where], evidence.classes[where])
    contacts = [count_contacts(evidence, ids, block.core, voxel_size_nm, call) for block in blocks]
    return Fragments(ids, merge_contacts(contacts, ledger.votes()))


class FragmentNumbers:
    """Numbers for fragments by the places they are known by, and the votes of their voxels.

    Args:
        class_values: how many values the class map can have.
    """

    def __init__(self, class_values: int) -> None:
        self._values = class_values
        self._numbers: dict[int, int] = {}
        self._counted: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def numbered(self, labels: NDArray[np.uint32], places: NDArray[np.int64]) -> NDArray[np.uint32]:
        """A core's fragments by the volume's numbers, in the order in which they are met.

        Args:
            labels: (x, y, z) fragments of the block, 0 none.
            places: (N + 1,) the voxel of the volume that each is known by.
        """
        known = self._numbers
        numbers = np.zeros(len(places), np.uint32)
        for label in np.unique(labels[labels > 0]).tolist():
            numbers[label] = known.setdefault(int(places[label]), len(known) + 1)
        return numbers[labels]

    def count(self, ids: NDArray[np.uint32], classes: NDArray[np.uint8]) -> None:
        """Count the classes of a core's voxels."""
        keys = ids.ravel().astype(np.int64) * self._values + classes.ravel()
        self._counted.append(np.unique(keys, return_counts=True))

    def votes(self) -> NDArray[np.int64]:
        """(N + 1, C) voxels of each fragment by class value."""
        votes = np.zeros((len(self._numbers) + 1) * self._values, np.int64)
        for keys, counts in self._counted:
            votes[keys] += counts
        return votes.reshape(-1, self._values)


def global_places(
    places: NDArray[np.int64], box: Box, shape: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Voxels of a block (C order) as voxels of the volume; -1 stays."""
    inside = np.unravel_index(np.maximum(places, 0), tuple(b - a for a, b in box))
    moved = [axis + a for axis, (a, _) in zip(inside, box, strict=True)]
    return np.where(places < 0, -1, np.ravel_multi_index(tuple(moved), shape)).astype(np.int64)


def evidence_scale(
    evidence: Evidence, boxes: Sequence[Box], voxel_size_nm: Sequence[float]
) -> BoundaryScale:
    """What is a strong boundary in a volume, from all of its blocks."""
    histograms = []
    for box in boxes:
        foreground = np.asarray(evidence.foreground[box_slices(box)])
        boundary = boundary_map(*evidence.nearest(box), foreground, voxel_size_nm)
        histograms.append(boundary_histogram(boundary, foreground))
    return boundary_scale(histograms)


def count_contacts(
    evidence: Evidence,
    ids: NDArray[np.uint32],
    core: Box,
    voxel_size_nm: Sequence[float],
    call: Call = call_here,
) -> BlockContacts:
    """The contacts that start in one block."""
    reach = [max(o[axis] for o in evidence.offsets) for axis in range(3)]
    outer = tuple(
        (a, min(b + r, n)) for (a, b), r, n in zip(core, reach, evidence.shape, strict=True)
    )
    wide = (outer[0], outer[1], outer[2])
    own = shift_box(core, (-core[0][0], -core[1][0], -core[2][0]))
    where = box_slices(wide)
    found: BlockContacts = call(
        contacts_of_block,
        np.ascontiguousarray(ids[where]),
        np.asarray(evidence.affinities[(slice(None), *where)]),
        evidence.offsets,
        tuple(voxel_size_nm),
        own,
    )
    return found


def block_overlap(
    voxel_size_nm: Sequence[float], inference: InferenceSettings
) -> tuple[int, int, int]:
    """The same overlap in nm along each axis, at least two sections and below half a block."""
    finest = min(voxel_size_nm)
    overlap = [
        min(max(math.ceil(inference.instance_overlap * finest / v), 2), (size - 1) // 2)
        for v, size in zip(voxel_size_nm, inference.instance_block, strict=True)
    ]
    return overlap[0], overlap[1], overlap[2]


def _piece(labels: NDArray[np.uint32], block: Block, box: Box) -> NDArray[np.uint32]:
    """The part of a block's labels that lies in a box of the volume."""
    origin = tuple(-a for a, _ in block.outer)
    return labels[box_slices(shift_box(box, (origin[0], origin[1], origin[2])))]
