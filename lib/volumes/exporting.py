"""Write an item's labels back, at the item's place in its source volume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import GROUP_BASE, SET_FIRST, SET_LAST, final_to_class_sets
from lib.labels.hierarchy import LabelHierarchy, normalize_name
from lib.labels.value_maps import EncodingName
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, contains, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.errors import VolumeError, disk_error
from lib.volumes.readers.opening import open_file, split_dataset
from lib.volumes.study import StudyItem
from lib.volumes.writers.chunked_target import PrecomputedTarget, ZarrTarget
from lib.volumes.writers.hdf5_target import Hdf5Target
from lib.volumes.writers.target import LabelTarget, TargetSpec
from lib.volumes.writers.tiff_target import TiffTarget
from lib.volumes.writing import UNKNOWN_ID, Progress

Label = Literal["final", "instance", "classes", "predicted", "current"]
UNCERTAIN = 255
OBJECTS: tuple[Label, ...] = ("instance", "predicted", "current")
TAGS: dict[Label, str] = {
    "final": "final", "instance": "instance", "classes": "original",
    "predicted": "instance_predicted",
}  # fmt: skip
"""Where the labels lie that are files; current objects are read by their owner."""
DATASETS: dict[Label, str] = {
    "final": "volumes/labels/semantic",
    "instance": "volumes/labels/neuron_ids",
    "classes": "volumes/predictions/semantic",
    "predicted": "volumes/predictions/neuron_ids",
    "current": "volumes/labels/current_objects",
}


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Args:
        target: FILE.h5[:DATASET], FILE.tif, DIR.zarr[:DATASET] or precomputed://DIR.
        label: "final" (annotated classes), "instance" (annotated ids), "classes" and
            "predicted" (what the machine said of either), "current" (ids as people corrected
            them; `export_item` is given them).
        encoding: of classes; "plan" has no groups and class sets, they become 255.
        crop_only: the item's voxels alone instead of the whole frame of its source.
        replace: write over an existing file or dataset; without it an existing HDF5, Zarr or
            Precomputed target of the same frame is filled in.
        id_offset: added to ids, so that objects of several items differ.
    """

    target: str
    label: Label = "final"
    encoding: EncodingName = "canonical"
    crop_only: bool = False
    replace: bool = False
    id_offset: int = 0


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        text: a line that says what was written where.
        highest: the largest id, `id_offset` included; 0 for classes.
    """

    text: str
    highest: int


def export_item(
    request: ExportRequest,
    item: StudyItem,
    progress: Progress | None = None,
    values: LazyImage | None = None,
) -> Exported:
    """Write one label of an item.

    Args:
        values: (X, Y, Z) the label, where it is not the file of its tag.

    Outside the item the target holds what it held, or: 0 (canonical classes), 255 (plan
    classes), 2^32 - 1 (ids); Precomputed knows only 0 there.

    Raises:
        VolumeError: no such label, a target of another frame or kind, or a full disk.
    """
    if values is None and not item.has_label(TAGS[request.label]):
        raise VolumeError(item.study.root, f"item {item.id} has no {request.label} label")
    frame, place = _frame(item, request.crop_only)
    kind = _target_kind(request.target)
    path, dataset = split_dataset(request.target.removeprefix("precomputed://"))
    spec = TargetSpec(
        path=path,
        dataset=dataset or DATASETS[request.label],
        frame=frame,
        place=place,
        dtype=np.dtype(np.uint32 if request.label in OBJECTS else np.uint8),
        voxel_size_nm=item.voxel_size_nm,
        outside=_outside(request),
        replace=request.replace,
    )
    if kind is PrecomputedTarget and spec.outside == UNCERTAIN and frame != place:
        raise VolumeError(
            request.target, "Precomputed reads 0, a class of the plan, where nothing is written",
            remedy="use --encoding canonical or --crop-only",
        )  # fmt: skip
    try:
        with kind(spec) as target:
            table = target.attributes.get("class_sets", {})
            codes = _Codes(request, item, {int(k): list(v) for k, v in table.items()})
            with _opened(request, item, values) as source:
                target.write(
                    lambda box: codes.translate(np.asarray(source[box_slices(box)])), progress
                )
            if codes.table:
                target.set_attributes({"class_sets": {str(k): v for k, v in codes.table.items()}})
    except OSError as error:
        raise disk_error(path, error) from error
    x, y, z = box_origin(place)
    text = (
        f"{item.id}: {request.label} labels written to {spec.where} at voxel "
        f"(x, y, z) ({x}, {y}, {z}) of {' x '.join(str(n) for n in box_shape(frame))}"
    )
    return Exported(text, codes.highest)


@contextmanager
def _opened(
    request: ExportRequest, item: StudyItem, values: LazyImage | None
) -> Iterator[LazyImage]:
    if values is not None:
        yield values
        return
    path = item.label_path(TAGS[request.label])
    source = open_file(path, item.study.spacing_unit, "instance")
    try:
        if source.shape != item.shape:
            raise VolumeError(path, f"shape {source.shape}", f"{item.shape} as its image")
        yield source
    finally:
        source.close()


class _Codes:
    """Turns an item's stored labels into the target's values.

    Args:
        table: codes of class sets that the target already uses; grows.
    """

    def __init__(
        self, request: ExportRequest, item: StudyItem, table: dict[int, list[str]]
    ) -> None:
        self.table = table
        self.highest = 0
        self._request = request
        self._hierarchy = item.study.hierarchy
        self._extra = item.record.class_sets
        self._lut: NDArray[np.uint8] | None = None
        if request.label == "classes":
            self._automatic = _automatic_codes(self._hierarchy)
        elif request.label == "final" and request.encoding == "canonical":
            self._lut = _shared_codes(self._extra, table, item)

    def translate(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Values of the target for stored values, same shape."""
        if self._request.label in OBJECTS:
            return self._ids(stored)
        if self._request.label == "classes":
            stored = self._automatic[np.minimum(stored, 255).astype(np.int64)]
            if self._request.encoding == "canonical":
                return stored
        if self._lut is not None:
            coded: NDArray[Any] = self._lut[stored]
            return coded
        return _plan_values(
            final_to_class_sets(stored, self._hierarchy, self._extra), self._hierarchy
        )

    def _ids(self, stored: NDArray[Any]) -> NDArray[np.uint32]:
        ids = stored.astype(np.uint32)
        objects = (ids > 0) & (ids != UNKNOWN_ID)
        if not objects.any():
            return ids
        highest = int(ids[objects].max()) + self._request.id_offset
        if highest >= UNKNOWN_ID:
            raise VolumeError(
                self._request.target, f"object {highest}", f"ids up to {UNKNOWN_ID - 1}",
                "export items one by one",
            )  # fmt: skip
        self.highest = max(self.highest, highest)
        ids[objects] += np.uint32(self._request.id_offset)
        return ids


def _automatic_codes(hierarchy: LabelHierarchy) -> NDArray[np.uint8]:
    """(256,) value of an automatic class map -> canonical code.

    Classes have the same values in both; viewers are told the groups right after them, but for
    those that are also a class.
    """
    lut = np.arange(256, dtype=np.uint8)
    known = {normalize_name(name) for name in hierarchy.class_names}
    value = hierarchy.num_classes
    for k, name in enumerate(hierarchy.group_names):
        if normalize_name(name) not in known:
            value += 1
            lut[value] = GROUP_BASE + k
    return lut


def _plan_values(class_sets: NDArray[np.int32], hierarchy: LabelHierarchy) -> NDArray[np.uint8]:
    plan = np.full(class_sets.shape, UNCERTAIN, np.uint8)
    for c in range(hierarchy.num_classes):
        plan[class_sets == 1 << c] = c
    return plan


def _shared_codes(
    own: Mapping[int, list[str]], table: dict[int, list[str]], item: StudyItem
) -> NDArray[np.uint8]:
    """Codes of class sets differ from item to item; a target has one table for all."""
    lut = np.arange(256, dtype=np.uint8)
    hierarchy = item.study.hierarchy
    known = {hierarchy.set_of(names): code for code, names in table.items()}
    for code, names in own.items():
        class_set = hierarchy.set_of(names)
        if class_set not in known:
            free = [c for c in range(SET_FIRST, SET_LAST + 1) if c not in table]
            if not free:
                raise VolumeError(item.id, "no code left in the target for its class sets")
            known[class_set] = code if code in free else free[0]
            table[known[class_set]] = list(names)
        lut[code] = known[class_set]
    return lut


def _frame(item: StudyItem, crop_only: bool) -> tuple[Box, Box]:
    """The frame of the target and the item's box in it, in the source's own coordinates."""
    record = item.record
    place = whole_box(item.shape, record.origin_voxels)
    source = record.source
    if crop_only or "shape" not in source:
        return place, place
    x, y, z = (int(n) for n in source["shape"])
    a, b, c = (int(n) for n in source.get("origin", (0, 0, 0)))
    frame = whole_box((x, y, z), (a, b, c))
    if not contains(frame, place):
        raise VolumeError(
            item.study.root, f"item {item.id} at {place}", f"a place inside its source {frame}",
            "correct its record, or use --crop-only",
        )  # fmt: skip
    return frame, place


def _outside(request: ExportRequest) -> int:
    if request.label in OBJECTS:
        return UNKNOWN_ID
    return UNCERTAIN if request.encoding == "plan" else 0


def _target_kind(text: str) -> type[LabelTarget]:
    if text.startswith("precomputed://"):
        return PrecomputedTarget
    name = split_dataset(text)[0].name.lower()
    if name.endswith((".h5", ".hdf5", ".hdf")):
        return Hdf5Target
    if name.endswith((".tif", ".tiff")):
        return TiffTarget
    if name.endswith(".zarr"):
        return ZarrTarget
    raise VolumeError(
        text, "a target that is not known",
        "FILE.h5[:DATASET], FILE.tif, DIR.zarr[:DATASET] or precomputed://DIR",
    )  # fmt: skip
