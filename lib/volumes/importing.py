"""Import a volume, or parts of it, into a study."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.labels.hierarchy import LabelHierarchy
from lib.labels.value_maps import EncodingName, ValueMap, encoding, load_value_map
from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    contains,
    fill_box,
    intersect,
    parse_box,
    shift_box,
    show_box,
    slabs,
    tile_boxes,
    whole_box,
)
from lib.volumes.errors import VolumeError, disk_error
from lib.volumes.label_views import LabelViews, PlacedLabel, grey_type, image_view
from lib.volumes.readers.opening import open_source, split_dataset
from lib.volumes.record import Split, check_id, check_voxel_size
from lib.volumes.source import Source
from lib.volumes.study import Study, StudyItem
from lib.volumes.writing import SLAB_BYTES, LabelCounts, Progress

SIZE_TOLERANCE = 0.01
"""Voxel sizes of image and label that differ by more than this part are a mistake."""


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Args:
        source: PATH or PATH:DATASET of the image.
        item_id: name of the item; by default the file's name.
        crop: "X0:X1,Y0:Y1,Z0:Z1" in the source's voxels.
        splits: "train", "val", or NAME=BOX for each part that becomes an item of its own.
        tiles: largest extent of an item; larger boxes become several items.
        voxel_size_nm: x, y, z; overrides what the file says.
        semantic, instance: PATH or PATH:DATASET of labels; instance "none" leaves out the ids
            that lie in the same file.
        encoding: of the semantic label.
        mapping: file that says what the semantic label's values mean.
        fully_annotated: voxels without a label are none of the annotated classes, and id 0
            says "no object".
        true_instances: whether ids are ground truth in 3D.
        spacing_unit: of NIfTI and NRRD files.
        replace: write over items that no annotator has touched.
    """

    source: str
    item_id: str = ""
    crop: str = ""
    splits: tuple[str, ...] = ()
    tiles: Triple | None = None
    voxel_size_nm: tuple[float, float, float] | None = None
    semantic: str = ""
    instance: str = ""
    encoding: EncodingName = "canonical"
    mapping: str = ""
    fully_annotated: bool = False
    true_instances: bool = True
    spacing_unit: str = "nm"
    replace: bool = False


@dataclass(frozen=True)
class PlannedItem:
    """One item to be written: its name, its box in the source's own frame, its split."""

    item_id: str
    box: Box
    split: Split | None


@dataclass
class ImportPlan:
    """Opened sources and the items that will be made of them; nothing is written yet."""

    request: ImportRequest
    image: Source
    semantic: PlacedLabel | None
    values: ValueMap | None
    instance: PlacedLabel | None
    voxel_size_nm: tuple[float, float, float]
    items: list[PlannedItem] = field(default_factory=list)

    @property
    def voxels(self) -> int:
        """Voxels that will be written, for a progress bar."""
        return sum(math.prod(box_shape(i.box)) for i in self.items)

    def close(self) -> None:
        """Close the files."""
        for label in (self.semantic, self.instance):
            if label is not None:
                label.source.close()
        self.image.close()


def plan_import(request: ImportRequest, study: Study) -> ImportPlan:
    """Open everything and check all that can be checked without reading voxels.

    Raises:
        VolumeError: what is wrong, where, and what to do; nothing has been written.
        ValueError: an option that cannot be read.
    """
    image = open_source(request.source, "image", request.spacing_unit)
    dtype = grey_type(image)
    size = request.voxel_size_nm or image.info.voxel_size_nm
    if size is None:
        raise VolumeError(
            image.info.where, "no voxel size in the file", "one in nm",
            "give it with --voxel-size-nm X Y Z",
        )  # fmt: skip
    check_voxel_size(size, image.info.where)
    semantic = _open_label(request, request.semantic, "semantic", image)
    values = None if semantic is None else _value_map(request, semantic, study)
    instance = _open_instance(request, image)
    items = _plan_items(request, image)
    plan = ImportPlan(request, image, semantic, values, instance, size, items)
    for item in plan.items:
        study.check_free(item.item_id, request.replace)
    _check_space(study.root, plan.voxels * dtype.itemsize)
    return plan


def import_items(
    plan: ImportPlan, study: Study, progress: Progress | None = None
) -> list[tuple[StudyItem, LabelCounts]]:
    """Write the planned items.

    Returns:
        The items with the counts of their labels.

    Raises:
        VolumeError: damaged or impossible values, or a full disk. Items written before the
            fault stay; the one at fault leaves nothing behind.
    """
    try:
        return [_import_item(plan, item, study, progress) for item in plan.items]
    except OSError as error:
        # Sources raise VolumeError when reading fails: this is the study's side.
        raise disk_error(study.root, error) from error
    finally:
        plan.close()


def _import_item(
    plan: ImportPlan, item: PlannedItem, study: Study, progress: Progress | None
) -> tuple[StudyItem, LabelCounts]:
    info, request = plan.image.info, plan.request
    a, b, c = info.origin
    box = shift_box(item.box, (-a, -b, -c))
    values = plan.values
    if values is not None and request.fully_annotated and plan.semantic is not None:
        values = _without_unlabelled(values, plan.semantic, box, study.hierarchy)
    views = LabelViews(
        study.hierarchy, box, plan.semantic, values, plan.instance, request.fully_annotated,
        info.origin,
    )  # fmt: skip
    labelled = plan.semantic is not None or plan.instance is not None
    return study.add_item(
        item.item_id,
        image_view(plan.image, box),
        plan.voxel_size_nm,
        views.class_sets() if labelled else None,
        views.instances(),
        replace=request.replace,
        progress=progress,
        chunk_depth=info.chunk_depth,
        origin_voxels=box_origin(item.box),
        source={
            "path": info.path, "dataset": info.dataset, "shape": list(info.shape),
            "origin": list(info.origin),
        },
        fully_annotated=request.fully_annotated,
        split=item.split,
        true_instances=request.true_instances and plan.instance is not None,
    )  # fmt: skip


def _plan_items(request: ImportRequest, image: Source) -> list[PlannedItem]:
    base = request.item_id or default_id(request.source)
    check_id(base)
    bounds = whole_box(image.shape, image.info.origin)
    crop = _box(request.crop, bounds, image) if request.crop else bounds
    parts: list[tuple[str, Box, Split | None]] = []
    for text in request.splits:
        name, equals, where = text.partition("=")
        if name not in ("train", "val"):
            raise ValueError(f"--split {text}: expected train, val, train=BOX or val=BOX")
        split: Split = "train" if name == "train" else "val"
        part = _box(where, crop, image) if equals else crop
        parts.append((f"{base}-{name}" if equals else base, part, split))
    _check_apart(parts)
    items = []
    for name, box, split_ in parts or [(base, crop, None)]:
        tiles = tile_boxes(box, request.tiles) if request.tiles else [box]
        for tile in tiles:
            x, y, z = box_origin(tile)
            suffix = f"-x{x}y{y}z{z}" if len(tiles) > 1 else ""
            items.append(PlannedItem(f"{name}{suffix}", tile, split_))
    return items


def _check_apart(parts: Sequence[tuple[str, Box, Split | None]]) -> None:
    names = [name for name, _, _ in parts]
    if len(set(names)) != len(names):
        raise ValueError("--split: each of train and val once")
    for i, (name, box, _) in enumerate(parts):
        for other, other_box, _ in parts[:i]:
            if common := intersect(box, other_box):
                raise ValueError(
                    f"--split: {other} and {name} share the voxels {show_box(common)}; "
                    "validation must be apart from training"
                )


def _box(text: str, bounds: Box, image: Source) -> Box:
    """A box in the source's frame that holds voxels and lies inside `bounds`."""
    box = fill_box(parse_box(text), bounds)
    if min(box_shape(box)) < 1:
        raise VolumeError(
            image.info.where, f"the box {text} holds no voxel",
            f"X0 < X1, Y0 < Y1, Z0 < Z1 inside {show_box(bounds)}",
        )  # fmt: skip
    if not contains(bounds, box):
        raise VolumeError(
            image.info.where, f"the box {text} reaches outside the volume", show_box(bounds)
        )
    return box


def _open_label(request: ImportRequest, text: str, role: Any, image: Source) -> PlacedLabel | None:
    if not text:
        return None
    label = open_source(text, role, request.spacing_unit)
    here, there = image.info, label.info
    if request.voxel_size_nm is None and here.voxel_size_nm and there.voxel_size_nm:
        ratio = np.divide(there.voxel_size_nm, here.voxel_size_nm)
        if (abs(ratio - 1) > SIZE_TOLERANCE).any():
            raise VolumeError(
                there.where, f"voxels of {there.voxel_size_nm} nm",
                f"{here.voxel_size_nm} nm as the image {here.where}",
                "resample the label, or state the size with --voxel-size-nm",
            )  # fmt: skip
    if there.origin != here.origin and there.shape == here.shape:
        return PlacedLabel(label)  # the same grid, numbered from another voxel
    if there.origin != here.origin:
        x, y, z = (h - t for h, t in zip(here.origin, there.origin, strict=True))
        return PlacedLabel(label, (x, y, z))
    if there.offset_nm and here.offset_nm and there.offset_nm != here.offset_nm:
        return PlacedLabel(label, _offset_voxels(image, label))
    if there.shape != here.shape:
        raise VolumeError(
            there.where, f"a {role} label of {_extent(there.shape)} voxels (x, y, z)",
            f"{_extent(here.shape)} as the image {here.where}",
            "image and label must lie on the same grid",
        )  # fmt: skip
    return PlacedLabel(label)


def _open_instance(request: ImportRequest, image: Source) -> PlacedLabel | None:
    """The named ids, or those that a CREMI file holds beside its raw data."""
    if request.instance:
        named = "" if request.instance == "none" else request.instance
        return _open_label(request, named, "instance", image)
    path, _ = split_dataset(request.source)
    if image.info.dataset != "volumes/raw":
        return None
    text = f"{path}:volumes/labels/neuron_ids"
    try:
        open_source(text, "instance").close()
    except VolumeError:
        return None  # raw data without labels
    return _open_label(request, text, "instance", image)


def _offset_voxels(image: Source, label: Source) -> Triple:
    """The image's first voxel in the label's voxels, by the offsets of both (CREMI)."""
    size = image.info.voxel_size_nm
    assert size and image.info.offset_nm and label.info.offset_nm
    exact = np.subtract(image.info.offset_nm, label.info.offset_nm) / np.array(size)
    x, y, z = (round(v) for v in exact)
    if (abs(exact - (x, y, z)) > SIZE_TOLERANCE).any():
        raise VolumeError(
            label.info.where, f"offset {label.info.offset_nm} nm",
            f"whole voxels of {size} nm from the image's {image.info.offset_nm}",
        )  # fmt: skip
    return x, y, z


def _value_map(request: ImportRequest, label: PlacedLabel, study: Study) -> ValueMap:
    if request.mapping:
        return load_value_map(request.mapping, study.hierarchy)
    sets = label.source.info.attributes.get("class_sets", {})
    extra = {int(code): list(names) for code, names in sets.items()}
    return encoding(request.encoding, study.hierarchy, extra)


def _without_unlabelled(
    values: ValueMap, label: PlacedLabel, box: Box, hierarchy: LabelHierarchy
) -> ValueMap:
    """What a voxel without a label can be in an item that is fully annotated.

    Value 0 of the canonical encoding then is every class but those that are painted.
    """
    if values.table.get(0) != hierarchy.unknown:
        return values
    painted = 0
    for slab in slabs(box, label.source.dtype.itemsize * 4, SLAB_BYTES):
        for value in np.unique(label.read(slab)[0]):
            class_set = values.table.get(int(value), hierarchy.unknown)
            painted |= class_set if class_set != hierarchy.unknown else 0
    left = hierarchy.unknown & ~painted
    return ValueMap({**values.table, 0: left}, values.other) if left else values


def _check_space(root: Path, needed: int) -> None:
    folder = next(p for p in (root, *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise VolumeError(
            root, f"{free / 2**20:.0f} MiB free", f"{needed / 2**20:.0f} MiB for the image alone",
            "free some space, choose another folder, or import a --crop",
        )  # fmt: skip


def default_id(source: str) -> str:
    """An item id made of a source's file name."""
    path, dataset = split_dataset(source)
    name = path.name
    for suffix in (".nii.gz", path.suffix):
        name = name.removesuffix(suffix)
    if dataset.strip("/") not in ("", "volumes/raw"):
        name += "-" + dataset.strip("/").replace("/", "-")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "volume"


def _extent(shape: Iterable[int]) -> str:
    return " x ".join(str(n) for n in shape)
