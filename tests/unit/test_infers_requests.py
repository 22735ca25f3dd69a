"""What a request may say to a task: options, points of many objects, types that hold a map."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException

from lib.infers.base import NeuropilTask, log_progress
from lib.infers.clicks import MOST_OBJECTS, MOST_POINTS, named_points, viewer_points
from lib.infers.objects_shown import object_color
from lib.infers.writer import cropped_affine, write_label
from lib.labels.hierarchy import load_hierarchy
from lib.volumes.errors import VolumeError
from lib.volumes.opened import ImageStore, item_id
from lib.volumes.study import Study

HIERARCHY = load_hierarchy()


def task(**options: Any) -> NeuropilTask:
    """A task of which only the options matter."""

    class Bare(NeuropilTask):
        def run(self, *_: Any) -> Any:
            raise AssertionError

    found = object.__new__(Bare)
    found._config = options
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> NeuropilTask:
    found = task(level=["fine", "coarse"], share=0.5)
    monkeypatch.setattr(type(found), "config", lambda self: self._config)
    return found


def told(error: pytest.ExceptionInfo[HTTPException]) -> str:
    assert error.value.status_code == 400
    return str(error.value.detail)


def test_an_option_is_one_of_its_choices_and_the_first_by_default(asked: NeuropilTask) -> None:
    assert asked.choice({}, "level") == "fine"
    assert asked.choice({"level": "coarse"}, "level") == "coarse"
    assert asked.choice({"level": ["coarse", "fine"]}, "level") == "coarse", "a list as sent back"
    assert asked.choice({"level": []}, "level") == "fine"
    for bad in ("middle", 3, None, {"a": 1}):
        with pytest.raises(HTTPException) as error:
            asked.choice({"level": bad}, "level")
        assert "level: expected one of fine, coarse" in told(error)


def test_a_number_is_in_its_range(asked: NeuropilTask) -> None:
    assert asked.number({}, "share", 0, 1) == 0.5
    assert asked.number({"share": "0.25"}, "share", 0, 1) == 0.25, "forms send text"
    for bad in (2, -0.1, float("nan")):
        with pytest.raises(HTTPException) as error:
            asked.number({"share": bad}, "share", 0, 1)
        assert "share: expected 0 to 1" in told(error)
    for bad in ("much", True, None, [0.5]):
        with pytest.raises(HTTPException) as error:
            asked.number({"share": bad}, "share", 0, 1)
        assert "share: expected a number" in told(error)


def test_points_of_many_objects_have_names() -> None:
    found = named_points({"axon 3": [[1, 2, 3]], "soma": [[4, 5, 6.4], [7, 8, 9]]})
    assert found == {"axon 3": [[1, 2, 3]], "soma": [[4, 5, 6], [7, 8, 9]]}
    too_many = {str(i): [[0, 0, 0]] for i in range(MOST_OBJECTS + 1)}
    for bad in ({}, [], "axon", too_many):
        with pytest.raises(HTTPException) as error:
            named_points(bad)
        assert f"1 to {MOST_OBJECTS}" in told(error)
    with pytest.raises(HTTPException) as error:
        named_points({"axon": [[1, 2, 3]], "soma": []})
    assert told(error) == "objects.soma: no points"
    with pytest.raises(HTTPException) as error:
        named_points({"axon": [[1, 2]]})
    assert told(error).startswith("objects.axon: expected points")


def test_a_flood_of_points_is_refused_and_huge_coordinates_too() -> None:
    assert len(viewer_points([[0, 0, 0]] * MOST_POINTS, "foreground")) == MOST_POINTS
    for bad in ([[0, 0, 0]] * (MOST_POINTS + 1), [[1e12, 0, 0]], [[float("inf"), 0, 0]]):
        with pytest.raises(HTTPException):
            viewer_points(bad, "foreground")


def test_a_part_of_a_map_lies_where_it_lay_in_the_whole() -> None:
    affine = np.array([[0, 8.0, 0, 5], [-8.0, 0, 0, 7], [0, 0, 40.0, -9], [0, 0, 0, 1]])
    part = cropped_affine(affine, ((2, 5), (3, 9), (1, 2)))
    for voxel in ((0, 0, 0), (1, 2, 0)):
        moved = (*np.add(voxel, (2, 3, 1)), 1)
        np.testing.assert_allclose(part @ (*voxel, 1), affine @ moved)
    assert (affine[:3, 3] == (5, 7, -9)).all(), "the whole's own is left alone"


def test_answers_of_one_process_lie_in_a_folder_of_its_own() -> None:
    paths = [Path(write_label(np.zeros((2, 2, 2), np.uint8), np.eye(4), ".nii")) for _ in "ab"]
    assert len({p.name for p in paths}) == 2 and len({p.parent for p in paths}) == 1
    for path in paths:
        path.unlink()


def test_an_image_is_opened_once_and_again_when_it_or_its_record_changes(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    first = np.random.default_rng(0).integers(0, 255, (6, 5, 4)).astype(np.uint8)
    item, _ = study.add_item("one", first, (4.0, 5.0, 40.0))
    store = ImageStore("nm")
    image = store.open(item.image_path)
    assert store.open(item.image_path) is image and image.shape == (6, 5, 4)
    assert image.voxel_size_nm == (4.0, 5.0, 40.0) and (np.asarray(image.voxels) == first).all()
    study.add_item("one", first[::-1].copy(), (8.0, 8.0, 8.0), replace=True)
    again = store.open(item.image_path)
    assert again.key != image.key and again.voxel_size_nm == (8.0, 8.0, 8.0)
    assert (np.asarray(again.voxels) == first[::-1]).all()
    with pytest.raises(VolumeError, match="no such file"):
        store.identity(tmp_path / "none.nii")


def test_an_image_stays_the_same_when_its_labels_are_written_down(tmp_path: Path) -> None:
    voxels = np.zeros((6, 5, 4), np.uint8)
    path = tmp_path / "one.nii"
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 5.0, 40.0, 1.0])), path)
    store = ImageStore("nm")
    image = store.open(path)
    item = Study(tmp_path, HIERARCHY).item("one")
    item.write_record(item.record.changed(known_share={"unknown": 1.0}))
    assert store.open(path) is image, "the first submission makes the record"
    item.write_record(item.record.changed(voxel_size_nm=(8.0, 8.0, 8.0)))
    again = store.open(path)
    assert again.key != image.key and again.voxel_size_nm == (8.0, 8.0, 8.0)


def test_compressed_images_are_decoded_once_and_kept_within_the_budget(tmp_path: Path) -> None:
    paths = []
    for i in range(3):
        path = tmp_path / f"v{i}.nii.gz"
        nib.save(nib.Nifti1Image(np.full((10, 10, 10), i, np.uint8), np.diag([4, 4, 4, 1])), path)
        paths.append(path)
    store = ImageStore("nm", budget=2500)
    images = [store.open(p) for p in paths]
    assert [int(np.asarray(i.voxels)[0, 0, 0]) for i in images] == [0, 1, 2]
    assert store.open(paths[2]) is images[2] and store.open(paths[1]) is images[1]
    assert store.open(paths[0]) is not images[0], "the oldest made room"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii.gz", "a"), ("a.b.nrrd", "a.b"), ("scan.tif", "scan"), ("odd.bin", "odd")],
)
def test_an_items_name_is_its_files_without_the_ending(name: str, expected: str) -> None:
    assert item_id(Path("/study") / name) == expected


def test_colours_of_one_class_can_be_told_apart() -> None:
    axon = HIERARCHY.class_names.index("axon")
    colors = np.array([object_color(axon, i, HIERARCHY) for i in range(1, 30)])
    assert colors.min() >= 0 and colors.max() <= 255
    assert np.abs(np.diff(colors, axis=0)).max(1).min() >= 10
    assert object_color(axon, 7, HIERARCHY) == tuple(colors[6])


def test_progress_is_logged_by_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "lib.infers.base.logger", SimpleNamespace(info=lambda *words: lines.append(words[1:]))
    )
    progress = log_progress("segmentation")
    for done in range(1, 101):
        progress(done, 100)
    assert len(lines) == 11 and lines[-1] == ("segmentation", 100, 100)
    log_progress("nothing")(0, 0)
