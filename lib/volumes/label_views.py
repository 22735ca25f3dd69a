"""A source's labels as canonical labels, slab by slab, while an item is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import LabelValueError
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.labels.value_maps import ValueMap
from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    box_slices,
    intersect,
    shift_box,
    whole_box,
)
from lib.volumes.disk_ids import UNKNOWN_ID
from lib.volumes.errors import VolumeError
from lib.volumes.source import Source

LARGEST_FLOAT = 2.0**53
_UNKNOWN_IDS = (-1, UNKNOWN_ID, 2**64 - 1)
"""Ids that publications use for "unknown": CREMI writes the largest of the type."""


@dataclass
class PlacedLabel:
    """A label source and where it lies in the image.

    Args:
        source: the label.
        offset: the image's first voxel in the label's voxels (CREMI stores labels that
            cover a part of the image).
    """

    source: Source
    offset: Triple = (0, 0, 0)

    def read(self, box: Box) -> tuple[NDArray[Any], Box | None]:
        """Label values of a box of the image.

        Returns:
            The values of the part that the label covers, and that part, counted from the
            box's first voxel; (empty, None) where the label does not reach.

        Raises:
            VolumeError: NaN, a number that is not whole, or a damaged file.
        """
        wanted = shift_box(box, self.offset)
        common = intersect(wanted, whole_box(self.source.shape))
        if common is None:
            return np.zeros((0, 0, 0), np.uint8), None
        values = whole_numbers(self.source.read(common), self.source, box_origin(common))
        a, b, c = box_origin(wanted)
        return values, shift_box(common, (-a, -b, -c))


@dataclass(frozen=True)
class _Read:
    """Labels of a part: class sets before ids narrow them, ids, and where neither is known."""

    sets: NDArray[np.int32]
    ids: NDArray[np.int64]
    uncertain: NDArray[np.bool_]


@dataclass
class LabelViews:
    """The labels of one item.

    Args:
        hierarchy: the classes.
        box: the item's place in the image.
        semantic: class labels, or None.
        values: what they mean.
        instance: object ids, or None.
        zero_is_none: whether id 0 says "no object" (else it says nothing).
        origin: coordinates of the image's first voxel, for messages.
        unknown_sections: z of which nothing is known, counted from the image's first.
    """

    hierarchy: LabelHierarchy
    box: Box
    semantic: PlacedLabel | None
    values: ValueMap | None
    instance: PlacedLabel | None
    zero_is_none: bool
    origin: Triple = (0, 0, 0)
    unknown_sections: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self._last: tuple[Box, _Read] | None = None

    def class_sets(self) -> View:
        """Class sets of the item, lazily."""
        return View(box_shape(self.box), np.dtype(np.int32), self._class_sets)

    def uncertain(self) -> View:
        """Where nothing can be known, lazily; class and object are unknown there."""
        return View(box_shape(self.box), np.dtype(np.bool_), lambda p: self._read(p).uncertain)

    def instances(self) -> View | None:
        """Instance ids of the item, lazily; None when the source has none."""
        if self.instance is None:
            return None
        return View(box_shape(self.box), np.dtype(np.int64), lambda p: self._read(p).ids)

    def _class_sets(self, part: Box) -> NDArray[np.int32]:
        read = self._read(part)
        return read.sets if self.instance is None else self._narrow(read.sets, read.ids)

    def _read(self, part: Box) -> _Read:
        """The labels of a part of the item; the last one is kept, since all views ask for it."""
        if self._last is not None and self._last[0] == part:
            return self._last[1]
        here = shift_box(part, box_origin(self.box))
        shape = box_shape(part)
        sets = np.full(shape, self.hierarchy.unknown, np.int32)
        uncertain = np.zeros(shape, np.bool_)
        if self.semantic is not None and self.values is not None:
            values, covered = self.semantic.read(here)
            if covered is not None:
                place = shift_box(covered, box_origin(here))
                sets[box_slices(covered)] = self._decode(self.values, values, place)
                uncertain[box_slices(covered)] = self.values.says_uncertain(values)
        lacking = [z - here[2][0] for z in self.unknown_sections if here[2][0] <= z < here[2][1]]
        uncertain[:, :, lacking] = True
        sets[uncertain] = self.hierarchy.unknown
        ids = self._ids(here)
        ids[uncertain] = IGNORE_INDEX
        read = _Read(sets, ids, uncertain)
        self._last = part, read
        return read

    def _decode(self, table: ValueMap, values: NDArray[Any], here: Box) -> NDArray[np.int32]:
        assert self.semantic is not None
        try:
            return table.apply(values)
        except LabelValueError as error:
            start = box_origin(shift_box(here, self.origin))
            place = tuple(i + low for i, low in zip(error.index, start, strict=True))
            raise VolumeError(
                self.semantic.source.info.where,
                f"class value {error.value} at voxel (x, y, z) {place}",
                error.allowed,
                "name the right --encoding, or say what the values mean with --mapping",
            ) from error

    def _narrow(self, sets: NDArray[np.int32], ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """What ids say about classes: a voxel of an object has a class that can be one."""
        objects = np.int32(self.hierarchy.object_set)
        inside = (ids > 0) & ((sets & objects) != 0)
        sets = np.where(inside, sets & objects, sets)
        if not self.hierarchy.groups and objects != self.hierarchy.unknown:
            # Background and foreground without a hierarchy: no object is background.
            others = np.int32(self.hierarchy.unknown & ~self.hierarchy.object_set)
            sets = np.where((ids == 0) & (sets == self.hierarchy.unknown), others, sets)
        return sets.astype(np.int32, copy=False)

    def _ids(self, here: Box) -> NDArray[np.int64]:
        """Ids of a box of the image; unknown where there are none."""
        found = np.full(box_shape(here), IGNORE_INDEX, np.int64)
        if self.instance is None:
            return found
        ids, covered = self.instance.read(here)
        if covered is not None:
            place = box_origin(shift_box(covered, box_origin(shift_box(here, self.origin))))
            found[box_slices(covered)] = canonical_ids(
                ids, self.instance.source, place, self.zero_is_none
            )
        return found


@dataclass
class View:
    """Something computed for boxes that slices like an (X, Y, Z) array."""

    shape: Triple
    dtype: np.dtype[Any]
    compute: Callable[[Box], NDArray[Any]]

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray[Any]:
        x, y, z = (s.indices(n)[:2] for s, n in zip(index, self.shape, strict=True))
        return self.compute((x, y, z))


def image_view(source: Source, box: Box) -> View:
    """A part of an image as uint8 or uint16.

    Raises:
        VolumeError: float, signed values below 0 or values over 65535.
    """
    dtype = grey_type(source)

    def read(part: Box) -> NDArray[Any]:
        here = shift_box(part, box_origin(box))
        voxels = source.read(here)
        if voxels.dtype == dtype:
            return voxels
        bad = (voxels < 0) | (voxels > np.iinfo(dtype).max)
        if bad.any():
            value, place = _first(voxels, bad, box_origin(shift_box(here, source.info.origin)))
            raise VolumeError(
                source.info.where, f"grey value {value} at voxel (x, y, z) {place}",
                f"0 to {np.iinfo(dtype).max}", "convert the image to uint8 or uint16",
            )  # fmt: skip
        return voxels.astype(dtype)

    return View(box_shape(box), dtype, read)


def grey_type(source: Source) -> np.dtype[Any]:
    """The type an image is stored as: uint8 or uint16.

    Raises:
        VolumeError: float or another type that is no grey value.
    """
    dtype = source.dtype
    if dtype.kind not in "uib":
        raise VolumeError(
            source.info.where, f"an image of type {dtype}", "8 or 16 bit grey values",
            "convert it to uint8 or uint16 with the contrast you want",
        )  # fmt: skip
    return np.dtype(np.uint8 if dtype.itemsize == 1 else np.uint16)


def whole_numbers(values: NDArray[Any], source: Source, origin: Triple) -> NDArray[Any]:
    """Label values as integers; files often hold them as floats.

    Raises:
        VolumeError: NaN or a number that is not whole, with its place.
    """
    if values.dtype.kind in "ui":
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind != "f":
        raise VolumeError(source.info.where, f"labels of type {values.dtype}", "whole numbers")
    bad = ~np.isfinite(values) | (values != np.floor(values)) | (abs(values) > LARGEST_FLOAT)
    if bad.any():
        value, place = _first(values, bad, origin)
        found = "NaN" if np.isnan(value) else f"{value}"
        raise VolumeError(
            source.info.where, f"label {found} at voxel (x, y, z) {place}", "whole numbers",
            "write the labels as integers",
        )  # fmt: skip
    return values.astype(np.int64)


def canonical_ids(
    values: NDArray[Any], source: Source, origin: Triple, zero_is_none: bool
) -> NDArray[np.int64]:
    """Ids of a source as canonical ids.

    Args:
        values: integers; the largest of the type, 2^32 - 1 and -1 say "unknown".

    Returns:
        Same shape, int64: > 0 an object, 0 none, -1 unknown.

    Raises:
        VolumeError: an id below -1 or over 2^32 - 2, with its place.
    """
    unknown = np.zeros(values.shape, np.bool_)
    for value in _UNKNOWN_IDS:
        if np.iinfo(values.dtype).min <= value <= np.iinfo(values.dtype).max:
            unknown |= values == np.array(value, values.dtype)
    bad = ~unknown & ((values >= UNKNOWN_ID) | (values < 0))
    if bad.any():
        value, place = _first(values, bad, origin)
        raise VolumeError(
            source.info.where, f"instance id {value} at voxel (x, y, z) {place}",
            f"ids from 0 to {UNKNOWN_ID - 1} (2^32 - 2), which is what is stored",
            "relabel the objects with consecutive ids, for example with fastremap.renumber",
        )  # fmt: skip
    ids = np.where(unknown, 0, values).astype(np.int64)
    ids[unknown] = IGNORE_INDEX
    if not zero_is_none:
        ids[ids == 0] = IGNORE_INDEX
    return ids


def _first(values: NDArray[Any], bad: NDArray[np.bool_], origin: Triple) -> tuple[Any, Triple]:
    at = np.unravel_index(int(bad.argmax()), bad.shape)
    x, y, z = (int(i) + o for i, o in zip(at, origin, strict=True))
    return values[at], (x, y, z)
