"""What is measured of an item: its split's voxels alone, and the parts by which figures spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_cases import HIERARCHY, add_cells
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.splits import GAP
from lib.evaluation.truth import TILES, Truth, parts_of, read_truth, split_mask
from lib.volumes.boxes import box_slices
from lib.volumes.frames import ViewerFrame, viewer_frame
from lib.volumes.study import Study, StudyItem

VOXEL = (10.0, 10.0, 40.0)


def item(root: Path, shape: tuple[int, int, int] = (64, 48, 12), **record: object) -> StudyItem:
    study = Study(root, HIERARCHY)
    add_cells(study, "one", shape, VOXEL, **record)  # type: ignore[arg-type]
    return study.item("one")


def frame_of(one: StudyItem) -> ViewerFrame:
    return viewer_frame(one.shape, one.voxel_size_nm, 0.0, 1)


def truth_of(one: StudyItem, split: str) -> Truth | None:
    return read_truth(one, frame_of(one), split, 0.25)  # type: ignore[arg-type]


def test_without_a_split_all_that_is_known_is_measured(tmp_path: Path) -> None:
    one = item(tmp_path)
    found = truth_of(one, "all")
    assert found is not None and found.classes_known and found.objects_known
    assert (found.class_sets == one.read_class_sets()).all()
    assert (found.instances == one.read_instances()).all()


@pytest.mark.parametrize("declared", ["train", "val"])
def test_a_declared_item_belongs_to_its_split_whole(tmp_path: Path, declared: str) -> None:
    one = item(tmp_path, split=declared)
    other = "val" if declared == "train" else "train"
    found = truth_of(one, declared)
    assert found is not None and (found.instances == one.read_instances()).all()
    assert truth_of(one, other) is None, "nothing of it is measured in the other"


def test_a_mixed_item_is_cut_as_training_cuts_it(tmp_path: Path) -> None:
    one = item(tmp_path, (200, 120, 16))
    frame = frame_of(one)
    val, train = (split_mask(one, frame, s, 0.25) for s in ("val", "train"))  # type: ignore[arg-type]
    assert val is not None and train is not None and val.any() and train.any()
    assert not (val & train).any()
    x, y, z = (int(i[0]) for i in np.nonzero(val))
    near = train[max(0, x - GAP[0] + 1) : x + 1, y, z]
    assert not near.any(), "a gap lies between them"
    for split, mask in (("val", val), ("train", train)):
        found = truth_of(one, split)
        assert found is not None
        assert (found.class_sets[~mask] == HIERARCHY.unknown).all()
        assert (found.instances[~mask] == -1).all()
        assert (found.instances[mask] == one.read_instances()[mask]).all()


def test_ids_that_are_no_truth_in_3d_are_not_measured(tmp_path: Path) -> None:
    found = truth_of(item(tmp_path, true_instances=False), "all")
    assert found is not None and found.classes_known and not found.objects_known


def test_items_of_which_nothing_is_known_are_passed_over(tmp_path: Path) -> None:
    nothing = np.zeros((32, 32, 8), bool)
    assert truth_of(item(tmp_path / "a", (32, 32, 8), known=nothing), "all") is None
    study = Study(tmp_path / "b", HIERARCHY)
    study.add_item("bare", np.zeros((8, 8, 4), np.uint8), VOXEL)
    assert truth_of(study.item("bare"), "all") is None


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 3), st.integers(0, 2))
def test_parts_cover_an_item_once(shape: tuple[int, int, int], axis: int) -> None:
    seen = np.zeros(shape, int)
    parts = parts_of(shape, axis)
    for part in parts:
        seen[box_slices(part.box)] += 1
    assert (seen == 1).all() and len({p.name for p in parts}) == len(parts)
    across = [n for a, n in enumerate(shape) if a != axis]
    tiles = min(TILES, across[0]) * min(TILES, across[1])
    assert len(parts) == (shape[axis] if shape[axis] > 1 else tiles)
