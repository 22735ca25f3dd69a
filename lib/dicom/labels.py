"""Canonical labels as the named segments of a DICOM SEG, and back without loss.

Every segment is one pair of class set and object. Its label is a name that any reader of
submissions understands ("axon", "organelle", "axon 17"); a note beside the segments says, by
label, what names cannot: class sets that are no group, and objects of several class sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.dicom.export import SeriesIdentity, export_series
from lib.dicom.seg import Segment, seg_bytes, write_seg
from lib.dicom.seg_read import Segmentation
from lib.dicom.series import read_headers
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.labels.segment_names import UNCERTAIN, object_name
from lib.volumes.contrast import intensity_window
from lib.volumes.study import StudyItem

NOTE = "neuropil_segments"
LARGEST_SEG_BYTES = 2**30
"""A SEG holds a bit for every voxel of every section of every segment: objects cost space."""


@dataclass(frozen=True)
class SegmentedLabels:
    """Canonical labels in the form of a SEG.

    Args:
        labels: (X, Y, Z) uint32 values of the segments, 0 for voxels of which nothing is known.
        segments: their names and colours.
        note: goes into the SEG's private element.
        left_out: what did not fit, for the log; empty when everything did.
    """

    labels: NDArray[np.uint32]
    segments: tuple[Segment, ...]
    note: dict[str, Any]
    left_out: str = ""


def labels_to_segments(
    class_sets: NDArray[np.int32],
    instances: NDArray[np.int64] | None,
    hierarchy: LabelHierarchy,
    *,
    largest_bytes: int = LARGEST_SEG_BYTES,
) -> SegmentedLabels:
    """Give every pair of class set and object a segment.

    Args:
        class_sets: (X, Y, Z) bit masks.
        instances: (X, Y, Z) ids, -1 unknown and 0 none, or None.
        largest_bytes: of the SEG's pixels; above it objects are left out, classes are not.
    """
    made = _segments(class_sets, instances, hierarchy)
    size = seg_bytes(made.labels)
    if instances is None or size <= largest_bytes:
        return made
    count = len(np.unique(instances[instances > 0]))
    plain = _segments(class_sets, None, hierarchy)
    reason = f"{count} objects need {size} bytes as DICOM SEG, more than {largest_bytes}"
    return SegmentedLabels(plain.labels, plain.segments, plain.note, reason)


def segments_to_labels(
    seg: Segmentation, hierarchy: LabelHierarchy
) -> tuple[NDArray[np.int32], NDArray[np.int64] | None] | None:
    """Canonical labels from a SEG that `labels_to_segments` made.

    Returns:
        Class sets and instance ids (None where the SEG was made without), or None for a SEG
        of another origin, or one in which a segment was renamed: read those by their names.
    """
    if seg.note is None or NOTE not in seg.note or len(seg.layers) != 1:
        return None
    told: Mapping[str, Any] = seg.note[NOTE]
    if any(s.label not in told for s in seg.segments):
        return None
    top = max((s.value for s in seg.segments), default=0)
    sets = np.full(top + 1, hierarchy.unknown, np.int32)
    ids = np.full(top + 1, int(seg.note["uncovered_id"]), np.int64)
    for segment in seg.segments:
        names, number = told[segment.label]
        sets[segment.value] = hierarchy.set_of(names) if names else hierarchy.unknown
        ids[segment.value] = number
    layer = seg.layers[0]
    return sets[layer], ids[layer] if seg.note["instances"] else None


def export_item(
    item: StudyItem, folder: Path, *, modality: str = "CT", with_labels: bool = False
) -> SeriesIdentity:
    """Write a study item as a DICOM series, and its labels as `labels.dcm` beside it.

    Raises:
        ValueError: the folder is not empty; or the item has no labels when they are asked for.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: not empty; expected a new folder for the series")
    if with_labels and not item.has_label("final"):
        raise ValueError(f"item {item.id}: no labels to export; leave out --with-labels")
    image = item.open_image()
    series = export_series(
        image,
        folder,
        item_id=item.id,
        voxel_size_nm=item.voxel_size_nm,
        window=intensity_window(image),
        record=item.record.to_dict(),
        modality=modality,
    )
    if with_labels:
        grid = read_headers(folder)
        ids = item.read_instances(shown=True) if item.has_label("instance") else None
        made = labels_to_segments(item.read_class_sets(shown=True), ids, item.study.hierarchy)
        write_seg(folder / "labels.dcm", made.labels, made.segments, grid, note=made.note)
    return series


def _segments(
    class_sets: NDArray[np.int32], instances: NDArray[np.int64] | None, hierarchy: LabelHierarchy
) -> SegmentedLabels:
    ids = np.zeros(class_sets.shape, np.int64) if instances is None else instances
    uncovered = _uncovered_id(class_sets, ids, hierarchy)
    pairs, inverse = np.unique(
        np.stack([class_sets.ravel().astype(np.int64), ids.ravel()]), axis=1, return_inverse=True
    )
    values = np.zeros(pairs.shape[1], np.uint32)
    segments: list[Segment] = []
    told: dict[str, list[Any]] = {}
    for n, (class_set, number) in enumerate(pairs.T.tolist()):
        if class_set == hierarchy.unknown and number == uncovered:
            continue
        label = _label(class_set, number, hierarchy, told)
        members = [] if class_set == hierarchy.unknown else hierarchy.members(class_set)
        told[label] = [[hierarchy.classes[i].name for i in members], number]
        values[n] = len(segments) + 1
        segments.append(Segment(int(values[n]), label, _color(class_set, number, hierarchy)))
    note = {NOTE: told, "instances": instances is not None, "uncovered_id": uncovered}
    labels = values[inverse].reshape(class_sets.shape)
    return SegmentedLabels(labels, tuple(segments), note)


def _uncovered_id(
    class_sets: NDArray[np.int32], ids: NDArray[np.int64], hierarchy: LabelHierarchy
) -> int:
    """The instance value of voxels of which nothing is known: they need no segment."""
    unknown = class_sets == hierarchy.unknown
    return 0 if not ((ids == IGNORE_INDEX) & unknown).any() else IGNORE_INDEX


def _label(class_set: int, number: int, hierarchy: LabelHierarchy, taken: Mapping[str, Any]) -> str:
    """A name that says as much as a name can, and that no other segment has."""
    if number > 0:
        label = object_name(class_set, number, hierarchy)
    elif class_set.bit_count() == 1 or class_set in hierarchy.group_sets:
        label = hierarchy.describe(class_set)
    else:
        label = UNCERTAIN
    while label in taken:
        label += "_"  # which no reader of names minds
    return label


def _color(class_set: int, number: int, hierarchy: LabelHierarchy) -> tuple[int, int, int]:
    """The mean colour of the classes; objects of a class differ in brightness."""
    members = hierarchy.members(class_set)
    mean = np.mean([hierarchy.classes[i].color for i in members], axis=0)
    light = 0.7 + 0.5 * (number * 0.618034 % 1.0) if number > 0 else 1.0
    red, green, blue = (int(v) for v in np.clip(mean * light, 0, 255))
    return red, green, blue
