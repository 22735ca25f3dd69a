"""One image of a study with its record and labels."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import UNCERTAIN, LabelValueError, final_to_class_sets
from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.atomic import write_json
from lib.volumes.boxes import Box, box_shape, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.disk_ids import from_disk_ids
from lib.volumes.errors import VolumeError
from lib.volumes.listing import leads_out
from lib.volumes.nifti import NiftiSource
from lib.volumes.readers.opening import open_file
from lib.volumes.record import ItemRecord, read_record, record_path
from lib.volumes.seen import as_seen
from lib.volumes.source import Source
from lib.volumes.writing import Sliceable, label_file

if TYPE_CHECKING:
    from lib.volumes.study import Study

TOUCHED = "touched"
"""Tag of the map that is 1 where a person decided, and 0 where the machine's proposal was left."""
LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".tif", ".png")

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
        record = self._read_record()
        if record.size_assumed:
            why = f" ({self.source.info.size_fault})" if self.source.info.size_fault else ""
            logger.warning("%s%s", record.warning(), why)
        return record

    def _read_record(self) -> ItemRecord:
        path = record_path(self.study.root, self.id)
        return read_record(path, self.id, self.source.info.voxel_size_nm)

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

    @property
    def bright_membranes(self) -> bool:
        """Whether membranes are brighter than what they enclose."""
        return self.record.membranes_are_bright(self.study.bright_membranes)

    def open_seen(self) -> LazyImage:
        """The image with the contrast that the network sees."""
        return as_seen(self.open_image(), self.bright_membranes)

    def label_path(self, tag: str) -> Path:
        """The label file of a tag; where it would be written if there is none.

        A link out of the study is none, unless the study follows them.
        """
        return self._label_path(tag) or label_file(self.study.root, tag, self.id)

    def _label_path(self, tag: str) -> Path | None:
        root = self.study.root
        for suffix in LABEL_SUFFIXES:
            path = Path(f"{root}/labels/{tag}/{self.id}{suffix}")  # many ask: joining takes longer
            if path.exists() and (self.study.follow_links or not leads_out(path, root)):
                return path
        return None

    def has_label(self, tag: str) -> bool:
        """Whether there is a label of this tag."""
        return self._label_path(tag) is not None

    def check_labels(self) -> None:
        """Open the labels, and the image where there are any.

        Raises:
            VolumeError: one cannot be read, or is not on the image's grid.
        """
        for tag in ("final", "instance", TOUCHED):
            if self.has_label(tag):
                self._open_label(tag)

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
        except LabelValueError:
            # A submission since this item was opened may have added class sets: its record is
            # in place before its map is.
            now = self._read_record().class_sets
        try:
            return final_to_class_sets(final, self.study.hierarchy, now)
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
        return self.read_label("final", box)

    def read_touched(self, box: Box) -> NDArray[np.bool_] | None:
        """Where a person decided what the labels of a box say; None: everywhere."""
        if not self.has_label(TOUCHED):
            return None
        touched: NDArray[np.bool_] = self.read_label(TOUCHED, box) != 0
        return touched

    def read_instances(self, box: Box | None = None, shown: bool = False) -> NDArray[np.int64]:
        """Instance ids of a box: > 0 an object, 0 none, -1 unknown.

        A voxel that `final` calls uncertain is unknown in its object as well.

        Args:
            shown: see `read_class_sets`.

        Returns:
            (X, Y, Z) int64; -1 everywhere when there is no instance label.

        Raises:
            VolumeError: the label does not fit the image or holds what is no id.
        """
        box = whole_box(self.shape) if box is None else box
        if not self.has_label("instance"):
            return np.full(box_shape(box), IGNORE_INDEX, np.int64)
        stored = self.read_label("instance", box)
        try:
            ids = from_disk_ids(stored)
        except ValueError as error:
            raise VolumeError(self.label_path("instance"), str(error)) from error
        if not shown and (touched := self.read_touched(box)) is not None:
            ids[~touched] = IGNORE_INDEX
        if self.has_label("final"):
            ids[self.read_final(box) == UNCERTAIN] = IGNORE_INDEX
        return ids

    @property
    def source_nm(self) -> tuple[float, float, float]:
        """Where the coordinates of the item's source begin in physical space, x, y, z."""
        source = self.record.source
        stated = source.get("offset_nm")
        if not isinstance(stated, list) or len(stated) != 3:
            return 0.0, 0.0, 0.0
        origin = source.get("origin", (0, 0, 0))
        rows = zip(stated, origin, self.voxel_size_nm, strict=True)
        x, y, z = (float(place) - int(first) * size for place, first, size in rows)
        return x, y, z

    def write_record(self, record: ItemRecord) -> None:
        """Replace the item's record."""
        assert record.id == self.id, (record.id, self.id)
        write_json(record_path(self.study.root, self.id), record.to_dict())
        self.__dict__["record"] = record

    @cached_property
    def source(self) -> Source:
        """The image's file."""
        return open_file(self.image_path, self.study.spacing_unit)

    def read_label(self, tag: str, box: Box) -> NDArray[Any]:
        """A box of a label that is there, as stored.

        Raises:
            VolumeError: it cannot be read, or is not on the image's grid.
        """
        return self._open_label(tag).read(box)

    def _open_label(self, tag: str) -> Source:
        """A file that stays open: compressed labels go on from where they are."""
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
        return self._labels[tag][1]
