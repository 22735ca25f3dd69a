"""Known shares are counted once for each version of a label; a job's status is what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from engine_cases import HIERARCHY

from lib.configs.settings import QuerySettings
from lib.queries import job, known, select
from lib.queries.job import STATUS_SECONDS, ScoringStatus, note_status, read_status
from lib.queries.known import KnownShares, fingerprint
from lib.queries.regions import RegionGrid
from lib.queries.select import next_region
from lib.queries.store import ScoreStore
from lib.volumes.study import Study

SHAPE = (16, 16, 8)
GRID = RegionGrid.of(SHAPE, (8, 8, 8))


def study_of(root: Path, known_to: int) -> Study:
    """An item whose first columns are known."""
    study = Study(root, HIERARCHY)
    sets = np.full(SHAPE, HIERARCHY.unknown, np.int32)
    sets[:known_to] = HIERARCHY.set_named("axon")
    image = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    study.add_item("one", image, (8.0, 8.0, 40.0), sets, replace=True)
    return study


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each count."""
    genuine, calls = known._count_known, []

    def count(*arguments: object) -> object:
        calls.append(1)
        return genuine(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(known, "_count_known", count)
    return calls


def test_a_label_is_counted_once_also_by_the_next_process(
    tmp_path: Path, counted: list[int]
) -> None:
    study = study_of(tmp_path, 4)
    shares = KnownShares(study)
    expected = [0.5 if GRID.box(r)[0][0] == 0 else 0.0 for r in range(GRID.count)]
    for _ in range(2):
        assert shares.share(study.item("one"), GRID).tolist() == expected
    assert KnownShares(study).share(study.item("one"), GRID).tolist() == expected
    assert len(counted) == 1


def test_a_new_label_or_another_grid_is_counted_anew(tmp_path: Path, counted: list[int]) -> None:
    study = study_of(tmp_path, 4)
    shares = KnownShares(study)
    shares.share(study.item("one"), GRID)
    study_of(tmp_path, 16)
    assert (shares.share(study.item("one"), GRID) == 1).all()
    coarse = RegionGrid.of(SHAPE, SHAPE)
    assert shares.share(study.item("one"), coarse).tolist() == [1.0]
    assert len(counted) == 3


def test_nothing_is_counted_where_there_is_no_label(tmp_path: Path, counted: list[int]) -> None:
    study = study_of(tmp_path, 4)
    (tmp_path / "labels" / "final" / "one.nii.gz").unlink()
    shares = KnownShares(study)
    assert not shares.share(study.item("one"), GRID).any() and not counted
    assert shares.missing(study.item("one"), GRID) is None, "its image is there"


def test_a_damaged_count_is_made_again(tmp_path: Path, counted: list[int]) -> None:
    study = study_of(tmp_path, 8)
    KnownShares(study).share(study.item("one"), GRID)
    (kept,) = tmp_path.rglob("one.known.json")
    kept.write_text("half")
    assert KnownShares(study).share(study.item("one"), GRID).mean() == 0.5
    assert len(counted) == 2 and json.loads(kept.read_text())["share"]


def test_a_fingerprint_is_the_images(tmp_path: Path) -> None:
    study = study_of(tmp_path, 4)
    before = fingerprint(study.item("one"))
    assert fingerprint(study.item("one")) == before
    with (tmp_path / "one.nii").open("ab") as file:
        file.write(b"more")
    assert fingerprint(study.item("one")) != before


def test_a_job_that_fell_silent_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_status(tmp_path) is None
    note_status(tmp_path, 2, 5, "three")
    assert read_status(tmp_path) == ScoringStatus(True, 2, 5, "three")
    now = job.time.time()
    monkeypatch.setattr(job.time, "time", lambda: now + STATUS_SECONDS + 1)
    assert read_status(tmp_path) == ScoringStatus(False, 2, 5, "three")
    note_status(tmp_path, 5, 5, "", running=False)
    assert read_status(tmp_path) == ScoringStatus(False, 5, 5, "")
    next(tmp_path.rglob("status.json")).write_text('{"running": true}')
    assert read_status(tmp_path) is None


def test_a_sample_looks_at_few_files_of_each_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, since times depend on the machine: by the difference of two studies."""
    genuine, looked, opened = os.stat, [0], [0]

    def stat(*arguments: Any, **named: Any) -> os.stat_result:
        looked[0] += 1
        return genuine(*arguments, **named)

    read = nib.load

    def load(*arguments: Any) -> Any:
        opened[0] += 1
        return read(*arguments)

    monkeypatch.setattr(nib, "load", load)
    monkeypatch.setattr(select, "TRIES", 1)  # images that are looked at for tissue
    image = np.zeros(SHAPE, np.uint8)
    study, counts = Study(tmp_path, HIERARCHY), []
    for first, last in ((0, 5), (5, 25)):
        for n in range(first, last):
            study.add_item(f"item-{n}", image, (8.0, 8.0, 40.0))
        store = ScoreStore(study, QuerySettings())
        store.look_through()
        opened[0], looked[0] = 0, 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", stat)
            next_region(store, "diverse")
        counts.append(looked[0])
        assert opened[0] <= 1, "headers are read once; the image that is handed out is opened"
    assert counts[1] - counts[0] < 20 * 7
