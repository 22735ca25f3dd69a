"""Published weights change for better ones only, whole or not at all, and come back."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
from engine_cases import HIERARCHY, tiny_settings

from lib.engine.publish import KEPT_VERSIONS, Publisher, keep_version, restore_version, versions
from lib.labels.hierarchy import flat_hierarchy
from lib.networks.digests import digest_path, recorded_digest
from lib.networks.model import NeuropilNet, build_network
from lib.networks.weights import load_network, save_weights

SETTINGS = tiny_settings()


def state_of(mark: float) -> dict[str, torch.Tensor]:
    """Weights that can be told apart by one number."""
    state = build_network(SETTINGS.model, SETTINGS.loss, HIERARCHY).state_dict()
    state["prompt_encoder.gate"] = torch.full_like(state["prompt_encoder.gate"], mark)
    return state


def mark_of(net: NeuropilNet) -> float:
    return float(net.prompt_encoder.gate.detach().mean())


def publisher(path: Path) -> Publisher:
    """Scores a network by its mark."""
    return Publisher(path, SETTINGS, HIERARCHY, mark_of, torch.device("cpu"))


def published(path: Path) -> float:
    return mark_of(load_network(path)[0])


def test_only_better_weights_are_published_and_the_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "model" / "neuropil.pt"
    assert publisher(path).offer(state_of(0.5), 0.5, {})[0]
    worse, reason = publisher(path).offer(state_of(0.25), 0.25, {})
    assert not worse and "0.2500" in reason and "0.5000" in reason
    assert published(path) == 0.5 and not versions(path)
    assert not publisher(path).offer(state_of(0.5), 0.5, {})[0], "as good is not better"
    assert publisher(path).offer(state_of(0.75), 0.75, {})[0]
    assert published(path) == 0.75
    assert [published(v) for v in versions(path)] == [0.5]
    assert not list(path.parent.glob(".*"))


def test_both_are_scored_on_the_same_places_whatever_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "neuropil.pt"
    save_weights(path, state_of(0.75), SETTINGS, HIERARCHY, {"score": 0.1})
    assert not publisher(path).offer(state_of(0.5), 0.5, {})[0]
    assert published(path) == 0.75


def test_without_a_figure_nothing_that_exists_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "neuropil.pt"
    assert publisher(path).offer(state_of(0.5), math.nan, {})[0]
    done, reason = publisher(path).offer(state_of(0.75), math.nan, {})
    assert not done and "no validation voxel" in reason


def test_weights_of_another_hierarchy_are_replaced_and_kept(tmp_path: Path) -> None:
    path, other = tmp_path / "neuropil.pt", flat_hierarchy(2)
    net = build_network(SETTINGS.model, SETTINGS.loss, other)
    save_weights(path, net.state_dict(), SETTINGS, other)
    assert publisher(path).offer(state_of(0.1), 0.1, {})[0]
    assert len(versions(path)) == 1


def test_versions_come_back_and_few_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "neuropil.pt"
    with pytest.raises(ValueError, match="no previous weights"):
        restore_version(path)
    for k in range(KEPT_VERSIONS + 3):
        assert publisher(path).offer(state_of(k / 64), k / 64, {})[0]
    assert len(versions(path)) == KEPT_VERSIONS
    last, before = (KEPT_VERSIONS + 2) / 64, (KEPT_VERSIONS + 1) / 64
    restore_version(path)
    assert published(path) == before
    restore_version(path)
    assert published(path) == last, "restoring keeps what it replaces"


def test_a_damaged_version_is_not_restored(tmp_path: Path) -> None:
    path = tmp_path / "neuropil.pt"
    for k in (1, 2):
        publisher(path).offer(state_of(k / 4), k / 4, {})
    versions(path)[0].write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        restore_version(path)
    assert published(path) == 0.5


def test_digests_follow_publication_and_restoring(tmp_path: Path) -> None:
    path = tmp_path / "neuropil.pt"
    for k in range(KEPT_VERSIONS + 2):
        assert publisher(path).offer(state_of(k / 64), k / 64, {})[0]
        assert recorded_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    restore_version(path)
    assert recorded_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    kept = sorted((tmp_path / "previous").iterdir())
    assert kept == sorted(f for v in versions(path) for f in (v, digest_path(v)))


def test_a_published_file_that_was_damaged_is_kept_but_not_restored(tmp_path: Path) -> None:
    path = tmp_path / "neuropil.pt"
    publisher(path).offer(state_of(0.25), 0.25, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        publisher(path).offer(state_of(0.5), 0.5, {})
    keep_version(path)
    save_weights(path, state_of(0.5), SETTINGS, HIERARCHY)
    assert published(path) == 0.5
    with pytest.raises(ValueError, match="damaged"):
        restore_version(path)
