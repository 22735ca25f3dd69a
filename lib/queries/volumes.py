"""Volumes too large to be items of their own: regions of them are handed out as items.

A study may *be* one large volume, a region item of many gigavoxels. It is never scored or sent
whole: a query on it becomes an item around the region, which everything else takes as any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.queries.regions import RegionGrid
from lib.volumes.boxes import Box, Triple, shift_box, slabs, whole_box
from lib.volumes.frames import viewer_frame
from lib.volumes.regions import MOST_SHOWN, region_at, region_of, regions_in
from lib.volumes.study import Study, StudyItem

STORED = 4096
"""Stored chunks that are looked at to find out where a sparse volume has voxels."""
READ_BYTES = 1 << 26


def is_volume(item: StudyItem) -> bool:
    """Whether an item is too large to be scored, sent or annotated whole."""
    return region_of(item) is not None and math.prod(item.shape) > MOST_SHOWN


def without_parts(items: Sequence[StudyItem]) -> list[StudyItem]:
    """Items without those that a volume among them holds: its own regions say what is open."""
    volumes = {item.id for item in items if is_volume(item)}
    if not volumes:
        return list(items)
    return [item for item in items if item.record.extra.get("region_of") not in volumes]


def item_around(study: Study, item: StudyItem, box: Box, view: Triple) -> tuple[StudyItem, Box]:
    """The item that shows a region of a volume, and the region in it; it is made if need be.

    Args:
        item: the volume.
        box: its voxels.
        view: extent of such an item in network voxels, sections last.
    """
    extent = [0, 0, 0]
    for axis, size in zip(viewer_frame(item.shape, item.voxel_size_nm).order, view, strict=True):
        extent[axis] = size
    return region_at(study, item, box, (extent[0], extent[1], extent[2]))


class KnownParts:
    """What is known in the regions of volumes, counted once for each version of a label."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[str, NDArray[np.int64], NDArray[np.float64]]] = {}

    def share(self, study: Study, item: StudyItem, grid: RegionGrid) -> NDArray[np.float32]:
        """(R,) share of voxels of a volume's regions that is known from the items in it."""
        total = np.zeros(grid.count)
        for other, place in regions_in(study, item):
            label = other.label_path("final")
            if not label.exists():
                continue
            key = f"{label.stat().st_mtime_ns} {place} {grid.cells}"
            held = self._counted.get(other.id)
            if held is None or held[0] != key:
                held = (key, *_known_voxels(study, other, place, grid))
                self._counted[other.id] = held
            total[held[1]] += held[2]
        return (total / grid.voxels).astype(np.float32)


def _known_voxels(
    study: Study, item: StudyItem, place: Box, grid: RegionGrid
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Regions of a volume that an item lies in, and how many of its known voxels each has."""
    spans = [
        (int(np.searchsorted(e, low, "right")) - 1, int(np.searchsorted(e, high, "left")))
        for e, (low, high) in zip(grid.edges, place, strict=True)
    ]
    starts = [int(e[a]) for e, (a, _) in zip(grid.edges, spans, strict=True)]
    x, y, z = (e[a : b + 1] - e[a] for e, (a, b) in zip(grid.edges, spans, strict=True))
    part = RegionGrid((x, y, z))
    a, b, c = (low - start for (low, _), start in zip(place, starts, strict=True))
    found = np.zeros(part.count)
    for slab in slabs(whole_box(item.shape), 8, READ_BYTES):
        known = item.read_class_sets(slab) != study.hierarchy.unknown
        found += part.sums(known[None].astype(np.float32), shift_box(slab, (a, b, c)))[0]
    cells = np.meshgrid(*(np.arange(*span) for span in spans), indexing="ij")
    return np.ravel_multi_index(cells, grid.cells).reshape(-1), found


def stored_regions(item: StudyItem, grid: RegionGrid) -> NDArray[np.bool_] | None:
    """(R,) where a sparse volume has voxels; None where its kind of file does not tell."""
    boxes = item.source.stored_boxes(STORED)
    if not boxes:
        return None
    stored = np.zeros(grid.count, bool)
    for box in boxes:
        stored[grid.overlapping(box)] = True
    return stored
