"""How far an automatic label agrees with what annotators made of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import final_codes
from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import SILENT, parse_segment_name
from lib.metrics.class_scores import ClassScores
from lib.metrics.object_scores import contingency, object_report
from lib.volumes.boxes import slabs, whole_box
from lib.volumes.disk_ids import from_disk_ids
from lib.volumes.study import StudyItem

AUTOMATIC = "original"
AUTOMATIC_OBJECTS = "instance_predicted"
SLAB_BYTES = 1 << 26


def agreement(item: StudyItem, names: Mapping[str, int] | None = None) -> dict[str, object] | None:
    """Masked figures of the automatic labels against the annotated ones, on known voxels.

    Args:
        item: its `original` label is compared with `final`, and `instance_predicted` with
            `instance`.
        names: segment name -> value in `original`, as the server told the viewer; None: the
            values are those of the `final` map.

    Returns:
        "classes": accuracy, IoU and Dice by class and group; "objects": ARE, VOI split and
        merge, AP (only with both instance labels). None where there is nothing to compare.

    Raises:
        VolumeError: a label of another shape than the image.
    """
    found: dict[str, object] = {}
    if item.has_label(AUTOMATIC) and item.has_label("final"):
        scores = class_agreement(item, names)
        if scores.counts:
            found["classes"] = scores.result().to_dict()
    if item.has_label(AUTOMATIC_OBJECTS) and item.has_label("instance"):
        truth = item.read_instances()
        guess = from_disk_ids(item.read_label(AUTOMATIC_OBJECTS, whole_box(item.shape)))
        if (truth >= 0).any():
            found["objects"] = object_report(contingency(truth, guess)).to_dict()
    return found or None


def class_agreement(item: StudyItem, names: Mapping[str, int] | None) -> ClassScores:
    """Counts of `original` against `final`; arguments as for `agreement`."""
    hierarchy = item.study.hierarchy
    scores = ClassScores(hierarchy)
    lut = value_sets(names, hierarchy)
    for slab in slabs(whole_box(item.shape), 12, SLAB_BYTES):
        values = item.read_label(AUTOMATIC, slab)
        guess = lut[np.minimum(values, len(lut) - 1).astype(np.int64)]
        scores.update_sets(item.read_class_sets(slab), guess)
    return scores


def value_sets(names: Mapping[str, int] | None, hierarchy: LabelHierarchy) -> NDArray[np.int32]:
    """(N,) class set of each label value; 0: the value says nothing. The last entry is 0."""
    if names is None:
        table = dict(final_codes(hierarchy, {}))
    else:
        table = {}
        for name, value in names.items():
            meaning = parse_segment_name(name, hierarchy)
            if meaning.kind not in SILENT:
                table[int(value)] = meaning.class_set
    lut = np.zeros(max(table, default=0) + 2, np.int32)
    for value, class_set in table.items():
        lut[value] = 0 if class_set == hierarchy.unknown else class_set
    return lut
