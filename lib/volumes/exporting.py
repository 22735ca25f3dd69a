"""Write an item's labels back, at the item's place in its source volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import SET_FIRST, SET_LAST, final_to_class_sets
from lib.labels.hierarchy import LabelHierarchy
from lib.labels.value_maps import EncodingName
from lib.volumes.boxes import Box, box_origin, box_shape, contains, whole_box
from lib.volumes.errors import VolumeError, disk_error
from lib.volumes.readers.opening import open_file, split_dataset
from lib.volumes.study import StudyItem
from lib.volumes.writers.chunked_target import PrecomputedTarget, ZarrTarget
from lib.volumes.writers.hdf5_target import Hdf5Target
from lib.volumes.writers.target import LabelTarget, TargetSpec
from lib.volumes.writers.tiff_target import TiffTarget
from lib.volumes.writing import UNKNOWN_ID, Progress

Label = Literal["final", "instance"]
UNCERTAIN = 255
DATASETS: dict[Label, str] = {
    "final": "volumes/labels/semantic",
    "instance": "volumes/labels/neuron_ids",
}


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Args:
        target: FILE.h5[:DATASET], FILE.tif, DIR.zarr[:DATASET] or precomputed://DIR.
        label: "final" (classes) or "instance" (ids).
        encoding: of classes; "plan" has no groups and class sets, they become 255.
        crop_only: the item's voxels alone instead of the whole frame of its source.
        replace: write over an existing file or dataset; without it an existing HDF5, Zarr or
            Precomputed target of the same frame is filled in.
    """

    target: str
    label: Label = "final"
    encoding: EncodingName = "canonical"
    crop_only: bool = False
    replace: bool = False


def export_item(request: ExportRequest, item: StudyItem, progress: Progress | None = None) -> str:
    """Write one label of an item.

    Outside the item the target holds what it held, or: 0 (canonical classes), 255 (plan
    classes), 2^32 - 1 (ids); Precomputed knows only 0 there.

    Returns:
        A line that says what was written where.

    Raises:
        VolumeError: no such label, a target of another frame or kind, or a full disk.
    """
    if not item.has_label(request.label):
        raise VolumeError(item.study.root, f"item {item.id} has no {request.label} label")
    frame, place = _frame(item, request.crop_only)
    kind = _target_kind(request.target)
    path, dataset = split_dataset(request.target.removeprefix("precomputed://"))
    spec = TargetSpec(
        path=path,
        dataset=dataset or DATASETS[request.label],
        frame=frame,
        place=place,
        dtype=np.dtype(np.uint32 if request.label == "instance" else np.uint8),
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
            source = open_file(item.label_path(request.label), item.study.spacing_unit, "instance")
            try:
                target.write(lambda box: codes.translate(source.read(box)), progress)
            finally:
                source.close()
            if codes.table:
                target.set_attributes({"class_sets": {str(k): v for k, v in codes.table.items()}})
    except OSError as error:
        raise disk_error(path, error) from error
    x, y, z = box_origin(place)
    return (
        f"{item.id}: {request.label} labels written to {spec.where} at voxel "
        f"(x, y, z) ({x}, {y}, {z}) of {' x '.join(str(n) for n in box_shape(frame))}"
    )


class _Codes:
    """Turns an item's stored labels into the target's values.

    Args:
        table: codes of class sets that the target already uses; grows.
    """

    def __init__(
        self, request: ExportRequest, item: StudyItem, table: dict[int, list[str]]
    ) -> None:
        self.table = table
        self._request = request
        self._hierarchy = item.study.hierarchy
        self._extra = item.record.class_sets
        self._lut: NDArray[np.uint8] | None = None
        if request.label == "final" and request.encoding == "canonical":
            self._lut = _shared_codes(self._extra, table, item)

    def translate(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Values of the target for stored values, same shape."""
        if self._request.label == "instance":
            return stored.astype(np.uint32, copy=False)
        if self._lut is not None:
            coded: NDArray[Any] = self._lut[stored]
            return coded
        return _plan_values(
            final_to_class_sets(stored, self._hierarchy, self._extra), self._hierarchy
        )


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
    if request.label == "instance":
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
