"""The next region of a study: what is skipped, what is said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import pytest
from queries_cases import HIERARCHY, GreyNet, add_item, make_scores, settings, store_in

from lib.networks.model import NeuropilNet
from lib.queries.heatmap import write_heat_map
from lib.queries.select import NoRegion, next_region
from lib.queries.store import LoadNetwork, weights_version
from lib.volumes.atomic import write_json

RNG = np.random.default_rng(0)
NET = cast(NeuropilNet, GreyNet())


def load_net() -> tuple[NeuropilNet, object, object]:
    return NET, settings(), HIERARCHY


LOAD = cast(LoadNetwork, load_net)


def test_an_empty_study_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoRegion, match="no images") as found:
        next_region(store_in(tmp_path), "random")
    assert found.value.status == "empty"


def test_annotated_regions_are_skipped_until_none_is_left(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    known = np.ones((16, 16, 4), bool)
    known[8:, 8:, 2:] = False
    item = add_item(store.study, "one", known)
    make_scores(item, np.linspace(0.9, 0.1, 8).astype(np.float32))
    query = next_region(store, "uncertainty", weights="w", rng=RNG)
    assert query.box == ((8, 16), (8, 16), (2, 4))
    assert query.centre == (11, 11, 2)
    assert query.known_share == 0.0
    add_item(store.study, "one", np.ones((16, 16, 4), bool))
    with pytest.raises(NoRegion, match="no unlabelled region is left") as found:
        next_region(store, "uncertainty", now=time.time() + 1e6)
    assert found.value.status == "finished"


@pytest.mark.parametrize("strategy", ["random", "uncertainty", "hierarchy", "diverse"])
def test_nobody_is_sent_where_somebody_works(tmp_path: Path, strategy: str) -> None:
    store = store_in(tmp_path)
    for name in ("one", "two"):
        make_scores(add_item(store.study, name), np.full(8, 0.5, np.float32))
    boxes = set()
    for i in range(16):
        query = next_region(store, strategy, client=f"c{i % 2}", rng=RNG, now=1000.0)  # type: ignore[arg-type]
        boxes.add((query.item, query.box))
        assert query.reason
    assert len(boxes) == 16
    with pytest.raises(NoRegion, match="handed out to others") as found:
        next_region(store, strategy, client="new", now=1001.0)  # type: ignore[arg-type]
    assert found.value.status == "reserved"
    again = next_region(store, strategy, client="c0", rng=RNG, now=1002.0)  # type: ignore[arg-type]
    assert (again.item, again.box) in boxes
    late = next_region(store, strategy, client="new", rng=RNG, now=1000.0 + 3600)  # type: ignore[arg-type]
    assert (late.item, late.box) in boxes


def test_without_scores_a_random_region_and_the_reason(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add_item(store.study, "one")
    query = next_region(store, "uncertainty", rng=RNG)
    assert "no item has scores yet" in query.reason
    status = {"running": True, "done": 1, "total": 3, "item": "one", "at": time.time()}
    write_json(tmp_path / "scores" / "status.json", status)
    query = next_region(store, "hierarchy", rng=RNG)
    assert "being scored, 1 of 3" in query.reason
    write_json(tmp_path / "scores" / "status.json", {**status, "at": time.time() - 1e5})
    assert "no item has scores yet" in next_region(store, "diverse", rng=RNG).reason


def test_scoring_a_study_makes_it_fresh_and_new_weights_stale(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    items = [add_item(store.study, n, seed=i) for i, n in enumerate("ab")]
    windows: list[str] = []
    assert store.score(LOAD, "v1", report=lambda item, i, n: windows.append(item)) == 2
    assert set(windows) == {"a", "b"}
    assert [store.freshness(i, "v1") for i in items] == ["fresh", "fresh"]
    assert [store.freshness(i, "v2") for i in items] == ["stale", "stale"]
    assert store.score(LOAD, "v1") == 0
    status = store.status()
    assert status is not None and not status.running and status.done == 2
    query = next_region(store, "uncertainty", weights="v2", rng=RNG)
    assert "earlier weights" in query.reason
    assert "earlier" not in next_region(store, "uncertainty", weights="v1", rng=RNG).reason


def test_a_stopped_run_keeps_what_it_finished(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    items = [add_item(store.study, n, seed=i) for i, n in enumerate("ab")]
    calls = iter([False, True])
    assert store.score(LOAD, "v1", stop=lambda: next(calls)) == 1
    assert [store.freshness(i, "v1") for i in items] == ["fresh", "missing"]
    assert store.score(LOAD, "v1") == 1


def test_a_replaced_image_has_no_scores(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    make_scores(add_item(store.study, "one"), np.full(8, 0.5, np.float32))
    assert store.freshness(store.study.item("one"), "w") == "fresh"
    item = add_item(store.study, "one", seed=9)
    assert store.freshness(item, "w") == "missing"


def test_known_shares_follow_the_label_and_are_kept(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    known = np.zeros((16, 16, 4), bool)
    known[:8, :8, 0] = True
    item = add_item(store.study, "one", known)
    grid = store.grid_of(item)
    assert store.known_share(item, grid).tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0]
    assert (tmp_path / "scores" / "one.known.json").exists()
    assert store_in(tmp_path).known_share(item, grid)[0] == 0.5
    item = add_item(store.study, "one", np.ones((16, 16, 4), bool))
    assert (store.known_share(item, grid) == 1).all()


def test_the_heat_map_lies_on_the_image(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    item = add_item(store.study, "one")
    store.score(LOAD, "v1")
    scores = store.scores(item)
    assert scores is not None
    path = write_heat_map(item, scores, "uncertainty")
    loaded = nib.load(path)
    values = np.asarray(loaded.dataobj)
    assert path == tmp_path / "labels" / "heat-uncertainty" / "one.nii.gz"
    assert values.shape == item.shape and values.dtype == np.uint8
    assert np.array_equal(values[::4, ::4], scores.heat[0])
    assert np.allclose(loaded.affine, nib.load(item.image_path).affine)
    with pytest.raises(ValueError, match="uncertainty, hierarchy"):
        write_heat_map(item, scores, "beauty")


def test_unknown_strategies_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="random, uncertainty, hierarchy, diverse"):
        next_region(store_in(tmp_path), "best")  # type: ignore[arg-type]


def test_weights_versions_follow_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "a.pt", tmp_path / "b.pt"
    one.write_bytes(b"weights")
    two.write_bytes(b"weights")
    assert weights_version(one) == weights_version(two) != ""
    two.write_bytes(b"other weights")
    assert weights_version(one) != weights_version(two)
    assert weights_version(tmp_path / "none.pt") == ""
