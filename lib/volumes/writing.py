"""Write one study item in a single pass over its voxels, with bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import UNCERTAIN, class_sets_to_final
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.volumes.atomic import StagedFiles, json_bytes
from lib.volumes.boxes import Box, Triple, box_shape, box_slices, slabs, whole_box
from lib.volumes.disk_ids import UNKNOWN_ID, to_disk_ids
from lib.volumes.errors import VolumeError
from lib.volumes.nifti import nifti_header
from lib.volumes.record import ItemRecord, record_path

SLAB_BYTES = 32 * 2**20
LABEL_BYTES_PER_VOXEL = 24
"""What a voxel of each kind of label costs while it is converted: values and their copies."""

Progress = Callable[[int], None]
"""Told the number of voxels just written."""


class Sliceable(Protocol):
    """An (X, Y, Z) volume: an array, a memory map, a Source."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any) -> Any: ...


@dataclass
class LabelCounts:
    """What the labels of an item hold, counted while they are written.

    Args:
        sets: class set -> voxels.
        objects: the ids that occur.
        unknown_ids: voxels whose instance is unknown.
        grey: lowest and highest grey value of the image; None: nobody looked, as where no
            voxel is copied.
    """

    sets: dict[int, int] = field(default_factory=dict)
    objects: set[int] = field(default_factory=set)
    unknown_ids: int = 0
    voxels: int = 0
    grey: tuple[int, int] | None = None

    def shares(self, hierarchy: LabelHierarchy) -> dict[str, float]:
        """Part of the voxels for each class set, by its name; "unknown" is always there."""
        total = max(1, self.voxels)
        shares = {hierarchy.describe(s): n / total for s, n in sorted(self.sets.items())}
        return {**shares, "unknown": shares.get("unknown", 0.0)}


class GzipStream:
    """A gzip file written from (X, Y, Z) slabs, without a time stamp: same labels, same bytes."""

    def __init__(self, file: BinaryIO, level: int = 1) -> None:
        self._file = file
        self._packer = zlib.compressobj(level, zlib.DEFLATED, 31)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._file.write(self._packer.compress(data))

    def finish(self) -> None:
        """Write what is still held back; the file itself stays open."""
        self._file.write(self._packer.flush())


def write_item(
    root: Path,
    record: ItemRecord,
    hierarchy: LabelHierarchy,
    image: Sliceable,
    class_sets: Sliceable | None = None,
    instance: Sliceable | None = None,
    progress: Progress | None = None,
    chunk_depth: int = 1,
    uncertain: Sliceable | None = None,
) -> tuple[ItemRecord, LabelCounts]:
    """Write image, labels and record of an item; all of them appear, or none.

    Args:
        root: the study's folder.
        record: without codes and shares, which are counted here.
        image: (X, Y, Z) uint8 or uint16.
        class_sets: (X, Y, Z) bit masks.
        instance: (X, Y, Z) integers: > 0 an object, 0 none, -1 unknown.
        progress: told the voxels written after each slab.
        chunk_depth: sections that the image's file decodes together.
        uncertain: (X, Y, Z) bool; such voxels are unknown in class and object.

    Returns:
        The record as written, and the counts for a summary.

    Raises:
        VolumeError: a volume of another shape or type, an id over 2^32 - 2.
        OSError: the disk is full; nothing is left behind.
    """
    shape = _check(record, image, class_sets, instance)
    counts = LabelCounts(voxels=int(np.prod(shape)))
    size = record.voxel_size_nm
    with StagedFiles() as staged:
        # The image comes last: a datastore sees the item when its labels are in place.
        labels: list[_FinalWriter | _InstanceWriter] = []
        table = dict(record.class_sets)
        if class_sets is not None:
            final = label_stream(staged, root, "final", record.id, shape, np.uint8, size)
            labels.append(_FinalWriter(final, class_sets, hierarchy, table, counts, uncertain))
        if instance is not None:
            ids = label_stream(staged, root, "instance", record.id, shape, np.uint32, size)
            labels.append(_InstanceWriter(ids, instance, counts, uncertain))
        note = staged.create(record_path(root, record.id))
        plain = staged.create(root / f"{record.id}.nii")
        plain.write(nifti_header(shape, image.dtype, size))
        grey: tuple[int, int] | None = None
        cost = 2 * np.dtype(image.dtype).itemsize + LABEL_BYTES_PER_VOXEL * len(labels)
        for slab in slabs(whole_box(shape), cost, SLAB_BYTES, chunk_depth):
            part = np.asarray(image[box_slices(slab)])
            low, high = int(part.min()), int(part.max())
            grey = (low, high) if grey is None else (min(low, grey[0]), max(high, grey[1]))
            plain.write(file_bytes(part))
            for label in labels:
                label.write(slab)
            if progress is not None:
                progress(int(np.prod(box_shape(slab))))
        for label in labels:
            label.stream.finish()
        counts.grey = grey
        known = counts.shares(hierarchy) if class_sets is not None else {"unknown": 1.0}
        record = record.changed(class_sets=table, known_share=known)
        note.write(json_bytes(record.to_dict()))
        staged.commit()
    return record, counts


@dataclass
class _FinalWriter:
    """Encodes class sets slab by slab; adds codes to `table` and voxels to `counts`."""

    stream: GzipStream
    source: Sliceable
    hierarchy: LabelHierarchy
    table: dict[int, list[str]]
    counts: LabelCounts
    uncertain: Sliceable | None = None

    def write(self, slab: Box) -> None:
        part = np.asarray(self.source[box_slices(slab)]).astype(np.int32, copy=False)
        unknown = None
        if self.uncertain is not None:
            unknown = np.asarray(self.uncertain[box_slices(slab)], np.bool_)
            part = np.where(unknown, np.int32(self.hierarchy.unknown), part)
        codes, grown = class_sets_to_final(part, self.hierarchy, self.table)
        self.table.update(grown)
        if unknown is not None:
            codes[unknown] = UNCERTAIN
        count_sets(self.counts, part)
        self.stream.write(file_bytes(codes))


@dataclass
class _InstanceWriter:
    """Writes ids slab by slab and counts objects."""

    stream: GzipStream
    source: Sliceable
    counts: LabelCounts
    uncertain: Sliceable | None = None

    def write(self, slab: Box) -> None:
        part = np.asarray(self.source[box_slices(slab)])
        if self.uncertain is not None:
            unknown = np.asarray(self.uncertain[box_slices(slab)], np.bool_)
            part = np.where(unknown, np.asarray(IGNORE_INDEX, np.int64), part)
        self.stream.write(file_bytes(_disk_ids(part, self.counts, slab)))


def label_file(root: Path, tag: str, item_id: str) -> Path:
    """Where a derived label of an item lies."""
    return root / "labels" / tag / f"{item_id}.nii.gz"


def write_label(
    staged: StagedFiles,
    target: Path,
    label: NDArray[Any],
    voxel_size_nm: tuple[float, float, float],
) -> None:
    """Write a whole label map as .nii.gz, aside; the caller commits.

    Args:
        label: (X, Y, Z) uint8, uint16 or uint32.
    """
    x, y, z = label.shape
    stream = GzipStream(staged.create(target))
    stream.write(nifti_header((x, y, z), label.dtype, voxel_size_nm))
    for slab in slabs(whole_box((x, y, z)), label.dtype.itemsize, SLAB_BYTES):
        stream.write(file_bytes(label[box_slices(slab)]))
    stream.finish()


def label_stream(
    staged: StagedFiles,
    root: Path,
    tag: str,
    item_id: str,
    shape: Triple,
    dtype: Any,
    voxel_size_nm: tuple[float, float, float],
    affine: NDArray[np.float64] | None = None,
) -> GzipStream:
    """Begin a label of an item, aside; slabs follow, then `finish`.

    Args:
        affine: of an image that others wrote; by default the voxel size alone.
    """
    stream = GzipStream(staged.create(label_file(root, tag, item_id)))
    stream.write(nifti_header(shape, dtype, voxel_size_nm, affine))
    return stream


def _check(
    record: ItemRecord,
    image: Sliceable,
    class_sets: Sliceable | None,
    instance: Sliceable | None,
) -> Triple:
    """The item's shape, when everything fits."""
    if len(image.shape) != 3 or min(image.shape) < 1:
        raise VolumeError(record.id, f"an image of shape {tuple(image.shape)}", "x, y, z, none 0")
    if np.dtype(image.dtype) not in (np.uint8, np.uint16):
        raise VolumeError(record.id, f"an image of type {image.dtype}", "uint8 or uint16")
    for name, label in (("class sets", class_sets), ("instance ids", instance)):
        if label is not None and tuple(label.shape) != tuple(image.shape):
            raise VolumeError(
                record.id, f"{name} of shape {tuple(label.shape)}", f"{tuple(image.shape)}"
            )
    x, y, z = image.shape
    return int(x), int(y), int(z)


def file_bytes(part: NDArray[Any]) -> memoryview:
    """Voxels in file order: x fastest, little endian."""
    part = part.astype(part.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(part.T).data.cast("B")


def count_sets(counts: LabelCounts, part: NDArray[np.int32]) -> None:
    """Add the class sets of (X, Y, Z) voxels to the counts."""
    if int(part.max()) < 1 << 20:
        found = np.bincount(part.ravel())
        for class_set in np.flatnonzero(found):
            key = int(class_set)
            counts.sets[key] = counts.sets.get(key, 0) + int(found[class_set])
        return
    for class_set, n in zip(*np.unique(part, return_counts=True), strict=True):
        counts.sets[int(class_set)] = counts.sets.get(int(class_set), 0) + int(n)


def _disk_ids(part: NDArray[Any], counts: LabelCounts, slab: Box) -> NDArray[np.uint32]:
    low, high = int(part.min()), int(part.max())
    if low < IGNORE_INDEX or high >= UNKNOWN_ID:
        bad = (part < IGNORE_INDEX) | (part >= UNKNOWN_ID)
        at = np.unravel_index(int(bad.argmax()), bad.shape)
        place = tuple(int(i) + start for i, (start, _) in zip(at, slab, strict=True))
        raise VolumeError(
            "instance ids", f"id {int(part[at])} at voxel {place}", f"-1 to {UNKNOWN_ID - 1}"
        )
    stored = to_disk_ids(part)
    present = np.unique(stored)
    counts.objects.update(int(i) for i in present if 0 < i < UNKNOWN_ID)
    counts.unknown_ids += int((stored == UNKNOWN_ID).sum())
    return stored
