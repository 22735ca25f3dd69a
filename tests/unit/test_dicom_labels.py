"""Canonical labels through a SEG: nothing lost with our note, names right without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.dicom.export import export_series
from lib.dicom.labels import export_item, labels_to_segments, segments_to_labels
from lib.dicom.seg import write_seg
from lib.dicom.seg_read import read_seg
from lib.dicom.series import SeriesGrid, read_headers
from lib.labels.hierarchy import IGNORE_INDEX, load_hierarchy
from lib.labels.segment_names import parse_segment_name
from lib.volumes.study import Study

HIERARCHY = load_hierarchy()
SHAPE = (6, 5, 4)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> SeriesGrid:
    folder = tmp_path_factory.mktemp("series")
    image = np.zeros(SHAPE, np.uint8)
    export_series(image, folder, item_id="a", voxel_size_nm=(4.0, 4.0, 40.0), window=(0.0, 255.0))
    return read_headers(folder)


def random_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes, groups, other sets and unknown; objects, none and unknown, freely mixed."""
    rng = np.random.default_rng(seed)
    named = [1 << c for c in range(12)] + list(HIERARCHY.group_sets) + [HIERARCHY.unknown]
    odd = [HIERARCHY.set_of(["axon", "tear"]), HIERARCHY.set_of(["soma", "myelin", "glia"])]
    sets = rng.choice(np.array(named + odd, np.int32), SHAPE)
    ids = rng.choice(np.array([IGNORE_INDEX, 0, 3, 700, 2**31]), SHAPE)
    sets[0, 0, 0] = 1
    return sets, ids


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), with_ids=st.booleans())
def test_canonical_labels_survive_exactly(
    grid: SeriesGrid, tmp_path_factory: pytest.TempPathFactory, seed: int, with_ids: bool
) -> None:
    sets, ids = random_labels(seed)
    made = labels_to_segments(sets, ids if with_ids else None, HIERARCHY)
    path = tmp_path_factory.mktemp("seg") / "seg.dcm"
    write_seg(path, made.labels, made.segments, grid, note=made.note)
    back = segments_to_labels(read_seg(path, grid), HIERARCHY)
    assert back is not None
    np.testing.assert_array_equal(back[0], sets)
    if with_ids:
        assert back[1] is not None
        np.testing.assert_array_equal(back[1], ids)
    else:
        assert back[1] is None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_names_alone_say_class_and_object(seed: int) -> None:
    sets, ids = random_labels(seed)
    made = labels_to_segments(sets, ids, HIERARCHY)
    assert len({s.label for s in made.segments}) == len(made.segments)
    for segment in made.segments:
        inside = made.labels == segment.value
        class_set, number = int(sets[inside][0]), int(ids[inside][0])
        meaning = parse_segment_name(segment.label, HIERARCHY)
        assert meaning.object_number == (number if number > 0 else None)
        if class_set.bit_count() == 1 or class_set in HIERARCHY.group_sets:
            assert meaning.class_set == class_set
        else:
            assert meaning.kind == ("object" if number > 0 else "uncertain")
        assert len(segment.label) <= 64


def test_objects_that_do_not_fit_are_left_out_and_told() -> None:
    sets = np.full(SHAPE, HIERARCHY.set_named("axon"), np.int32)
    ids = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    made = labels_to_segments(sets, ids, HIERARCHY, largest_bytes=100)
    assert [s.label for s in made.segments] == ["axon"]
    assert (made.labels == 1).all()
    assert "119 objects need" in made.left_out
    assert labels_to_segments(sets, ids, HIERARCHY).left_out == ""


def test_renamed_segments_are_read_by_their_names(grid: SeriesGrid, tmp_path: Path) -> None:
    sets, ids = random_labels(1)
    made = labels_to_segments(sets, ids, HIERARCHY)
    write_seg(tmp_path / "s.dcm", made.labels, made.segments, grid, note=made.note)
    seg = read_seg(tmp_path / "s.dcm", grid)
    first, *rest = seg.segments
    changed = type(seg)(seg.layers, (type(first)(first.value, "glia 5"), *rest), seg.note)
    assert segments_to_labels(changed, HIERARCHY) is None
    assert segments_to_labels(type(seg)(seg.layers, seg.segments, None), HIERARCHY) is None


def test_a_study_item_is_exported_with_its_labels(tmp_path: Path) -> None:
    sets, ids = random_labels(2)
    image = np.random.default_rng(2).integers(0, 255, SHAPE).astype(np.uint8)
    study = Study(tmp_path / "study", HIERARCHY)
    item, _ = study.add_item("piece", image, (4.0, 4.0, 40.0), sets, ids, split="val")
    export_item(item, tmp_path / "out", with_labels=True)
    labels = tmp_path / "out" / "labels.dcm"
    moved = labels.rename(tmp_path / "labels.dcm")
    grid = read_headers(tmp_path / "out")
    assert grid.record() == item.record.to_dict() | {"voxel_size_nm": [4.0, 4.0, 40.0]}
    back = segments_to_labels(read_seg(moved, grid), HIERARCHY)
    assert back is not None and back[1] is not None
    np.testing.assert_array_equal(back[0], sets)
    np.testing.assert_array_equal(back[1], ids)
    with pytest.raises(ValueError, match="not empty"):
        export_item(item, tmp_path / "out")
    bare, _ = study.add_item("bare", image, (4.0, 4.0, 40.0))
    with pytest.raises(ValueError, match="no labels to export"):
        export_item(bare, tmp_path / "other", with_labels=True)


def test_the_command_tells_how_to_open_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lib.commands import main

    image = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)
    Study(tmp_path / "study", HIERARCHY).add_item("piece", image, (4.0, 4.0, 40.0))
    words = ["export", "piece", str(tmp_path / "out"), "--studies", str(tmp_path / "study")]
    assert main([*words, "--dicom", "MR"]) == 0
    told = capsys.readouterr().out
    header = read_headers(tmp_path / "out").headers[0]
    assert header.Modality == "MR"
    assert header.SeriesInstanceUID in told
    assert f"/ohif/monai-label?StudyInstanceUIDs={header.StudyInstanceUID}" in told
    assert main([*words, "--dicom"]) == 1
    assert "not empty" in capsys.readouterr().err
