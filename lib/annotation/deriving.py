"""Derive an item's `final` and `instance` maps from one submission, slab by slab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.annotation.accepted import AcceptedObjects, told_of_accepted
from lib.annotation.clicked import come_back
from lib.annotation.provenance import Untouched
from lib.annotation.segments import SubmissionTable
from lib.annotation.shown import Shown
from lib.annotation.slabs import Labels, LabelWriter, put_labels
from lib.annotation.submitted_file import SubmittedMap, read_submitted
from lib.labels.hierarchy import normalize_name
from lib.labels.segment_names import slip_told
from lib.volumes.atomic import StagedFiles, json_bytes
from lib.volumes.boxes import (
    Box,
    box_shape,
    contains,
    intersect,
    show_box,
    slabs,
    whole_box,
)
from lib.volumes.errors import VolumeError
from lib.volumes.record import record_path
from lib.volumes.study import StudyItem
from lib.volumes.writing import (
    LABEL_BYTES_PER_VOXEL,
    SLAB_BYTES,
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
        region: the part that the submission is of; None: all.
        kept: name -> voxels of accepted objects that stay though the submission holds none of them.
        removed: name -> voxels that accepted objects had in the labels, and have no more.
    """

    known_share: dict[str, float]
    objects: dict[int, str]
    notes: list[str]
    touched_share: float = 0.0
    machine_share: float = 0.0
    made: dict[int, str] = field(default_factory=dict)
    region: Box | None = None
    kept: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a submission comes from.

    Args:
        shown: what the annotator had been given.
        clicked: names of segments that they clicked.
        asked: files of what they clicked for (`Clicked`).
        all_true: everything in it is a person's word, whatever was shown.
        names: normalised name -> id of the current objects.
        first_free: the least id for objects whose name brings none.
        accepted: ids of the current objects that are accepted.
    """

    shown: Sequence[Shown] = ()
    clicked: Sequence[str] = ()
    all_true: bool = False
    names: Mapping[str, int] = field(default_factory=dict)
    first_free: int = 1
    asked: Sequence[Path] = ()
    accepted: Sequence[int] = ()


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
    origin = origin or Origin()
    submitted = read_submitted(label, label_info, item.source)
    # A label that is smaller than its image says nothing of what lies around it.
    region = submitted.reach if roi is None else _inside(item, roi)
    whole = region == whole_box(item.shape)
    # What an item was declared once holds for the next whole label, and not for what is merged
    # into it: there the unpainted voxels keep what they had.
    silent = item.record.fully_annotated and not merge
    full = silent if fully_annotated is None else fully_annotated
    # Who declares a region, or everything, to be annotated has decided every voxel of it.
    declared = origin.all_true or bool(fully_annotated) or roi is not None
    stays = merge or not whole or (bool(origin.shown) and not declared)
    table = _table(item, submitted, stays, mapping, full, origin)
    accepted = AcceptedObjects(origin.accepted, table.objects, declared or merge)
    shown, kept = ((), ()) if declared else (origin.shown, origin.asked)
    asked = tuple(come_back(kept, submitted.layers, table, item.shape))
    untouched = Untouched(shown, origin.clicked, table, item.shape, asked)
    record_file = staged.create(record_path(item.study.root, item.id))
    writer = LabelWriter(staged, item, bool(untouched))
    conflicts, made = _write_slabs(
        writer, item, submitted, table, region, merge, untouched, accepted
    )
    counts, class_sets = writer.finish()
    names = {str(i): n for i, n in {**_known_objects(item), **table.objects}.items()}
    record = item.record.changed(
        class_sets=class_sets,
        known_share=counts.shares(item.study.hierarchy),
        # The whole item is fully annotated only when the whole of it was submitted so.
        fully_annotated=full if whole and not merge else item.record.fully_annotated,
        extra={**item.record.extra, "objects": names},
    )
    record_file.write(json_bytes(record.to_dict()))
    notes = _notes(submitted, table, conflicts)
    notes += [w for w in (record.warning(),) if w]
    called = {**{i: n for n, i in origin.names.items()}, **table.objects}
    stayed, removed = accepted.kept(called), accepted.removed(called)
    notes += told_of_accepted(stayed, removed)
    if writer.lost:
        notes.append(
            f"{writer.lost:,} voxels that were labelled before are unknown now, since nothing is "
            "painted there (mode merge keeps what lies under unpainted voxels)"
        )
    voxels = max(1, counts.voxels)
    return Derived(
        record.known_share, table.objects, notes, writer.touched / voxels,
        writer.machine / voxels, {i: n for i, n in table.objects.items() if i in made},
        None if whole else region, stayed, removed,
    )  # fmt: skip


def _write_slabs(
    writer: LabelWriter,
    item: StudyItem,
    submitted: SubmittedMap,
    table: SubmissionTable,
    region: Box,
    merge: bool,
    untouched: Untouched,
    accepted: AcceptedObjects,
) -> tuple[int, set[int]]:
    """Put a submission into an item's labels, of which little is held at a time.

    Returns:
        the number of voxels in segments that exclude each other, and the ids of the objects
        that a person made.
    """
    conflicts, made = 0, set[int]()
    labelled = item.has_label("final")
    for slab in slabs(whole_box(item.shape), 2 * LABEL_BYTES_PER_VOXEL, SLAB_BYTES):
        inside = intersect(slab, region)
        keeps = merge or inside != slab or bool(accepted) or bool(untouched)
        before = Labels.read(item, slab) if keeps or writer.compares or labelled else None
        kept = before.copy() if before and keeps else None
        kept = kept or Labels.unknown(item, slab)
        if inside is not None:
            put = put_labels(
                kept, before, table, submitted, slab, inside, merge, untouched, accepted
            )
            conflicts += put.conflicts
            made |= put.made
            writer.count(put)
            if before is not None:
                accepted.count(before.instance, kept.instance)
        writer.write(kept)
    return conflicts, made


def _table(
    item: StudyItem,
    submitted: SubmittedMap,
    stays: bool,
    mapping: Mapping[str, str],
    fully_annotated: bool,
    origin: Origin,
) -> SubmissionTable:
    """What the segments mean.

    Args:
        stays: earlier labels may stand beside them, whose ids are no new object's.
    """
    taken: set[int] = set()
    if stays:
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


def _inside(item: StudyItem, roi: Box) -> Box:
    whole = whole_box(item.shape)
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
    told = (slip_told(name, table.hierarchy, table.mapping) for name in table.present_names())
    notes += [note for note in told if note]
    if conflicts:
        notes.append(
            f"{conflicts} voxels lie in segments that exclude each other; the later segment holds"
        )
    if submitted.uneven:
        notes.append(submitted.uneven)
    if submitted.clipped:
        notes.append(f"{submitted.clipped} painted voxels lie outside the image")
    return notes
