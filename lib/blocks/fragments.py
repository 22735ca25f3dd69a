"""The fragments of one block of a volume larger than memory.

A fragment is known by the voxel of the volume that it grew from, plus one: blocks agree on ids
without asking each other, and an object takes the smallest id of its fragments, so that nothing
is ever numbered anew. What blocks say of contacts adds up exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.blocks.contacts import Contacts, Face, Ids, face_of, named, numbered
from lib.blocks.plan import FOLDER
from lib.prediction.boundary import (
    BoundaryScale,
    boundary_histogram,
    boundary_map,
    boundary_scale,
)
from lib.prediction.evidence import Evidence, collect_evidence
from lib.prediction.fragments import fragments_of_block
from lib.prediction.grouping import block_overlap, count_contacts, global_places
from lib.prediction.predictor import Predictor
from lib.prediction.scratch import Scratch
from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    box_slices,
    intersect,
    minus,
    shift_box,
    tile_boxes,
    whole_box,
)
from lib.volumes.contrast import intensity_window
from lib.volumes.crop import Crop, widen
from lib.volumes.frames import FramedImage

Counts = NDArray[np.int64]
SAMPLED = 12
"""Windows by which a volume's boundaries are judged."""


@dataclass(frozen=True)
class Part:
    """What one block says of objects.

    Args:
        ids: (x, y, z) uint64 fragments of the core, 0 none.
        classes: (x, y, z) uint8 fine class + 1.
        voted: (F,) fragments that have voxels in the core.
        votes: (F, C) these voxels by class value.
        background: (C,) voxels in no fragment.
        contacts: of fragments inside the core.
        faces: along x, y, z.
    """

    ids: Ids
    classes: NDArray[np.uint8]
    voted: Ids
    votes: Counts
    background: Counts
    contacts: Contacts
    faces: tuple[Face, ...]


def fragments_in(
    predictor: Predictor,
    view: FramedImage,
    voxel_size_nm: tuple[float, float, float],
    core: Box,
    scale: BoundaryScale,
    folder: Path,
) -> Part:
    """The fragments of one block and their contacts.

    Args:
        view: the whole volume as the network sees it.
        voxel_size_nm: of the view.
        core: what the block writes, network voxels.
        scale: of the volume's boundaries.
        folder: output, where large intermediate arrays may lie.
    """
    inference = predictor.inference
    overlap = block_overlap(voxel_size_nm, inference)
    margin = tuple(n - n // 2 for n in overlap)
    halo = (margin[0], margin[1], margin[2])
    outer = widen(core, halo, view.shape)
    tile = [max(1, n - 2 * m) for n, m in zip(inference.instance_block, halo, strict=True)]
    ids = np.zeros(box_shape(core), np.uint64)
    with Scratch(inference.tile_bytes, folder / FOLDER) as scratch:
        evidence = collect_evidence(
            predictor.finder, view, voxel_size_nm, inference, predictor.hierarchy, scratch,
            box=outer,
        )  # fmt: skip
        origin = minus(box_origin(outer))
        for own in tile_boxes(core, (tile[0], tile[1], tile[2])):
            wide = intersect(widen(own, halo, view.shape), outer)
            assert wide is not None
            here = shift_box(wide, origin)
            foreground = np.asarray(evidence.foreground[box_slices(here)])
            labels, places = fragments_of_block(
                *evidence.nearest(here), foreground, voxel_size_nm, scale
            )
            names = (global_places(places, wide, view.shape) + 1).astype(np.uint64)
            found = labels[box_slices(shift_box(own, minus(box_origin(wide))))]
            ids[box_slices(shift_box(own, minus(box_origin(core))))] = names[found]
        return _part(ids, _within(evidence, shift_box(core, origin)), voxel_size_nm, tile)


def _within(evidence: Evidence, box: Box) -> Evidence:
    """The evidence of a part."""
    where = box_slices(box)
    return Evidence(
        evidence.affinities[(slice(None), *where)], evidence.offsets, evidence.classes[where],
        evidence.foreground[where], evidence.class_values,
    )  # fmt: skip


def _part(
    ids: Ids, evidence: Evidence, voxel_size_nm: tuple[float, float, float], tile: list[int]
) -> Part:
    """What a block says, from the fragments and the evidence of its core."""
    local, names = numbered(ids)
    values = evidence.class_values
    classes = np.array(evidence.classes)
    votes = np.bincount(
        local.ravel().astype(np.int64) * values + classes.ravel(), minlength=len(names) * values
    ).reshape(-1, values)
    counted = [
        count_contacts(evidence, local, box, voxel_size_nm)
        for box in tile_boxes(whole_box(evidence.shape), (tile[0], tile[1], tile[2]))
    ]
    edges, stats = named(counted, names)
    faces = tuple(face_of(ids, evidence, axis) for axis in range(3))
    return Part(ids, classes, names[1:], votes[1:], votes[0], Contacts(edges, stats), faces)


def sampled_scale(
    predictor: Predictor, view: FramedImage, voxel_size_nm: tuple[float, float, float], part: Box
) -> BoundaryScale:
    """What a volume's boundaries count as, from some windows spread over a part of it."""
    inference = predictor.inference
    size = [min(w, b - a) for w, (a, b) in zip(inference.window, part, strict=True)]
    tiles = tile_boxes(part, (size[0], size[1], size[2]))
    step = max(1, -(-len(tiles) // SAMPLED))
    contrast = intensity_window(view)
    histograms = []
    for box in tiles[step // 2 :: step]:
        with Scratch(2**31) as scratch:
            evidence = collect_evidence(
                predictor.finder, Crop(view, box, contrast), voxel_size_nm, inference,
                predictor.hierarchy, scratch,
            )  # fmt: skip
            histograms.append(_histogram(evidence, voxel_size_nm))
    return boundary_scale(histograms)


def _histogram(evidence: Evidence, voxel_size_nm: tuple[float, float, float]) -> Counts:
    everything = whole_box(evidence.shape)
    foreground = np.asarray(evidence.foreground)
    boundary = boundary_map(*evidence.nearest(everything), foreground, voxel_size_nm)
    return boundary_histogram(boundary, foreground)
