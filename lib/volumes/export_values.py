"""What an export writes for what is stored: ids and classes, and what stands for unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import (
    GROUP_BASE,
    SET_FIRST,
    SET_LAST,
    final_codes,
    final_to_class_sets,
)
from lib.labels.hierarchy import LabelHierarchy, normalize_name
from lib.labels.value_maps import EncodingName
from lib.volumes.disk_ids import UNKNOWN_ID
from lib.volumes.errors import VolumeError
from lib.volumes.study import StudyItem

Label = Literal["final", "instance", "classes", "predicted", "current"]
UNCERTAIN = 255
OBJECTS: tuple[Label, ...] = ("instance", "predicted", "current")
TAGS: dict[Label, str] = {
    "final": "final", "instance": "instance", "classes": "original",
    "predicted": "instance_predicted",
}  # fmt: skip
"""Where the labels lie that are files; current objects are read by their owner."""
MADE_BY: dict[Label, str] = {
    "final": "submit labels from a viewer, or import some",
    "instance": "submit objects from a viewer, or import some",
    "classes": "run predict --studies, which makes it",
    "predicted": "run instances from a viewer, or predict --studies --task instances",
}
"""How an item comes to each of them."""
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
        target: FILE.h5[:DATASET], FILE.tif, DIR.zarr[:DATASET], DIR.ome.zarr[:GROUP],
            DIR.n5[:DATASET] or precomputed://DIR.
        label: "final" (annotated classes), "instance" (annotated ids), "classes" and
            "predicted" (what the machine said of either), "current" (ids as people corrected
            them; `export_item` is given them).
        encoding: of classes; "plan" has no groups and class sets, they become 255.
        crop_only: the item's voxels alone instead of the whole frame of its source.
        replace: write over an existing file or dataset; without it an existing HDF5, Zarr or
            Precomputed target of the same frame is filled in.
        id_offset: added to ids, so that objects of several items differ.
        unknown: value of voxels of which nothing is known; None: 0 for ids, which is what
            other viewers show as nothing, and what the encoding of classes says.
    """

    target: str
    label: Label = "final"
    encoding: EncodingName = "canonical"
    crop_only: bool = False
    replace: bool = False
    id_offset: int = 0
    unknown: int | None = None

    @property
    def outside(self) -> int:
        """Value of voxels that no item covers."""
        if self.unknown is not None:
            return self.unknown
        return UNCERTAIN if self.label not in OBJECTS and self.encoding == "plan" else 0


class Codes:
    """Turns an item's stored labels into the target's values.

    Args:
        table: codes of class sets that the target already uses; grows.
    """

    def __init__(
        self, request: ExportRequest, item: StudyItem, table: dict[int, list[str]]
    ) -> None:
        self.table = table
        self.highest = 0
        self._request, self._item_id = request, item.id
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
        values = self._classes(stored)
        if self._request.unknown is not None:
            blank = (UNCERTAIN,) if self._request.encoding == "plan" else (0, UNCERTAIN)
            values = np.where(np.isin(values, blank), np.uint8(self._request.unknown), values)
        return values

    def _classes(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        if self._request.label == "classes":
            found = self._automatic[np.minimum(stored, 255).astype(np.int64)]
            if self._request.encoding == "canonical":
                return found
            stored = found
        if self._lut is not None:
            coded: NDArray[np.uint8] = self._lut[stored]
            return coded
        return _plan_values(
            final_to_class_sets(stored, self._hierarchy, self._extra), self._hierarchy
        )

    def _ids(self, stored: NDArray[Any]) -> NDArray[np.uint32]:
        ids = stored.astype(np.uint32)
        unknown, blank = self._request.unknown or 0, ids == UNKNOWN_ID
        objects = (ids > 0) & ~blank
        if not objects.any():
            return np.where(blank, np.uint32(unknown), ids)
        highest = int(ids[objects].max()) + self._request.id_offset
        if highest >= UNKNOWN_ID:
            raise VolumeError(
                self._request.target, f"object {highest}", f"ids up to {UNKNOWN_ID - 1}",
                "export items one by one",
            )  # fmt: skip
        self.highest = max(self.highest, highest)
        ids[objects] += np.uint32(self._request.id_offset)
        if unknown and (ids[objects] == unknown).any():
            raise VolumeError(
                self._item_id, f"an object with id {unknown}", "a value that no object has",
                "choose another --unknown",
            )  # fmt: skip
        ids[blank] = unknown
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


def check_unknown(request: ExportRequest, item: StudyItem) -> None:
    """The value of unknown voxels must say nothing else.

    Raises:
        VolumeError: it is that of a class, or does not fit the target's type.
    """
    value = request.unknown
    if value is None:
        return
    if request.label in OBJECTS:
        free, allowed = 0 <= value <= UNKNOWN_ID, f"0 to {UNKNOWN_ID}"
    else:
        hierarchy = item.study.hierarchy
        taken = set(range(hierarchy.num_classes))
        if request.encoding == "canonical":
            taken = set(final_codes(hierarchy, item.record.class_sets)) - {0, UNCERTAIN}
            taken |= set(range(SET_FIRST, SET_LAST + 1))
        free = 0 <= value <= 255 and value not in taken
        allowed = "0 to 255, and no value of a class, group or class set"
    if not free:
        raise VolumeError(item.id, f"--unknown {value} for {request.label} labels", allowed)
