"""Figures of automatic against annotated labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from queries_cases import AXON, DENDRITE, HIERARCHY, store_in

from lib.queries.agreement import agreement, value_sets
from lib.volumes.atomic import StagedFiles
from lib.volumes.study import StudyItem
from lib.volumes.writing import label_file, write_label


def put_label(item: StudyItem, tag: str, values: np.ndarray) -> None:
    with StagedFiles() as staged:
        write_label(staged, label_file(item.study.root, tag, item.id), values, item.voxel_size_nm)
        staged.commit()


def make_item(folder: Path) -> StudyItem:
    """Left half axon, then dendrite, the last quarter unknown; two objects."""
    study = store_in(folder).study
    sets = np.full((8, 4, 2), HIERARCHY.unknown, np.int32)
    sets[:4], sets[4:6] = 1 << AXON, 1 << DENDRITE
    instance = np.full((8, 4, 2), -1, np.int64)
    instance[:4], instance[4:6] = 7, 9
    image = np.zeros((8, 4, 2), np.uint8)
    image[0] = 9
    item, _ = study.add_item("one", image, (8.0, 8.0, 40.0), sets, instance)
    return item


def test_known_voxels_only_by_the_names_the_viewer_was_told(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    assert agreement(item) is None
    original = np.zeros((8, 4, 2), np.uint8)
    original[:3], original[3:] = 2, 1
    put_label(item, "original", original)
    figures = agreement(item, {"Dendrite": 1, "axon": 2})
    assert figures is not None and set(figures) == {"classes"}
    classes = figures["classes"]
    assert isinstance(classes, dict)
    assert classes["voxels"] == 6 * 8
    assert classes["accuracy"] == pytest.approx(5 / 6)
    assert classes["classes"]["axon"]["iou"] == pytest.approx(3 / 4)
    assert classes["classes"]["dendrite"]["iou"] == pytest.approx(2 / 3)


def test_objects_are_compared_where_both_maps_exist(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    merged = np.zeros((8, 4, 2), np.uint32)
    merged[:] = 3
    put_label(item, "instance_predicted", merged)
    figures = agreement(item)
    assert figures is not None
    objects = figures["objects"]
    assert isinstance(objects, dict)
    assert objects["true_objects"] == 2 and objects["predicted_objects"] == 1
    assert objects["voi_split"] == pytest.approx(0.0) and objects["voi_merge"] > 0.5


def test_values_without_names_are_those_of_the_final_map() -> None:
    sets = value_sets(None, HIERARCHY)
    assert sets[AXON + 1] == 1 << AXON
    assert sets[101] == HIERARCHY.group_sets[0]
    assert sets[0] == sets[255] == sets[-1] == 0
    named = value_sets({"axon 17": 4, "background": 0, "uncertain": 2}, HIERARCHY)
    assert named.tolist() == [0, 0, 0, 0, 1 << AXON, 0]


def test_a_label_of_another_shape_is_refused(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    put_label(item, "original", np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(ValueError, match="shape"):
        agreement(item)
