"""The labels of one slab: what was there, what a submission brings, the new maps as they grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.annotation.accepted import AcceptedObjects
from lib.annotation.provenance import Untouched
from lib.annotation.segments import SubmissionTable
from lib.annotation.submitted_file import SubmittedMap
from lib.labels.encodings import UNCERTAIN, class_sets_to_final
from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    box_slices,
    shift_box,
)
from lib.volumes.disk_ids import to_disk_ids
from lib.volumes.record import ItemRecord
from lib.volumes.study import TOUCHED, StudyItem
from lib.volumes.writing import (
    GzipStream,
    LabelCounts,
    count_sets,
    file_bytes,
    label_stream,
)


@dataclass
class Labels:
    """Canonical labels of one slab, changed in place."""

    class_sets: NDArray[np.int32]
    instance: NDArray[np.int64]
    uncertain: NDArray[np.bool_]
    touched: NDArray[np.bool_]

    @staticmethod
    def read(item: StudyItem, box: Box) -> Labels:
        final = item.read_final(box)
        touched = item.read_touched(box)
        if touched is None:
            touched = np.ones(box_shape(box), np.bool_)
        ids = item.read_instances(box, shown=True)
        return Labels(item.decode_final(final, box), ids, final == UNCERTAIN, touched)

    @staticmethod
    def unknown(item: StudyItem, box: Box) -> Labels:
        shape = box_shape(box)
        return Labels(
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

    def copy(self) -> Labels:
        return Labels(
            self.class_sets.copy(), self.instance.copy(), self.uncertain.copy(), self.touched.copy()
        )


@dataclass(frozen=True)
class Put:
    """What a submission brought into one slab.

    Args:
        conflicts: voxels in segments that exclude each other.
        touched: voxels that it labels and a person decided; machine: the others it labels.
        lost: voxels that a person had decided, of which nothing is known now.
        made: ids of objects of which a person decided a voxel.
    """

    conflicts: int
    touched: int
    machine: int
    lost: int
    made: set[int]


class LabelWriter:
    """The item's new maps, growing slab by slab.

    Args:
        compares: there is something that the annotator was shown.
    """

    def __init__(self, staged: StagedFiles, item: StudyItem, compares: bool) -> None:
        self._item = item
        self._record: ItemRecord = item.record
        self._codes = dict(item.record.class_sets)
        self._counts = LabelCounts()
        self.touched = self.machine = self.lost = 0
        # Without a map of what is touched everything is, so once there is one it is kept up.
        self.compares = compares or item.has_label(TOUCHED)
        self._touched = self._stream(staged, TOUCHED, np.uint8) if self.compares else None
        self._final = self._stream(staged, "final", np.uint8)
        self._ids = self._stream(staged, "instance", np.uint32)

    def count(self, put: Put) -> None:
        """Add a slab's figures."""
        self.touched += put.touched
        self.machine += put.machine
        self.lost += put.lost

    def write(self, labels: Labels) -> None:
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


def put_labels(
    kept: Labels,
    before: Labels | None,
    table: SubmissionTable,
    submitted: SubmittedMap,
    slab: Box,
    inside: Box,
    merge: bool,
    untouched: Untouched,
    accepted: AcceptedObjects,
) -> Put:
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
    says = np.ones(new.painted.shape, np.bool_)
    if merge:
        says = new.painted | (new.class_sets != table.hierarchy.unknown)
    if before is not None and accepted:
        says &= ~accepted.staying(before.instance[here], new.painted)
    lost = 0
    if before is not None:
        # An answer that came back as it was shown takes nothing away that a person decided.
        decided = before.touched[here] & before.says_something(table.hierarchy.unknown)[here]
        says &= touched | ~decided
        nothing = (new.class_sets == table.hierarchy.unknown) & ~new.painted
        lost = int(np.count_nonzero(says & decided & nothing))
    kept.class_sets[here] = np.where(says, new.class_sets, kept.class_sets[here])
    kept.instance[here] = np.where(says, new.instance, kept.instance[here])
    kept.uncertain[here] = np.where(says, new.uncertain, kept.uncertain[here])
    kept.touched[here] = np.where(says, touched, kept.touched[here])
    own = np.unique(new.instance[touched & new.painted])
    return Put(
        new.conflicts,
        int(np.count_nonzero(touched & new.painted)),
        int(np.count_nonzero(~touched)),
        lost,
        {int(i) for i in own if i > 0},
    )
