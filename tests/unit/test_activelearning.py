"""The adapters on a real datastore and a tiny network: what a viewer gets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.activelearning import background
from lib.activelearning.parts import QueryParts
from lib.activelearning.scoring import scoring_methods
from lib.activelearning.strategies import strategies
from lib.configs.load import hierarchy_of
from lib.configs.settings import Settings
from lib.demo.items import write_synthetic_item
from lib.networks.digests import digest_path
from lib.networks.model import build_network
from lib.networks.weights import save_weights
from lib.proofread.store import ObjectStore
from lib.server.datastore import StudyDatastore
from lib.server.weights import SharedNetwork
from lib.volumes.study import Study

SETTINGS = Settings.model_validate(
    {
        "model": {"feature_size": 8, "head_size": 4, "embedding_size": 2},
        "inference": {"window": (32, 32, 8)},
        "queries": {"region": (16, 16, 4)},
    }
)
HIERARCHY = hierarchy_of(SETTINGS)


def refuse_label(*arguments: Any) -> dict[str, dict[str, Any]]:
    raise AssertionError(f"no label is submitted here: {arguments}")


def make_parts(folder: Path) -> QueryParts:
    weights = folder / "neuropil.pt"
    return QueryParts(SharedNetwork(weights, SETTINGS), SETTINGS, HIERARCHY)


def publish(parts: QueryParts, seed: int) -> None:
    torch.manual_seed(seed)
    net = build_network(SETTINGS.model, SETTINGS.loss, HIERARCHY)
    save_weights(parts.network.path, net.state_dict(), SETTINGS, HIERARCHY)


@pytest.fixture
def datastore(tmp_path: Path) -> StudyDatastore:
    study = Study(tmp_path / "studies", HIERARCHY)
    for i, kind in enumerate(("boxes", "none")):
        write_synthetic_item(study, f"item-{i}", (32, 32, 8), (8.0, 8.0, 40.0), i, kind)  # type: ignore[arg-type]
    return StudyDatastore(
        str(study.root), refuse_label, extensions=["*.nii.gz", "*.nii"], auto_reload=False
    )


def test_from_no_weights_to_scores_to_the_next_region(
    tmp_path: Path, datastore: StudyDatastore
) -> None:
    parts = make_parts(tmp_path)
    objects = ObjectStore(tmp_path / "studies", 50)
    chosen, methods = strategies(parts, objects), scoring_methods(parts)
    assert list(chosen) == ["diverse", "hierarchy", "random", "uncertainty", "doubtful"]
    with pytest.raises(ValueError, match="run `instances`"):
        chosen.pop("doubtful")({}, datastore)
    first = chosen["uncertainty"]({"client_id": "me"}, datastore)
    assert "no item has scores yet" in first["region"]["reason"]
    with pytest.raises(ValueError, match="no weights"):
        methods["uncertainty"]({}, datastore)

    publish(parts, 0)
    result = methods["uncertainty"]({"device": "cpu"}, datastore)
    assert result["scored"] == 2
    assert methods["uncertainty"]({"device": "cpu"}, datastore)["scored"] == 0
    assert datastore.get_image_info("item-0")["uncertainty"] == result["uncertainty"]["item-0"]
    assert set(datastore.get_labels_by_image_id("item-1")) == {"heat-uncertainty", "heat-hierarchy"}
    assert Path(datastore.get_label_uri("item-1", "heat-hierarchy")).exists()

    for name, strategy in chosen.items():
        answer = strategy({"client_id": "me"}, datastore)
        assert answer["id"] in ("item-0", "item-1")
        assert len(answer["region"]["roi"]) == 6 and answer["region"]["strategy"] == name
        assert "earlier weights" not in answer["region"]["reason"]
        json.dumps(answer, allow_nan=False)

    publish(parts, 1)
    assert "earlier weights" in chosen["uncertainty"]({}, datastore)["region"]["reason"]


def test_weights_made_before_an_inference_setting_went_away_still_score(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    publish(parts, 0)
    data = torch.load(parts.network.path, weights_only=True)
    data["settings"]["inference"]["gone"] = 1
    torch.save(data, parts.network.path)
    digest_path(parts.network.path).unlink(missing_ok=True)
    _, settings, _ = parts.load("cpu")
    assert settings.model == SETTINGS.model and settings.inference == SETTINGS.inference


def test_agreement_goes_into_the_items_info(tmp_path: Path, datastore: StudyDatastore) -> None:
    study = Study(tmp_path / "studies", HIERARCHY)
    final = study.item("item-0").label_path("final")
    datastore.save_label("item-0", str(final), "original", {"params": {}})
    found = scoring_methods(make_parts(tmp_path))["agreement"]({}, datastore)
    assert set(found) == {"item-0"}
    assert found["item-0"]["classes"]["accuracy"] == 1.0
    assert datastore.get_image_info("item-0")["agreement"]["classes"]["mean_iou"] == 1.0
    known = (study.item("item-0").read_class_sets() != HIERARCHY.unknown).sum()
    assert found["item-0"]["classes"]["voxels"] == int(np.asarray(known))


def test_what_has_no_scores_is_scored_when_the_server_starts(
    tmp_path: Path, datastore: StudyDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, str]] = []

    def run(kind: str, request: dict[str, str], enqueue: bool) -> None:
        started.append((kind, request["method"]))

    monkeypatch.setattr(background.AsyncTask, "run", run)
    parts = make_parts(tmp_path)
    background.score_at_start(parts, datastore).join()
    assert started == [], "there are no weights"
    for seed in (0, 1):
        publish(parts, seed)
        background.score_at_start(parts, datastore).join()
        assert started == [("scoring", "uncertainty")]
        scoring_methods(parts)["uncertainty"]({"device": "cpu"}, datastore)
        background.score_at_start(parts, datastore).join()
        assert started == [("scoring", "uncertainty")], "all scores are fresh"
        started.clear()


def test_an_image_that_cannot_be_read_keeps_no_other_from_its_scores(
    tmp_path: Path, datastore: StudyDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path / "studies", HIERARCHY)
    (tmp_path / "studies" / "torn.nii").write_bytes(b"torn")
    path = study.item("item-0").image_path
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name("item-0.nii.gz").write_bytes(whole[: len(whole) // 2])
    parts = make_parts(tmp_path)
    publish(parts, 0)
    with pytest.raises(ValueError, match=r"1 items are scored, not these:\n.*item-0"):
        scoring_methods(parts)["uncertainty"]({"device": "cpu"}, datastore)
    store = parts.store(datastore)
    assert store.freshness(study.item("item-1"), parts.weights) == "fresh"
    assert set(datastore.get_labels_by_image_id("item-1")) == {"heat-uncertainty", "heat-hierarchy"}

    done: list[dict[str, Any]] = []

    def run(_kind: str, request: dict[str, Any], enqueue: bool) -> None:
        done.append({"status": "ERROR", "request": request})

    monkeypatch.setattr(background.AsyncTask, "run", run)
    monkeypatch.setattr(background, "tasks", lambda _kind: done)
    assert background.score_if_stale(parts, datastore)
    assert not background.score_if_stale(parts, datastore), "it would only fail again"
    publish(parts, 1)
    assert background.score_if_stale(parts, datastore)


def test_what_a_label_makes_known_is_counted_when_it_comes(
    tmp_path: Path, datastore: StudyDatastore
) -> None:
    parts = make_parts(tmp_path)
    parts.note_label(datastore, "item-0")
    counted = json.loads((tmp_path / "studies" / "scores" / "item-0.known.json").read_text())
    item = Study(tmp_path / "studies", HIERARCHY).item("item-0")
    known = (item.read_class_sets() != HIERARCHY.unknown).mean()
    assert np.mean(counted["share"]) == pytest.approx(float(known), abs=1e-3)
