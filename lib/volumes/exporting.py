"""Write an item's labels back, at the item's place in its source volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, contains, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.errors import VolumeError, disk_error
from lib.volumes.export_values import (
    DATASETS,
    MADE_BY,
    OBJECTS,
    TAGS,
    Codes,
    ExportRequest,
    check_unknown,
)
from lib.volumes.readers.opening import open_file, split_dataset
from lib.volumes.study import StudyItem
from lib.volumes.writers.chunked_target import N5Target, OmeZarrTarget, ZarrTarget
from lib.volumes.writers.hdf5_target import Hdf5Target
from lib.volumes.writers.precomputed_target import PrecomputedTarget
from lib.volumes.writers.target import LabelTarget, TargetSpec
from lib.volumes.writers.tiff_target import TiffTarget
from lib.volumes.writing import Progress

WITHOUT_DATASETS = (OmeZarrTarget, PrecomputedTarget, TiffTarget)
"""Kinds that hold one array, or name theirs themselves."""


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

    Outside the item the target holds what it held, or the value of unknown voxels: 0 for ids
    and canonical classes, 255 for those of the plan; N5 and Precomputed know only 0 there.

    Raises:
        VolumeError: no such label, a target of another frame or kind, or a full disk.
    """
    if values is None and not item.has_label(TAGS[request.label]):
        raise VolumeError(
            item.study.root, f"item {item.id} has no {request.label} label",
            remedy=MADE_BY[request.label],
        )  # fmt: skip
    check_unknown(request, item)
    frame, place = _frame(item, request.crop_only)
    kind = _target_kind(request.target)
    path, dataset = split_dataset(request.target.removeprefix("precomputed://"))
    spec = TargetSpec(
        path=path,
        dataset=dataset or ("" if kind in WITHOUT_DATASETS else DATASETS[request.label]),
        frame=frame,
        place=place,
        dtype=np.dtype(np.uint32 if request.label in OBJECTS else np.uint8),
        voxel_size_nm=item.voxel_size_nm,
        outside=request.outside,
        replace=request.replace,
        source_nm=item.source_nm,
    )
    if kind.empty not in (None, spec.outside) and frame != place:
        name = "N5" if kind is N5Target else "Precomputed"
        plan = ", a class of the plan," if request.encoding == "plan" else ""
        raise VolumeError(
            request.target, f"{name} reads {kind.empty}{plan} where nothing is written",
            f"{spec.outside} there", "use --encoding canonical without --unknown, or --crop-only",
        )  # fmt: skip
    try:
        with kind(spec) as target:
            table = target.attributes.get("class_sets", {})
            codes = Codes(request, item, {int(k): list(v) for k, v in table.items()})
            with _opened(request, item, values) as source:
                target.write(
                    lambda box: codes.translate(np.asarray(source[box_slices(box)])), progress
                )
            if codes.table:
                target.set_attributes({"class_sets": {str(k): v for k, v in codes.table.items()}})
    except OSError as error:
        raise disk_error(path, error) from error
    x, y, z = box_origin(place)
    exact = np.divide(spec.offset_nm, spec.voxel_size_nm)
    rounded = kind is PrecomputedTarget and bool((abs(exact - spec.voxel_origin) > 0.01).any())
    text = (
        f"{item.id}: {request.label} labels written to {spec.where} at voxel "
        f"(x, y, z) ({x}, {y}, {z}) of {' x '.join(str(n) for n in box_shape(frame))}"
        + (f"; its place {spec.offset_nm} nm is no whole voxel and was rounded" * rounded)
        + (f"; {item.record.warning()}" if item.record.size_assumed else "")
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


def _target_kind(text: str) -> type[LabelTarget]:
    if text.startswith("precomputed://"):
        return PrecomputedTarget
    name = split_dataset(text)[0].name.lower()
    if name.endswith((".h5", ".hdf5", ".hdf")):
        return Hdf5Target
    if name.endswith((".tif", ".tiff")):
        return TiffTarget
    if name.endswith(".ome.zarr"):
        return OmeZarrTarget
    if name.endswith(".zarr"):
        return ZarrTarget
    if name.endswith(".n5"):
        return N5Target
    raise VolumeError(
        text, "a target that is not known",
        "FILE.h5[:DATASET], FILE.tif, DIR.zarr[:DATASET], DIR.ome.zarr[:GROUP], "
        "DIR.n5[:DATASET] or precomputed://DIR",
    )  # fmt: skip
