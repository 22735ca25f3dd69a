"""Scores of a study: whose they are, when they are stale, and what cannot be scored."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from queries_cases import HIERARCHY, GreyNet, add_item, make_scores, settings, store_in

from lib.configs.settings import QuerySettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.queries.scores import load_scores, scores_path
from lib.queries.store import LoadNetwork, ScoreStore
from lib.volumes.errors import VolumeError
from lib.volumes.record import record_path
from lib.volumes.study import Study

FLAT = np.full(8, 0.5, np.float32)
LOAD = cast(LoadNetwork, lambda: (cast(NeuropilNet, GreyNet()), settings(), HIERARCHY))


def unread(study: Study, name: str = "torn") -> None:
    """An image that is no image."""
    (study.root / f"{name}.nii").write_bytes(b"torn")


def test_scores_are_of_weights_and_of_a_size_of_regions(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    item = add_item(store.study, "one")
    assert store.freshness(item, "w") == "missing"
    make_scores(item, FLAT)
    assert store.freshness(item, "w") == "fresh"
    assert store.freshness(item, "v") == "stale"
    other = ScoreStore(store.study, QuerySettings(region=(8, 8, 4)))
    assert other.freshness(item, "w") == "stale", "regions of another size are asked for"


def test_scores_are_read_once_until_their_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = store_in(tmp_path), []
    item = add_item(store.study, "one")
    make_scores(item, FLAT)

    def load(path: Path) -> object:
        read.append(path)
        return load_scores(path)

    monkeypatch.setattr("lib.queries.store.load_scores", load)
    assert store.scores(item) is store.scores(item) is not None
    assert len(read) == 1
    make_scores(item, FLAT * 2, "v")
    again = store.scores(item)
    assert again is not None and again.weights == "v" and len(read) == 2


def test_damaged_scores_count_as_missing_and_are_made_again(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    item = add_item(store.study, "one")
    make_scores(item, FLAT)
    path = scores_path(tmp_path, "one")
    path.write_bytes(path.read_bytes()[:100])
    assert store.scores(item) is None
    assert store.score(LOAD, "w") == 1
    assert store.freshness(item, "w") == "fresh"


def test_an_image_whose_membranes_turn_out_bright_is_scored_again(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    item = add_item(store.study, "one")
    assert store.score(LOAD, "w") == 1
    path = record_path(tmp_path, "one")
    path.write_text(json.dumps({**json.loads(path.read_text()), "bright_membranes": True}))
    item = store.study.item("one")
    assert store.freshness(item, "w") == "missing"
    assert store.score(LOAD, "w") == 1 and store.freshness(item, "w") == "fresh"


def test_a_study_of_bright_membranes_has_scores_of_its_own(tmp_path: Path) -> None:
    item = add_item(store_in(tmp_path).study, "one")
    make_scores(item, FLAT)
    bright = ScoreStore(Study(tmp_path, HIERARCHY, bright_membranes=True), QuerySettings())
    assert bright.freshness(bright.study.item("one"), "w") == "missing"


def test_files_that_cannot_be_read_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path)
    add_item(store.study, "one")
    unread(store.study)
    with caplog.at_level(logging.WARNING, "neuropil.queries"):
        for _ in range(2):
            items, skipped = store.usable_items()
            assert [i.id for i in items] == ["one"]
            assert [s.name for s in skipped] == ["torn.nii"] and "torn.nii" in skipped[0].reason
    assert len([r for r in caplog.records if "left out of the study" in r.message]) == 1


def test_an_image_is_asked_again_when_its_file_was_mended(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    unread(store.study, "one")
    item = store.study.item("one")
    for _ in range(2):
        with pytest.raises(VolumeError):
            store.grid_of(item)
    (tmp_path / "one.nii").unlink()
    item = add_item(store.study, "one")
    assert store.grid_of(item).shape == (16, 16, 4)


def test_regions_follow_the_sections_wherever_they_lie(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (4, 16, 24), np.uint8)
    item, _ = store.study.add_item("lying", image, (40.0, 8.0, 8.0))
    grid = store.grid_of(item)
    assert grid.cells == (2, 2, 3), "two sections thick along x, eight voxels along y and z"


def test_weights_of_other_classes_are_refused_with_both_lists(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add_item(store.study, "one")
    other = LabelHierarchy(HIERARCHY.classes[:2])
    load = cast(LoadNetwork, lambda: (cast(NeuropilNet, GreyNet()), settings(), other))
    told = "classes are extracellular space, tear; the study has .*axon.*Train on this study"
    with pytest.raises(ValueError, match=told):
        store.score(load, "w")
    assert store.status() is None, "nothing was begun"


def test_what_cannot_be_scored_is_told_when_all_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)
    items = {name: add_item(store.study, name, seed=i) for i, name in enumerate("abc")}
    genuine = store.study.item("b").__class__.open_seen

    def open_seen(item: object) -> object:
        if item.id == "b":  # type: ignore[attr-defined]
            raise MemoryError
        return genuine(item)  # type: ignore[arg-type]

    monkeypatch.setattr(type(items["b"]), "open_seen", open_seen)
    with pytest.raises(ValueError, match=r"2 items are scored, not these:\nb\.nii.*: MemoryError"):
        store.score(LOAD, "w")
    assert [store.freshness(items[n], "w") for n in "abc"] == ["fresh", "missing", "fresh"]
    status = store.status()
    assert status is not None and not status.running and (status.done, status.total) == (2, 3)


def test_what_labels_make_known_is_counted_before_the_first_sample(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add_item(store.study, "one", np.ones((16, 16, 4), bool))
    add_item(store.study, "two")
    unread(store.study)
    store.look_through()
    counted = sorted(p.name for p in (tmp_path / "scores").glob("*.known.json"))
    assert counted == ["one.known.json"]


def test_a_label_that_cannot_be_read_keeps_no_other_from_being_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_in(tmp_path)
    for name in ("one", "two"):
        add_item(store.study, name, np.ones((16, 16, 4), bool))
    store.study.item("one").label_path("final").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING, "neuropil.queries"):
        store.look_through()
    assert (tmp_path / "scores" / "two.known.json").exists()
    assert any("one" in r.getMessage() for r in caplog.records)
