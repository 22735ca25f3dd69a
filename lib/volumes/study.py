"""A study: a folder of images with their records and labels.

    <root>/<id>.nii                    image, uint8 or uint16, 1 nm written as 1 mm
    <root>/<id>.neuropil.json          its record
    <root>/labels/final/<id>.nii.gz    class map (lib/labels/encodings.py)
    <root>/labels/instance/<id>.nii.gz uint32 ids
    <root>/labels/touched/<id>.nii.gz  where a person decided; without it: everywhere
    <root>/labels/submitted/...        what annotators sent (lib/annotation/submissions.py)

A box of a larger volume is an item without voxels of its own: <id>.region.json says which
(lib/volumes/regions.py). Images that other programs put there (.nii, .nii.gz, .nrrd, single .tif
and .png sections) are items as well, see lib/volumes/listing.py; they get a record when something
is known about them.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import UNCERTAIN, LabelValueError, final_to_class_sets
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.volumes.atomic import remove_leftovers, write_json
from lib.volumes.boxes import Box, box_shape, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.listing import Listing, list_images
from lib.volumes.nifti import NiftiSource
from lib.volumes.readers.opening import open_file
from lib.volumes.record import ItemRecord, read_record, record_path
from lib.volumes.source import Source
from lib.volumes.writing import (
    LabelCounts,
    Progress,
    Sliceable,
    from_disk_ids,
    label_file,
    write_item,
)

TOUCHED = "touched"
"""Tag of the map that is 1 where a person decided, and 0 where the machine's proposal was left."""
LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".tif", ".png")
SUBMITTED_SUFFIXES = (".seg.nrrd", *LABEL_SUFFIXES)


logger = logging.getLogger(__name__)


class StudyItem:
    """One image of a study with its record and labels, read lazily.

    Args:
        study: the study it belongs to.
        item_id: its name.
        image_path: its image.
    """

    def __init__(self, study: Study, item_id: str, image_path: Path) -> None:
        self.study = study
        self.id = item_id
        self.image_path = image_path
        self._labels: dict[str, tuple[tuple[str, int, int], Source]] = {}

    def __repr__(self) -> str:
        return f"StudyItem({self.id!r})"

    @cached_property
    def record(self) -> ItemRecord:
        """The item's record as it was when first asked for; without a file, what the image says.

        Raises:
            VolumeError: a damaged record.
        """
        path = record_path(self.study.root, self.id)
        record = read_record(path, self.id, self.source.info.voxel_size_nm)
        if record.size_assumed:
            why = f" ({self.source.info.size_fault})" if self.source.info.size_fault else ""
            logger.warning("%s%s", record.warning(), why)
        return record

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """(4, 4) of the image, for files that belong to it; None: its voxel size says all.

        Viewers show an image without a voxel size with a spacing of 1.
        """
        if self.source.affine is None and self.record.size_assumed:
            return np.eye(4)
        return self.source.affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent in x, y, z."""
        return self.source.shape

    @property
    def voxel_size_nm(self) -> tuple[float, float, float]:
        """(x, y, z) in nm."""
        return self.record.voxel_size_nm

    def open_image(self) -> Sliceable:
        """The image, (X, Y, Z): a memory map where the file allows, else a lazy Source."""
        if isinstance(self.source, NiftiSource):
            mapped = self.source.memory_map()
            if mapped is not None:
                return cast(Sliceable, mapped)
        return self.source

    def label_path(self, tag: str) -> Path:
        """The label file of a tag; where it would be written if there is none."""
        for suffix in LABEL_SUFFIXES:
            path = self.study.root / "labels" / tag / f"{self.id}{suffix}"
            if path.exists():
                return path
        return label_file(self.study.root, tag, self.id)

    def has_label(self, tag: str) -> bool:
        """Whether there is a label of this tag."""
        return self.label_path(tag).exists()

    def read_class_sets(self, box: Box | None = None, shown: bool = False) -> NDArray[np.int32]:
        """Class sets of a box (of everything by default); unknown where nothing is labelled.

        Args:
            shown: also what the machine proposed and nobody touched, which is not known.

        Returns:
            (X, Y, Z) bit masks, int32.

        Raises:
            VolumeError: the label does not fit the image or holds a value of no meaning.
        """
        box = whole_box(self.shape) if box is None else box
        if not self.has_label("final"):
            return np.full(box_shape(box), self.study.hierarchy.unknown, np.int32)
        sets = self.decode_final(self.read_final(box), box)
        if not shown and (touched := self.read_touched(box)) is not None:
            sets[~touched] = self.study.hierarchy.unknown
        return sets

    def decode_final(self, final: NDArray[Any], box: Box) -> NDArray[np.int32]:
        """Class sets of a part of the `final` map that was read from `box`.

        Raises:
            VolumeError: a value of no meaning, with its place.
        """
        try:
            return final_to_class_sets(final, self.study.hierarchy, self.record.class_sets)
        except LabelValueError as error:
            place = tuple(i + low for i, (low, _) in zip(error.index, box, strict=True))
            raise VolumeError(
                self.label_path("final"), f"value {error.value} at voxel {place}", error.allowed
            ) from error

    def read_final(self, box: Box | None = None) -> NDArray[np.uint8]:
        """The `final` map of a box as stored; 0 everywhere when there is none.

        Returns:
            (X, Y, Z) uint8, or the type of a file that others wrote.
        """
        box = whole_box(self.shape) if box is None else box
        if not self.has_label("final"):
            return np.zeros(box_shape(box), np.uint8)
        return self._read_label("final", box)

    def read_touched(self, box: Box) -> NDArray[np.bool_] | None:
        """Where a person decided what the labels of a box say; None: everywhere."""
        if not self.has_label(TOUCHED):
            return None
        touched: NDArray[np.bool_] = self._read_label(TOUCHED, box) != 0
        return touched

    def read_instances(self, box: Box | None = None, shown: bool = False) -> NDArray[np.int64]:
        """Instance ids of a box: > 0 an object, 0 none, -1 unknown.

        A voxel that `final` calls uncertain is unknown in its object as well.

        Args:
            shown: see `read_class_sets`.

        Returns:
            (X, Y, Z) int64; -1 everywhere when there is no instance label.
        """
        box = whole_box(self.shape) if box is None else box
        if not self.has_label("instance"):
            return np.full(box_shape(box), IGNORE_INDEX, np.int64)
        ids = from_disk_ids(self._read_label("instance", box))
        if not shown and (touched := self.read_touched(box)) is not None:
            ids[~touched] = IGNORE_INDEX
        if self.has_label("final"):
            ids[self.read_final(box) == UNCERTAIN] = IGNORE_INDEX
        return ids

    def write_record(self, record: ItemRecord) -> None:
        """Replace the item's record."""
        assert record.id == self.id, (record.id, self.id)
        write_json(record_path(self.study.root, self.id), record.to_dict())
        self.__dict__["record"] = record

    @cached_property
    def source(self) -> Source:
        """The image's file."""
        return open_file(self.image_path, self.study.spacing_unit)

    def _read_label(self, tag: str, box: Box) -> NDArray[Any]:
        """Read from a file that stays open: compressed labels go on from where they are."""
        path = self.label_path(tag)
        state = path.stat()
        key = (str(path), state.st_ino, state.st_mtime_ns)
        if tag not in self._labels or self._labels[tag][0] != key:
            source = open_file(path, self.study.spacing_unit, "instance")
            if source.shape != self.shape:
                raise VolumeError(
                    path, f"shape {source.shape}", f"{self.shape} as {self.image_path.name}",
                    "import the label again on the image's own grid",
                )  # fmt: skip
            self._labels[tag] = key, source
        return self._labels[tag][1].read(box)


class Study:
    """A folder of items.

    Args:
        root: the folder; made by the first `add_item`.
        hierarchy: what label values mean.
        spacing_unit: of images without a record ("nm", "um" or "mm").
        follow_links: whether links that lead out of the folder are items.
    """

    def __init__(
        self,
        root: Path | str,
        hierarchy: LabelHierarchy,
        spacing_unit: str = "nm",
        follow_links: bool = True,
    ) -> None:
        self.root = Path(root)
        self.hierarchy = hierarchy
        self.spacing_unit = spacing_unit
        self.follow_links = follow_links

    def listing(self) -> Listing:
        """The images by id, and the files that are left out, with the reason."""
        return list_images(self.root, self.follow_links)

    def items(self) -> list[StudyItem]:
        """All items, sorted by id; whether one can be read shows when it is."""
        return self.items_of(self.listing())

    def items_of(self, listing: Listing) -> list[StudyItem]:
        """The items of a listing."""
        return [StudyItem(self, i, p) for i, p in listing.images.items()]

    def item(self, item_id: str) -> StudyItem:
        """One item.

        Raises:
            ValueError: no such item; the message lists those that exist.
        """
        images = self.listing().images
        if item_id not in images:
            names = ", ".join(list(images)[:20]) or "none"
            raise ValueError(f"study {self.root}: no item {item_id!r}; items: {names}")
        return StudyItem(self, item_id, images[item_id])

    def has_item(self, item_id: str) -> bool:
        """Whether there is such an item."""
        return item_id in self.listing().images

    def add_item(
        self,
        item_id: str,
        image: Sliceable,
        voxel_size_nm: tuple[float, float, float],
        class_sets: Sliceable | None = None,
        instance: Sliceable | None = None,
        *,
        uncertain: Sliceable | None = None,
        replace: bool = False,
        progress: Progress | None = None,
        chunk_depth: int = 1,
        **record_fields: Any,
    ) -> tuple[StudyItem, LabelCounts]:
        """Write an item; it appears whole or not at all.

        Args:
            item_id: its name, see `check_id`.
            image: (X, Y, Z) uint8 or uint16; sliced, never read whole.
            class_sets: (X, Y, Z) bit masks, or None when nothing is known.
            instance: (X, Y, Z) ids, -1 unknown, or None.
            uncertain: (X, Y, Z) bool, where neither class nor object can be known, or None.
            replace: write over an item of the same id that no annotator has touched.
            record_fields: further fields of ItemRecord.

        Returns:
            The item, and what its labels hold.

        Raises:
            ValueError: see `write_item`, or the id is taken.
        """
        record = ItemRecord(item_id, voxel_size_nm, **record_fields)
        self.check_free(item_id, replace)
        self.root.mkdir(parents=True, exist_ok=True)
        remove_leftovers([self.root, *(label_file(self.root, t, "").parent for t in _TAGS)])
        stale = self._other_files(item_id, class_sets is not None, instance is not None)
        record, counts = write_item(
            self.root, record, self.hierarchy, image, class_sets, instance, progress, chunk_depth,
            uncertain,
        )  # fmt: skip
        for path in stale:
            path.unlink(missing_ok=True)
        return self.item(item_id), counts

    def check_free(self, item_id: str, replace: bool = False) -> None:
        """Refuse an id whose item must not be written over.

        Raises:
            VolumeError: it exists and `replace` is not set, or annotators have submitted to it.
        """
        if not self.has_item(item_id):
            return
        if not replace:
            raise VolumeError(
                self.root, f"item {item_id} exists", remedy="choose another --id or use --replace"
            )
        submitted = self.root / "labels" / "submitted"
        kept = (submitted / "versions" / item_id).glob("[0-9]*")
        sent = any((submitted / f"{item_id}{s}").exists() for s in SUBMITTED_SUFFIXES)
        edited = (self.root / "edits" / item_id / "edits.jsonl").exists()
        if any(kept) or sent or edited:
            raise VolumeError(
                self.root,
                f"item {item_id} has {'edits' if edited else 'submissions'} of annotators, "
                "which are never overwritten",
                remedy="choose another --id",
            )

    def _other_files(self, item_id: str, final: bool, instance: bool) -> list[Path]:
        """Files of an item that is replaced and that the new item will not overwrite."""
        if not self.has_item(item_id):
            return []
        old = self.item(item_id)
        stale = [old.image_path] if old.image_path.name != f"{item_id}.nii" else []
        for tag, kept in (("final", final), ("instance", instance), (TOUCHED, False)):
            path = old.label_path(tag)
            if path.exists() and not (kept and path == label_file(self.root, tag, item_id)):
                stale.append(path)
        return stale


_TAGS = ("final", "instance")
