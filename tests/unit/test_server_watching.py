"""What others do in a study folder is noticed, and reading it costs nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lib.labels.hierarchy import load_hierarchy
from lib.server.datastore import StudyDatastore
from lib.server.watching import FolderWatch
from lib.volumes.study import Study

INDEX = "datastore_v2.json"


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something holds within a minute."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    study = Study(tmp_path / "study", load_hierarchy())
    study.add_item("a", np.full((8, 8, 4), 100, np.uint8), (8.0, 8.0, 40.0))
    return study.root


@pytest.mark.parametrize(
    "path",
    [INDEX, "a.nii", "b.png", "labels", "labels/final", "labels/final/a.nii.gz", "labels/x/a.nrrd"],
)
def test_images_labels_and_their_folders_concern_it(tmp_path, path):
    watch = FolderWatch(tmp_path, INDEX, lambda: None)
    assert watch.concerns(str(tmp_path / path))


@pytest.mark.parametrize(
    "path",
    ["", ".a.nii.123.part", "a.neuropil.json", ".lock", "scores/a.known.json", "edits/a/x.nii",
     "labels/submitted/versions/a/0001.nii.gz", "labels/final/.a.nii.gz.part", "../a.nii"],
)  # fmt: skip
def test_nothing_else_does(tmp_path, path):
    watch = FolderWatch(tmp_path, INDEX, lambda: None)
    assert not watch.concerns(str(tmp_path) + "/" + path)


@pytest.mark.parametrize("polling", [False, True])
def test_reading_is_no_event_and_many_changes_are_told_at_once(root, monkeypatch, polling):
    seen, told = [], []
    watch = FolderWatch(root, INDEX, lambda: told.append(len(list(root.glob("*.nii")))))
    noted = watch.dispatch
    monkeypatch.setattr(watch, "dispatch", lambda event: (seen.append(event), noted(event)))
    assert watch.start(polling)
    for _ in range(50):
        (root / "a.nii").read_bytes()
    for n in range(50):
        shutil.copy(root / "a.nii", root / f"b{n}.nii")
    assert eventually(lambda: bool(told) and told[-1] == 51)
    assert len(told) < 50
    assert {e.event_type for e in seen} == {"created"}


def test_a_change_that_cannot_be_read_does_not_end_the_watch(root, caplog):
    told = []

    def changed() -> None:
        told.append(1)
        raise ValueError("the disk is away")

    assert FolderWatch(root, INDEX, changed).start(polling=False)
    for n in range(2):
        shutil.copy(root / "a.nii", root / f"b{n}.nii")
        assert eventually(lambda n=n: len(told) > n)
    assert eventually(lambda: "the disk is away" in caplog.text)


def test_a_folder_that_cannot_be_watched_is_served_all_the_same(tmp_path, caplog):
    assert not FolderWatch(tmp_path / "gone", INDEX, lambda: None).start(polling=False)
    assert "is not watched" in caplog.text


def test_a_datastore_follows_what_others_do(root):
    store = StudyDatastore(
        str(root), lambda *_: {}, extensions=["*.nii.gz", "*.nii"], auto_reload=True
    )
    shutil.copy(root / "a.nii", root / "b.nii")
    assert eventually(lambda: store.list_images() == ["a", "b"])
    (root / "labels" / "mine").mkdir()
    shutil.copy(root / "a.nii", root / "labels" / "mine" / "b.nii")
    assert eventually(lambda: store.get_label_uri("b", "mine") != "")
    (root / "b.nii").rename(root / "c.nii")
    assert eventually(lambda: store.list_images() == ["a", "c"])
    shutil.copytree(root / "labels" / "mine", root / "labels" / "yours")
    (root / "labels" / "yours" / "b.nii").rename(root / "labels" / "yours" / "c.nii")
    assert eventually(lambda: store.get_label_uri("c", "yours") != "")
    (root / "c.nii").unlink()
    assert eventually(lambda: store.list_images() == ["a"])
