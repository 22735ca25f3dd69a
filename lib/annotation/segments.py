"""From what a viewer submits to canonical labels, by the names of its segments.

3D Slicer numbers the saved segments 1..n in their order in the annotator's segmentation; the
`idx` it sends counts skipped segments too and can differ from the voxel value. Neither follows
the app's classes: only the name does (../shared/notes/monai-label.md, "3D Slicer").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy, normalize_name
from lib.labels.segment_names import SegmentMeaning, keeps_number, parse_segment_name

LARGEST_ID = 2**32 - 2
LARGEST_VALUE = 2**16 - 1


@dataclass(frozen=True)
class Segment:
    """One segment of a submission.

    Args:
        name: as the annotator wrote it.
        value: its voxels' value.
        layer: the layer it lies in; layers overlap, segments of one layer do not.
    """

    name: str
    value: int
    layer: int = 0


@dataclass(frozen=True)
class Canonical:
    """Canonical labels of a part of a submission, all of one shape.

    Args:
        class_sets: int32 bit masks.
        instance: int64: > 0 an object, 0 none, -1 unknown.
        painted: bool, a segment with a meaning covers the voxel ("uncertain" is one).
        uncertain: bool, the annotator says that it cannot be known.
        conflicts: voxels where overlapping segments exclude each other.
    """

    class_sets: NDArray[np.int32]
    instance: NDArray[np.int64]
    painted: NDArray[np.bool_]
    uncertain: NDArray[np.bool_]
    conflicts: int


def number_segments(
    label_info: Sequence[Mapping[str, Any]], present: Collection[int]
) -> list[Segment]:
    """Which voxel value each entry of a `label_info` list has.

    The n-th entry has value n, as Slicer exports it. Where that cannot be (a value above the
    number of entries, or `idx` that do not ascend as Slicer's do), the values are the `idx`,
    as other clients send them.

    Args:
        label_info: [{"name": ..., "idx": ...}, ...] in the order of the saved segments.
        present: the values > 0 that occur in the label map.

    Raises:
        ValueError: an entry without a name, or a value that no entry explains.
    """
    names = []
    for i, entry in enumerate(label_info):
        name = str(entry.get("name") or "").strip()
        if not name:
            raise ValueError(f"label_info[{i}]: {dict(entry)} has no name")
        names.append(name)
    indices = [_index(entry.get("idx")) for entry in label_info]
    by_position = dict(enumerate(names, 1))
    if _counts_like_slicer(indices) and set(present) <= set(by_position):
        return [Segment(name, value) for value, name in by_position.items()]
    by_index = {idx: n for idx, n in zip(indices, names, strict=True) if idx is not None}
    if len(by_index) == len(names) and set(present) <= set(by_index):
        # Clients that count from 0 list the background first; 0 is no segment's value.
        return [Segment(name, value) for value, name in by_index.items() if value != 0]
    stray = sorted(set(present) - set(by_position) - set(by_index)) or sorted(present)
    listed = ", ".join(f"{n} (idx {i})" for n, i in zip(names, indices, strict=True)) or "none"
    raise ValueError(
        f"label value {stray[0]} belongs to none of the {len(names)} submitted segments: {listed}"
    )


@dataclass
class SubmissionTable:
    """What each segment of a submission means; turns voxels into canonical labels.

    Args:
        segments: in the annotator's order. Where two overlap and exclude each other, what
            lies inside (an organelle in a cell) wins over what is around it, whatever the
            order; else the later one holds, as it does when Slicer flattens them.
        present: the segments that have voxels, as positions in `segments`.
        hierarchy: the classes.
        mapping: names of the lab -> class or group names.
        known_objects: normalised name -> id of objects named in earlier submissions.
        taken: ids that other voxels of the item keep.
        fully_annotated: everything that the segments name is painted wherever it occurs.
        first_free: the least id for objects whose name brings none.
    """

    segments: Sequence[Segment]
    present: Collection[int]
    hierarchy: LabelHierarchy
    mapping: Mapping[str, str] = field(default_factory=dict)
    known_objects: Mapping[str, int] = field(default_factory=dict)
    taken: Collection[int] = ()
    fully_annotated: bool = False
    first_free: int = 1

    def __post_init__(self) -> None:
        self.meanings = [
            parse_segment_name(s.name, self.hierarchy, self.mapping) for s in self.segments
        ]
        self.objects = self._number_objects()
        ids = {key: i for i, key in self.objects.items()}
        count = len(self.segments) + 1
        self._sets = np.full(count, self.hierarchy.unknown, np.int32)
        self._ids = np.zeros(count, np.int64)
        self._uncertain = np.zeros(count, np.bool_)
        self._layers: dict[int, NDArray[np.int32]] = {}
        for i, (segment, meaning) in enumerate(zip(self.segments, self.meanings, strict=True), 1):
            self._sets[i] = meaning.class_set
            self._uncertain[i] = meaning.kind == "uncertain"
            if meaning.kind == "object":
                self._ids[i] = ids.get(normalize_name(segment.name), 0)
            if meaning.kind != "ignored":
                self._assign(segment, i)

    def apply(self, layers: Sequence[NDArray[Any]]) -> Canonical:
        """Canonical labels of a part of the label map.

        Args:
            layers: arrays of one shape, one for each layer; values as in the segments.
        """
        order = np.sort(np.stack([self.positions(n, v) for n, v in enumerate(layers)]), axis=0)
        shape = order.shape[1:]
        sets = np.full(shape, self.hierarchy.unknown, np.int32)
        ids = np.zeros(shape, np.int64)
        conflicts = np.zeros(shape, np.bool_)
        for position in order:
            new = self._sets[position]
            common = sets & new
            clash = common == 0
            nested = clash & (self._inside(sets) != self._inside(new))
            conflicts |= clash & ~nested
            kept = nested & self._inside(sets)  # the new segment is around what is there
            sets = np.where(kept, sets, np.where(clash, new, common)).astype(np.int32)
            own = np.where(kept, 0, self._ids[position])
            ids = np.where(own > 0, own, np.where(clash & ~kept, 0, ids))
        painted = (order > 0).any(axis=0)
        uncertain = self._uncertain[order].any(axis=0)
        sets[uncertain] = self.hierarchy.unknown
        left, left_id = self.unpainted()
        sets[~painted] = left
        no_object = (sets & self.hierarchy.object_set) == 0
        instance = np.where(ids > 0, ids, np.where(no_object, 0, IGNORE_INDEX))
        instance[uncertain] = IGNORE_INDEX
        instance[~painted] = left_id
        return Canonical(sets, instance, painted, uncertain, int(conflicts.sum()))

    def unpainted(self) -> tuple[int, int]:
        """Class set and instance id of a voxel that no segment covers.

        Unknown, unless the item is fully annotated: then it is none of the painted classes.
        Objects of unknown class rule out no class, but they do say that what they leave out
        is no object.
        """
        unknown = self.hierarchy.unknown
        if not self.fully_annotated:
            return unknown, IGNORE_INDEX
        anything = self.hierarchy.object_set or unknown
        painted, objects = 0, False
        for meaning in self._present_meanings():
            if meaning.kind == "object" and meaning.class_set == anything:
                objects = True
            elif meaning.kind in ("class", "group", "object"):
                painted |= meaning.class_set
        left = unknown & ~painted or unknown
        no_object = objects or (left & self.hierarchy.object_set) == 0
        return left, 0 if no_object else IGNORE_INDEX

    def present_names(self) -> list[str]:
        """Names of the segments that have voxels."""
        return [s.name for i, s in enumerate(self.segments) if i in self.present]

    def _inside(self, class_sets: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Where a class set holds only classes that lie inside others."""
        outside: NDArray[np.bool_] = (class_sets & ~np.int32(self.hierarchy.inside_set)) != 0
        return ~outside

    def _present_meanings(self) -> list[SegmentMeaning]:
        return [m for i, m in enumerate(self.meanings) if i in self.present]

    def _assign(self, segment: Segment, position: int) -> None:
        if not 0 < segment.value <= LARGEST_VALUE:
            raise ValueError(
                f"segment {segment.name!r} has value {segment.value}; "
                f"label maps of viewers hold values 1 to {LARGEST_VALUE}"
            )
        lut = self._layers.get(segment.layer, np.zeros(1, np.int32))
        if segment.value >= len(lut):
            lut = np.concatenate([lut, np.zeros(segment.value + 1 - len(lut), np.int32)])
        lut[segment.value] = position
        self._layers[segment.layer] = lut

    def positions(self, layer: int, values: NDArray[Any]) -> NDArray[np.int32]:
        """For each voxel its segment's position in the list + 1; 0 for none."""
        lut = self._layers.get(layer, np.zeros(1, np.int32))
        inside = (values > 0) & (values < len(lut))
        return np.where(inside, lut[np.where(inside, values, 0).astype(np.int64)], 0)

    def _number_objects(self) -> dict[int, str]:
        """An id for each object that has voxels: id -> normalised name."""
        objects: dict[str, int] = {}
        taken = set(self.taken) | set(self.known_objects.values())
        waiting: list[str] = []
        for i, (segment, meaning) in enumerate(zip(self.segments, self.meanings, strict=True)):
            key = normalize_name(segment.name)
            if meaning.kind != "object" or i not in self.present or key in objects:
                continue
            number = meaning.object_number or 0
            if key in self.known_objects:
                objects[key] = self.known_objects[key]
            elif (
                keeps_number(segment.name, meaning, self.hierarchy)
                and 0 < number <= LARGEST_ID
                and number not in objects.values()
                and number not in self.known_objects.values()
            ):
                # The app showed this object under its id: it goes on being that object.
                objects[key] = number
            else:
                waiting.append(key)
        taken |= set(objects.values())
        free = self.first_free
        for key in waiting:
            while free in taken:
                free += 1
            objects[key] = free
            taken.add(free)
        return {number: key for key, number in objects.items()}


def _counts_like_slicer(indices: Sequence[int | None]) -> bool:
    """Whether `idx` are positions in a list from which segments may have been skipped."""
    stated = [(n, idx) for n, idx in enumerate(indices, 1) if idx is not None]
    ascending = all(a[1] < b[1] for a, b in pairwise(stated))
    return ascending and all(idx >= n for n, idx in stated)


def _index(value: Any) -> int | None:
    """An `idx` as sent: a number or its text; None for anything else."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
