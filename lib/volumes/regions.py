"""Study items that are boxes of larger volumes: added without a copy, shown when asked for.

<root>/<id>.region.json   which box of which volume (lib/volumes/readers/region.py)
<root>/shown/<id>.nii     its voxels, for a viewer that asked for them
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from lib.volumes.atomic import StagedFiles, json_bytes, make_folder
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, contains, slabs, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.nifti import nifti_header
from lib.volumes.readers.opening import open_region
from lib.volumes.readers.region import REGION, RegionOf, read_region
from lib.volumes.record import ItemRecord, record_path
from lib.volumes.study import Study, StudyItem
from lib.volumes.writing import SLAB_BYTES, file_bytes

SHOWN = "shown"
MOST_SHOWN = 2**26
"""Voxels of the largest region that is written out for a viewer."""


def add_region(
    study: Study, item_id: str, region: RegionOf, *, replace: bool = False, **record_fields: Any
) -> StudyItem:
    """Make an item of a box of a volume; no voxel is read or copied.

    Args:
        item_id: letters, digits, "_" and "-".
        region: the box.
        replace: write over an item of the same id that no annotator has touched.
        record_fields: further fields of ItemRecord.

    Raises:
        ValueError: the id is taken.
    """
    study.check_free(item_id, replace)
    old = _files_of(study, item_id)
    record = ItemRecord(
        item_id, region.voxel_size_nm, known_share={"unknown": 1.0}, **record_fields
    )
    make_folder(study.root)
    with StagedFiles() as staged:  # the region comes last: it makes the item
        staged.create(record_path(study.root, item_id)).write(json_bytes(record.to_dict()))
        staged.create(study.root / f"{item_id}{REGION}").write(region.to_bytes())
        staged.commit()
    for path in old - {study.root / f"{item_id}{REGION}"}:
        path.unlink(missing_ok=True)
    return study.item(item_id)


def _files_of(study: Study, item_id: str) -> set[Path]:
    """Image and labels of an item that is about to be replaced."""
    if not study.has_item(item_id):
        return set()
    item = study.item(item_id)
    return {item.image_path, *(item.label_path(tag) for tag in ("final", "instance"))}


def region_of(item: StudyItem) -> RegionOf | None:
    """Which box of which volume an item is; None for items with voxels of their own."""
    return read_region(item.image_path) if item.image_path.name.endswith(REGION) else None


def regions_in(study: Study, item: StudyItem) -> list[tuple[StudyItem, Box]]:
    """The items that are boxes inside another region item, with these boxes in its voxels."""
    outer = region_of(item)
    if outer is None:
        return []
    found = []
    for other in study.items():
        inner = region_of(other)
        if inner is None or inner.text != outer.text or inner.box == outer.box:
            continue
        if contains(outer.box, inner.box):
            found.append((other, _within(inner.box, outer.box)))
    return found


def region_at(
    study: Study, item: StudyItem, box: Box, view: tuple[int, int, int]
) -> tuple[StudyItem, Box]:
    """The item that shows a box of a volume: one there is, or a new one around it.

    Args:
        item: the volume, a region item itself.
        box: voxels of the volume that are to be seen.
        view: extent of a new item, along the volume's axes; larger where the box is.

    Returns:
        The item, and the box in its voxels.
    """
    for other, place in regions_in(study, item):
        if contains(place, box):
            return other, _within(box, place)
    outer = region_of(item)
    assert outer is not None, item
    spans = []
    for (low, high), wanted, size in zip(box, view, item.shape, strict=True):
        length = min(size, max(wanted, high - low))
        start = min(max(0, (low + high - length) // 2), size - length)
        spans.append((start, start + length))
    place = (spans[0], spans[1], spans[2])
    a, b, c = (o + low for o, (low, _) in zip(box_origin(outer.box), place, strict=True))
    inner = whole_box(box_shape(place), (a, b, c))
    origin = item.record.origin_voxels
    x, y, z = (o + low for o, (low, _) in zip(origin, place, strict=True))
    region = RegionOf(outer.source, outer.dataset, inner, outer.voxel_size_nm, outer.contrast)
    made = add_region(
        study, f"{item.id}-x{x}y{y}z{z}", region, origin_voxels=(x, y, z),
        source=item.record.source, bright_membranes=item.record.bright_membranes,
        extra={"region_of": item.id},
    )  # fmt: skip
    return made, _within(box, place)


def shown_path(image: Path) -> Path:
    """Where a viewer finds an image's voxels: the image itself, or a region written out."""
    if not image.name.endswith(REGION):
        return image
    return image.parent / SHOWN / f"{image.name.removesuffix(REGION)}.nii"


def write_shown(image: Path, most_voxels: int = MOST_SHOWN) -> Path:
    """The file that a viewer can open; a region is written out, once.

    Args:
        image: of an item.
        most_voxels: larger regions are refused.

    Raises:
        VolumeError: the region is too large, or its volume cannot be read.
    """
    path = shown_path(image)
    if path == image or (path.exists() and path.stat().st_mtime_ns > image.stat().st_mtime_ns):
        return path
    region = open_region(image)
    try:
        voxels = math.prod(region.shape)
        if voxels > most_voxels:
            raise VolumeError(
                image, f"{voxels / 1e6:.0f} million voxels, too many to send to a viewer",
                f"at most {most_voxels / 1e6:.0f} million",
                "ask for the next sample, which makes a region",
            )  # fmt: skip
        size = region.info.voxel_size_nm
        assert size is not None, image
        with StagedFiles() as staged:
            file = staged.create(path)
            file.write(nifti_header(region.shape, region.dtype, size))
            cost = 2 * region.dtype.itemsize
            whole = whole_box(region.shape)
            for slab in slabs(whole, cost, SLAB_BYTES, region.info.chunk_depth):
                file.write(file_bytes(np.asarray(region[box_slices(slab)])))
            staged.commit()
    finally:
        region.close()
    return path


def _within(box: Box, place: Box) -> Box:
    spans = [(low - o, high - o) for (low, high), (o, _) in zip(box, place, strict=True)]
    return spans[0], spans[1], spans[2]
