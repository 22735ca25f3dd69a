"""The objects of an item that are measured, drawn or exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import parse_segment_name
from lib.metrics.object_scores import contingency
from lib.proofread.store import MACHINE_TAG, ObjectStore
from lib.volumes.boxes import Box, box_slices, slabs, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_file
from lib.volumes.study import StudyItem
from lib.volumes.writing import SLAB_BYTES

Which = Literal["current", "predicted", "instance"]
AUTOMATIC = "original"


class NoObjects(VolumeError):
    """An item has no objects of the kind asked for; other items may."""


@dataclass(frozen=True)
class ItemObjects:
    """Objects with what is known of them.

    Args:
        ids: (X, Y, Z) uint32, 0 none, unknown counts as none.
        voxel_size_nm: (x, y, z).
        origin_voxels: place of the first voxel in the source.
        names: id -> name, of those that people named.
        classes: id -> fine class; those of unknown class are missing.
        accepted: ids that people accepted.
        source_nm: where the source's coordinates begin in physical space, (x, y, z).
    """

    ids: NDArray[np.uint32]
    voxel_size_nm: tuple[float, float, float]
    origin_voxels: tuple[int, int, int]
    names: Mapping[int, str]
    classes: Mapping[int, int]
    accepted: frozenset[int]
    source_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def offset_nm(self) -> tuple[float, float, float]:
        """Physical place of the first voxel's corner, (x, y, z), as `export` states it."""
        rows = zip(self.origin_voxels, self.voxel_size_nm, self.source_nm, strict=True)
        x, y, z = (o * size + place for o, size, place in rows)
        return x, y, z


def lazy_objects(item: StudyItem, which: Which) -> LazyImage:
    """The map of an item's objects, (X, Y, Z) uint32, read box by box.

    Raises:
        NoObjects: there is none.
        VolumeError: it does not fit.
    """
    if which == "instance":
        return _Known(item)
    objects, warnings = ObjectStore(item.study.root, 1).open(item.id, item.shape)
    if warnings:
        raise VolumeError(item.label_path(MACHINE_TAG), warnings[0])
    if which == "predicted":
        if objects.machine is None:
            raise NoObjects(
                item.study.root, f"item {item.id} has no objects of the machine",
                remedy=f"run `main.py predict --task instances --items {item.id}`",
            )  # fmt: skip
        return _Machine(objects.machine.ids, item.shape)
    if objects.empty:
        raise NoObjects(
            item.study.root, f"item {item.id} has no current objects",
            remedy="predict instances, or accept objects in a viewer; --objects instance takes "
            "the annotated ones",
        )  # fmt: skip
    return objects


def objects_of(item: StudyItem, which: Which) -> ItemObjects:
    """An item's objects, in memory.

    Raises:
        NoObjects: there are none.
    """
    source = lazy_objects(item, which)
    ids = np.zeros(item.shape, np.uint32, order="F")
    for slab in slabs(whole_box(item.shape), 8, SLAB_BYTES):
        ids[box_slices(slab)] = source[box_slices(slab)]
    objects, _ = ObjectStore(item.study.root, 1).open(item.id, item.shape)
    standing = objects.standing()
    people = which == "current"
    names = dict(standing.names) if people else _submitted_names(item)
    classes = _voted(item, ids)
    for object_id, name in names.items():
        if (fine := _class_named(name, item.study.hierarchy)) is not None:
            classes[object_id] = fine
    return ItemObjects(
        ids, item.voxel_size_nm, item.record.origin_voxels, names, classes,
        standing.accepted if people else frozenset(), item.source_nm,
    )  # fmt: skip


class _Known:
    """Annotated ids with unknown as none."""

    def __init__(self, item: StudyItem) -> None:
        if not item.has_label("instance"):
            raise NoObjects(
                item.study.root, f"item {item.id} has no instance label",
                remedy="annotate objects, or import them with --instance; --objects current "
                "takes those of the machine, as people corrected them",
            )  # fmt: skip
        self._item = item
        self.shape, self.dtype = item.shape, np.dtype(np.uint32)

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray[np.uint32]:
        x, y, z = (s.indices(n)[:2] for s, n in zip(index, self.shape, strict=True))
        found = self._item.read_instances((x, y, z), shown=True)
        return np.maximum(found, 0).astype(np.uint32)


class _Machine:
    """Ids of the machine, of whatever type they were stored in."""

    def __init__(self, ids: LazyImage, shape: tuple[int, int, int]) -> None:
        self._ids = ids
        self.shape, self.dtype = shape, np.dtype(np.uint32)

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray[np.uint32]:
        return np.asarray(self._ids[index]).astype(np.uint32)


def _submitted_names(item: StudyItem) -> dict[int, str]:
    names = item.record.extra.get("objects", {})
    return {int(i): str(n) for i, n in names.items()}


def _class_named(name: str, hierarchy: LabelHierarchy) -> int | None:
    """The fine class that an object's name says, None for a group or a free name."""
    members = hierarchy.members(parse_segment_name(name, hierarchy).class_set)
    return members[0] if len(members) == 1 else None


def _voted(item: StudyItem, ids: NDArray[np.uint32]) -> dict[int, int]:
    """The class that most of an object's voxels have: annotated, or else as the machine says."""
    votes: dict[int, dict[int, int]] = {}
    automatic = item.label_path(AUTOMATIC)
    source = open_file(automatic, item.study.spacing_unit) if automatic.exists() else None
    if source is not None and source.shape != item.shape:
        source = None
    for slab in slabs(whole_box(item.shape), 24, SLAB_BYTES):
        classes = _annotated(item, slab)
        if source is not None:  # classes come first among its values, in their order
            machine = source.read(slab).astype(np.int64)
            machine[machine > item.study.hierarchy.num_classes] = 0
            classes = np.where(classes > 0, classes, machine)
        table = contingency(ids[box_slices(slab)], classes)
        rows = zip(table.truth.tolist(), table.guess.tolist(), table.counts.tolist(), strict=True)
        for object_id, value, count in rows:
            if object_id and value:
                mine = votes.setdefault(object_id, {})
                mine[value] = mine.get(value, 0) + count
    return {i: max(mine, key=lambda v: mine[v]) - 1 for i, mine in votes.items()}


def _annotated(item: StudyItem, box: Box) -> NDArray[np.int64]:
    """Fine class + 1; 0 where it is not known to be one class."""
    sets = item.read_class_sets(box, shown=True)
    found = np.zeros(sets.shape, np.int64)
    for c in range(item.study.hierarchy.num_classes):
        found[sets == 1 << c] = c + 1
    return found
