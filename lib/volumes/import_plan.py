"""What an import will write: everything is opened and checked before the first voxel."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.labels.value_maps import EncodingName, ValueMap
from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    contains,
    fill_box,
    intersect,
    minus,
    parse_box,
    shift_box,
    show_box,
    tile_boxes,
    whole_box,
)
from lib.volumes.errors import VolumeError
from lib.volumes.import_labels import LabelOptions, open_instance, open_label, value_map
from lib.volumes.label_views import PlacedLabel, grey_type
from lib.volumes.lacking import lacking
from lib.volumes.readers.opening import open_source, split_dataset
from lib.volumes.readers.remote import is_remote, split_address
from lib.volumes.readers.section_names import Gaps
from lib.volumes.record import Split, check_id, check_voxel_size
from lib.volumes.source import Source
from lib.volumes.study import Study


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
        gaps: what becomes of missing numbers in a folder of sections.
        lazy: make items that are boxes of the source, and copy no voxels.
        bright_membranes: the image's; None: as the study's settings say.
    """

    source: str
    item_id: str = ""
    crop: str = ""
    splits: tuple[str, ...] = ()
    tiles: Triple | None = None
    voxel_size_nm: tuple[float, ...] = ()
    semantic: str = ""
    instance: str = ""
    encoding: EncodingName = "canonical"
    mapping: str = ""
    fully_annotated: bool = False
    true_instances: bool = True
    spacing_unit: str = "nm"
    replace: bool = False
    gaps: Gaps = "refuse"
    lazy: bool = False
    bright_membranes: bool | None = None


@dataclass(frozen=True)
class PlannedItem:
    """One item to be written: its name, its box in the source's own frame, its split."""

    item_id: str
    box: Box
    split: Split | None


@dataclass
class ImportPlan:
    """Opened sources and the items that will be made of them; nothing is written yet.

    Args:
        warnings: what the user must know of the sources.
    """

    request: ImportRequest
    image: Source
    semantic: PlacedLabel | None
    values: ValueMap | None
    instance: PlacedLabel | None
    voxel_size_nm: tuple[float, float, float]
    items: list[PlannedItem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def sources(self) -> list[Source]:
        """The image, and the labels that there are."""
        labels = [v.source for v in (self.semantic, self.instance) if v is not None]
        return [self.image, *labels]

    def unknown_sections(self) -> frozenset[int]:
        """Sections that image or labels lack, counted from the image's first."""
        lacking = set(self.image.info.missing_sections)
        for label in (self.semantic, self.instance):
            if label is not None:
                lacking |= {z - label.offset[2] for z in label.source.info.missing_sections}
        return frozenset(lacking)

    @property
    def voxels(self) -> int:
        """Voxels that will be written, for a progress bar."""
        return sum(math.prod(box_shape(i.box)) for i in self.items)

    def close(self) -> None:
        """Close the files."""
        for source in self.sources():
            source.close()


def plan_import(request: ImportRequest, study: Study) -> ImportPlan:
    """Open everything and check all that can be checked without reading voxels.

    Raises:
        VolumeError: what is wrong, where, and what to do; nothing has been written.
        ValueError: an option that cannot be read.
    """
    if request.lazy and (request.semantic or request.instance):
        raise ValueError("--lazy copies nothing, and labels are copied; import these without it")
    image = open_source(request.source, "image", request.spacing_unit, request.gaps)
    dtype = grey_type(image)
    size = size_given(request.voxel_size_nm, image) or image.info.voxel_size_nm
    if size is None:
        raise VolumeError(
            image.info.where, image.info.size_fault or "no voxel size in the file", "one in nm",
            "give it with --voxel-size-nm X Y Z",
        )  # fmt: skip
    check_voxel_size(size, image.info.where)
    options = LabelOptions(bool(request.voxel_size_nm), request.spacing_unit, request.gaps)
    semantic = open_label(request.semantic, "semantic", image, options)
    values = None
    if semantic is not None:
        values = value_map(semantic, request.encoding, request.mapping, study.hierarchy)
    instance = None
    if not request.lazy:
        instance = open_instance(request.instance, request.source, image, options)
    items = _plan_items(request, image)
    plan = ImportPlan(request, image, semantic, values, instance, size, items)
    for item in plan.items:
        study.check_free(item.item_id, request.replace)
    plan.warnings = [w for s in plan.sources() for w in s.info.warnings] + _lacking(plan)
    if not request.lazy:
        _check_space(study.root, plan.voxels * dtype.itemsize)
    return plan


def size_given(lengths: Sequence[float], image: Source) -> tuple[float, float, float] | None:
    """The voxel size (x, y, z) in nm that a user's lengths mean; None where none are given.

    Raises:
        ValueError: so many lengths do not say the size of the image's voxels.
    """
    match tuple(lengths):
        case ():
            return None
        case (x, y, z):
            return x, y, z
        case (x, y) if image.shape[2] == 1:
            return x, y, x
        case (x,):
            return x, x, x
    depth = image.shape[2]
    expected = (
        "1 for all axes, 2 (x y) or 3 (x y z)" if depth == 1 else "1 for all axes or 3 (x y z)"
    )
    raise ValueError(
        f"--voxel-size-nm: found {len(lengths)} lengths, expected {expected}, since "
        f"{image.info.where} has {depth} section{'s' * (depth > 1)} along z; give X Y Z"
    )


def default_id(source: str) -> str:
    """An item id made of a source's file name."""
    path, dataset = split_address(source) if is_remote(source) else split_dataset(source)
    name = path.name
    for suffix in (".nii.gz", path.suffix.lower()):
        if suffix and name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    if dataset.strip("/") not in ("", "volumes/raw"):
        name += "-" + dataset.strip("/").replace("/", "-")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "volume"


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


def _lacking(plan: ImportPlan) -> list[str]:
    """Parts of the items' boxes that their sources do not hold.

    Raises:
        VolumeError: nothing of an item's image is there.
    """
    warnings = []
    for item in plan.items:
        box = shift_box(item.box, minus(plan.image.info.origin))
        warnings += lacking(plan.image, box)
        for label in (plan.semantic, plan.instance):
            if label is None:
                continue
            part = intersect(shift_box(box, label.offset), whole_box(label.source.shape))
            warnings += [] if part is None else lacking(label.source, part, must=False)
    return warnings


def _check_space(root: Path, needed: int) -> None:
    folder = next(p for p in (root, *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise VolumeError(
            root, f"{free / 2**20:.0f} MiB free", f"{needed / 2**20:.0f} MiB for the image alone",
            "free some space, choose another folder, or import a --crop",
        )  # fmt: skip
