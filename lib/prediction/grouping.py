"""From affinities to fragments and their contacts, block by block.

Fragments are never joined here; their contacts are counted for the whole volume, and cells follow
from all contacts at once. So the way in which a volume is cut into blocks hardly shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.configs.settings import InferenceSettings
from lib.prediction.boundary import (
    BoundaryScale,
    boundary_histogram,
    boundary_map,
    boundary_scale,
)
from lib.prediction.cutting import Block, cut_blocks
from lib.prediction.evidence import Evidence
from lib.prediction.fragments import fragments_of_block
from lib.prediction.graph import BlockContacts, contacts_of_block, merge_contacts
from lib.prediction.objects import Fragments
from lib.volumes.boxes import Box, box_slices, shift_box

Call = Callable[..., Any]
"""Calls its first argument with the others; a server does so in another process."""


def call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`."""
    return function(*arguments)


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
        for label in fastremap.unique(labels).tolist():
            if label == 0:
                continue
            numbers[label] = known.setdefault(int(places[label]), len(known) + 1)
        return numbers[labels]

    def count(self, ids: NDArray[np.uint32], classes: NDArray[np.uint8]) -> None:
        """Count the classes of a core's voxels."""
        keys = ids.ravel().astype(np.int64) * self._values + classes.ravel()
        found, counts = fastremap.unique(keys, return_counts=True)
        self._counted.append((found, counts.astype(np.int64)))

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
    reach = [max((o[axis] for o in evidence.offsets), default=0) for axis in range(3)]
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
