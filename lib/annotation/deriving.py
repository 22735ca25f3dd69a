"""Derive an item's `final` and `instance` maps from one submission, slab by slab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.annotation.provenance import Untouched
from lib.annotation.segments import SubmissionTable
from lib.annotation.shown import Shown
from lib.annotation.submitted_file import SubmittedMap, read_submitted
from lib.labels.encodings import UNCERTAIN, class_sets_to_final
from lib.labels.hierarchy import IGNORE_INDEX, normalize_name
from lib.volumes.atomic import StagedFiles, json_bytes
from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    box_slices,
    contains,
    intersect,
    shift_box,
    show_box,
    slabs,
    whole_box,
)
from lib.volumes.errors import VolumeError
from lib.volumes.record import ItemRecord, record_path
from lib.volumes.study import TOUCHED, StudyItem
from lib.volumes.writing import (
    LABEL_BYTES_PER_VOXEL,
    SLAB_BYTES,
    GzipStream,
    LabelCounts,
    count_sets,
    file_bytes,
    label_stream,
    to_disk_ids,
)


@dataclass(frozen=True)
class Derived:
    """What an item's labels hold after a submission.

    Args:
        known_share: part of the voxels for each class set, "unknown" included.
        objects: id -> name of the submitted objects.
        notes: what the annotator should know (empty segments, overlaps, voxels outside).
        touched_share: part of the voxels that the submission labels and a person decided.
        machine_share: part of those that it labels and that are as the machine proposed them.
        made: id -> name of the submitted objects that a person made, corrected or clicked.
    """

    known_share: dict[str, float]
    objects: dict[int, str]
    notes: list[str]
    touched_share: float = 0.0
    machine_share: float = 0.0
    made: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a submission comes from.

    Args:
        shown: what the annotator had been given.
        clicked: names of segments that they clicked.
        all_true: everything in it is a person's word, whatever was shown.
        names: normalised name -> id of the current objects.
        first_free: the least id for objects whose name brings none.
    """

    shown: Sequence[Shown] = ()
    clicked: Sequence[str] = ()
    all_true: bool = False
    names: Mapping[str, int] = field(default_factory=dict)
    first_free: int = 1


def stage_labels(
    staged: StagedFiles,
    item: StudyItem,
    label: Path,
    label_info: Sequence[Mapping[str, Any]] | None,
    *,
    fully_annotated: bool | None,
    roi: Box | None,
    merge: bool,
    mapping: Mapping[str, str],
    origin: Origin | None = None,
) -> Derived:
    """Write the maps and the record aside; the caller commits.

    The record comes first: it lists codes of class sets that the maps use, and codes are only
    ever added, so that the old maps stay readable with the new record.

    Raises:
        ValueError: see `read_submitted`, or a region outside the image.
    """
    region, origin = _region(item, roi), origin or Origin()
    submitted = read_submitted(label, label_info, item.source)
    full = item.record.fully_annotated if fully_annotated is None else fully_annotated
    table = _table(item, submitted, region, merge, mapping, full, origin)
    # Who declares a region, or everything, to be annotated has decided every voxel of it.
    declared = origin.all_true or full or roi is not None
    untouched = Untouched([] if declared else origin.shown, origin.clicked, table, item.shape)
    record_file = staged.create(record_path(item.study.root, item.id))
    writer = _Writer(staged, item, bool(untouched))
    conflicts = 0
    made: set[int] = set()
    for slab in slabs(whole_box(item.shape), 2 * LABEL_BYTES_PER_VOXEL, SLAB_BYTES):
        inside = intersect(slab, region)
        before = _Labels.read(item, slab) if writer.compares or merge or inside != slab else None
        kept = before.copy() if before and (merge or inside != slab) else None
        kept = kept or _Labels.unknown(item, slab)
        if inside is not None:
            put = _put(kept, before, table, submitted, slab, inside, merge, untouched)
            conflicts += put.conflicts
            made |= put.made
            writer.count(put)
        writer.write(kept)
    counts, class_sets = writer.finish()
    names = {str(i): n for i, n in {**_known_objects(item), **table.objects}.items()}
    record = item.record.changed(
        class_sets=class_sets,
        known_share=counts.shares(item.study.hierarchy),
        # The whole item is fully annotated only when the whole of it was submitted so.
        fully_annotated=full if region == whole_box(item.shape) else item.record.fully_annotated,
        extra={**item.record.extra, "objects": names},
    )
    record_file.write(json_bytes(record.to_dict()))
    notes = _notes(submitted, table, conflicts)
    notes += [w for w in (record.warning(),) if w]
    voxels = max(1, counts.voxels)
    return Derived(
        record.known_share, table.objects, notes, writer.touched / voxels,
        writer.machine / voxels, {i: n for i, n in table.objects.items() if i in made},
    )  # fmt: skip


@dataclass
class _Labels:
    """Canonical labels of one slab, changed in place."""

    class_sets: NDArray[np.int32]
    instance: NDArray[np.int64]
    uncertain: NDArray[np.bool_]
    touched: NDArray[np.bool_]

    @staticmethod
    def read(item: StudyItem, box: Box) -> _Labels:
        final = item.read_final(box)
        touched = item.read_touched(box)
        if touched is None:
            touched = np.ones(box_shape(box), np.bool_)
        ids = item.read_instances(box, shown=True)
        return _Labels(item.decode_final(final, box), ids, final == UNCERTAIN, touched)

    @staticmethod
    def unknown(item: StudyItem, box: Box) -> _Labels:
        shape = box_shape(box)
        return _Labels(
            np.full(shape, item.study.hierarchy.unknown, np.int32),
            np.full(shape, IGNORE_INDEX, np.int64),
            np.zeros(shape, np.bool_),
            np.ones(shape, np.bool_),
        )

    def says_something(self, unknown: int) -> NDArray[np.bool_]:
        """Where there is a label, "uncertain" included."""
        said: NDArray[np.bool_] = (
            (self.class_sets != unknown) | (self.instance != IGNORE_INDEX) | self.uncertain
        )
        return said

    def copy(self) -> _Labels:
        return _Labels(
            self.class_sets.copy(), self.instance.copy(), self.uncertain.copy(), self.touched.copy()
        )


@dataclass(frozen=True)
class _Put:
    """What a submission brought into one slab.

    Args:
        conflicts: voxels in segments that exclude each other.
        touched: voxels that it labels and a person decided; machine: the others it labels.
        made: ids of objects of which a person decided a voxel.
    """

    conflicts: int
    touched: int
    machine: int
    made: set[int]


class _Writer:
    """The item's new maps, growing slab by slab.

    Args:
        compares: there is something that the annotator was shown.
    """

    def __init__(self, staged: StagedFiles, item: StudyItem, compares: bool) -> None:
        self._item = item
        self._record: ItemRecord = item.record
        self._codes = dict(item.record.class_sets)
        self._counts = LabelCounts()
        self.touched = self.machine = 0
        # Without a map of what is touched everything is, so once there is one it is kept up.
        self.compares = compares or item.has_label(TOUCHED)
        self._touched = self._stream(staged, TOUCHED, np.uint8) if self.compares else None
        self._final = self._stream(staged, "final", np.uint8)
        self._ids = self._stream(staged, "instance", np.uint32)

    def count(self, put: _Put) -> None:
        """Add a slab's figures."""
        self.touched += put.touched
        self.machine += put.machine

    def write(self, labels: _Labels) -> None:
        """Append a slab."""
        hierarchy = self._item.study.hierarchy
        final, self._codes = class_sets_to_final(labels.class_sets, hierarchy, self._codes)
        final[labels.uncertain] = UNCERTAIN
        known = np.where(labels.touched, labels.class_sets, np.int32(hierarchy.unknown))
        count_sets(self._counts, known)
        self._counts.voxels += labels.class_sets.size
        self._final.write(file_bytes(final))
        self._ids.write(file_bytes(to_disk_ids(labels.instance)))
        if self._touched is not None:
            self._touched.write(file_bytes(labels.touched.astype(np.uint8)))

    def finish(self) -> tuple[LabelCounts, dict[int, list[str]]]:
        """End the files; counts, and the codes of class sets."""
        for stream in (self._final, self._ids, self._touched):
            if stream is not None:
                stream.finish()
        return self._counts, self._codes

    def _stream(self, staged: StagedFiles, tag: str, dtype: Any) -> GzipStream:
        item = self._item
        return label_stream(
            staged, item.study.root, tag, item.id, item.shape, dtype, item.voxel_size_nm,
            item.affine,
        )  # fmt: skip


def _put(
    kept: _Labels,
    before: _Labels | None,
    table: SubmissionTable,
    submitted: SubmittedMap,
    slab: Box,
    inside: Box,
    merge: bool,
    untouched: Untouched,
) -> _Put:
    """Put the submission's labels into a slab."""
    x, y, z = box_origin(slab)
    here = box_slices(shift_box(inside, (-x, -y, -z)))
    layers = [layer[box_slices(inside)] for layer in submitted.layers]
    new = table.apply(layers)
    touched = np.ones(new.painted.shape, np.bool_)
    if untouched:
        touched = ~untouched.read(layers, inside)
    if before is not None:
        # What a person said before, and nobody has changed since, they still say.
        same = before.class_sets[here] == new.class_sets
        same &= before.instance[here] == new.instance
        same &= before.uncertain[here] == new.uncertain
        same &= before.says_something(table.hierarchy.unknown)[here]
        touched |= same & before.touched[here] & new.painted
    # Merging keeps old labels where nothing is painted, unless that says something too.
    says = new.painted | (new.class_sets != table.hierarchy.unknown) if merge else True
    kept.class_sets[here] = np.where(says, new.class_sets, kept.class_sets[here])
    kept.instance[here] = np.where(says, new.instance, kept.instance[here])
    kept.uncertain[here] = np.where(says, new.uncertain, kept.uncertain[here])
    kept.touched[here] = np.where(says, touched, kept.touched[here])
    own = np.unique(new.instance[touched & new.painted])
    return _Put(
        new.conflicts,
        int(np.count_nonzero(touched & new.painted)),
        int(np.count_nonzero(~touched)),
        {int(i) for i in own if i > 0},
    )


def _table(
    item: StudyItem,
    submitted: SubmittedMap,
    region: Box,
    merge: bool,
    mapping: Mapping[str, str],
    fully_annotated: bool,
    origin: Origin,
) -> SubmissionTable:
    taken: set[int] = set()
    if merge or region != whole_box(item.shape):
        for slab in slabs(whole_box(item.shape), 16, SLAB_BYTES):
            taken.update(int(i) for i in np.unique(item.read_instances(slab, shown=True)) if i > 0)
    known = {**origin.names, **{name: i for i, name in _known_objects(item).items()}}
    return SubmissionTable(
        submitted.segments, submitted.present, item.study.hierarchy, mapping, known, taken,
        fully_annotated, origin.first_free,
    )  # fmt: skip


def _known_objects(item: StudyItem) -> dict[int, str]:
    """Names of objects in earlier submissions: id -> normalised name."""
    names = item.record.extra.get("objects", {})
    return {int(i): normalize_name(str(n)) for i, n in names.items()}


def _region(item: StudyItem, roi: Box | None) -> Box:
    whole = whole_box(item.shape)
    if roi is None:
        return whole
    if min(box_shape(roi)) < 1 or not contains(whole, roi):
        raise VolumeError(
            item.image_path, f"region {show_box(roi)} holds no voxel or reaches outside",
            f"a box inside {show_box(whole)}",
        )  # fmt: skip
    return roi


def _notes(submitted: SubmittedMap, table: SubmissionTable, conflicts: int) -> list[str]:
    notes = []
    names = [s.name for s in submitted.segments]
    if empty := [n for i, n in enumerate(names) if i not in submitted.present]:
        notes.append(f"without voxels: {', '.join(empty)}")
    ignored = [n for n, m in zip(names, table.meanings, strict=True) if m.kind == "ignored"]
    if ignored:
        notes.append(f"ignored: {', '.join(ignored)}")
    if conflicts:
        notes.append(
            f"{conflicts} voxels lie in segments that exclude each other; the later segment holds"
        )
    if submitted.clipped:
        notes.append(f"{submitted.clipped} painted voxels lie outside the image")
    return notes
