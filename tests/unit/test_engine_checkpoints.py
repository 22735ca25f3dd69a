"""Weights files and checkpoints: whole, readable without pickle, refused where they do not fit."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_cases import HIERARCHY, tiny_settings

from lib.configs.settings import Settings
from lib.engine.checkpoints import random_states, restore_random_states
from lib.engine.state import RunState
from lib.labels.hierarchy import LabelHierarchy, flat_hierarchy, hierarchy_from_dict
from lib.networks.digests import digest_path, place_weights, read_checked, recorded_digest
from lib.networks.model import build_network
from lib.networks.weights import (
    check_fits,
    differences,
    load_network,
    load_weights,
    save_weights,
    with_new_parts,
    with_shape_of,
)

CPU = torch.device("cpu")


def written(path: Path, settings: Settings, hierarchy: LabelHierarchy = HIERARCHY) -> Path:
    torch.manual_seed(3)
    net = build_network(settings.model, settings.loss, hierarchy)
    save_weights(path, net.state_dict(), settings, hierarchy, {"step": 5, "score": 0.5})
    return path


def test_a_network_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    settings = tiny_settings(model__embedding_size=5)
    path = written(tmp_path / "model" / "w.pt", settings)
    net, read, hierarchy, meta = load_network(path)
    torch.manual_seed(3)
    again = build_network(settings.model, settings.loss, HIERARCHY)
    for key, value in again.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])
    assert read == settings and hierarchy.to_dict() == HIERARCHY.to_dict() and meta["step"] == 5
    assert not net.training
    assert sorted(p.name for p in path.parent.iterdir()) == ["w.pt", "w.pt.sha256"]


def test_files_that_are_no_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.pt: no such file"):
        load_weights(tmp_path / "missing.pt")
    path = written(tmp_path / "w.pt", tiny_settings())
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"half\.pt: cannot be read"):
        load_weights(tmp_path / "half.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "bare.pt")
    with pytest.raises(ValueError, match="bare state dicts"):
        load_weights(tmp_path / "bare.pt")


def test_a_changed_byte_or_a_cut_file_is_told_by_its_digest(tmp_path: Path) -> None:
    path = written(tmp_path / "w.pt", tiny_settings())
    whole = path.read_bytes()
    expected = hashlib.sha256(whole).hexdigest()
    assert digest_path(path).read_text() == f"{expected}  w.pt\n"
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (changed, whole[:-1000]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"w\.pt: damaged") as told:
            load_network(path)
        found = hashlib.sha256(damaged).hexdigest()
        assert all(part in str(told.value) for part in (found, expected, "sha256sum w.pt"))
    digest_path(path).write_text("no digest")
    with pytest.raises(ValueError, match=r"w\.pt\.sha256: expected 64 hexadecimal"):
        load_network(path)
    digest_path(path).unlink()
    path.write_bytes(whole)
    assert load_network(path)[3]["step"] == 5, "a file without a digest is read as it is"


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pt"
    place_weights(path, b"old")
    read, replaced = Path.read_bytes, []

    def read_late(self: Path) -> bytes:
        if not replaced:
            replaced.append(True)
            place_weights(path, b"new")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_late)
    assert read_checked(path) == b"new"


def test_a_kill_between_weights_and_digest_leaves_a_file_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pt"
    place_weights(path, b"old")

    def killed(target: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lib.networks.digests.write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        place_weights(path, b"new")
    assert read_checked(path) == b"new" and recorded_digest(path) is None


def test_a_pickle_that_runs_code_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"format": 1, "model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_every_difference_is_listed(tmp_path: Path) -> None:
    path = written(tmp_path / "w.pt", tiny_settings())
    data = load_weights(path)
    other = tiny_settings(model__head_size=8, model__embedding_size=4)
    found = differences(data, other, HIERARCHY)
    assert found == [
        "model.head_size: found 4; expected 8",
        "model.embedding_size: found 3; expected 4",
    ]
    without = differences(data, tiny_settings(loss__weight_prompt=0.0), HIERARCHY)
    assert without and all("in the file only" in line for line in without)
    with pytest.raises(ValueError, match=r"head_size[\s\S]*embedding_size") as refused:
        check_fits(path, data, other, HIERARCHY)
    assert str(path) in str(refused.value)
    check_fits(path, data, tiny_settings(), HIERARCHY)


def test_another_hierarchy_is_refused_with_its_classes_and_groups(tmp_path: Path) -> None:
    data = load_weights(written(tmp_path / "w.pt", tiny_settings()))
    regrouped = HIERARCHY.to_dict()
    regrouped["groups"]["organelle"] = ["nucleus", "mitochondria"]
    found = differences(data, tiny_settings(), hierarchy_from_dict(regrouped))
    assert found == [
        "group organelle: found {nucleus, mitochondria, fat globule}; "
        "expected {nucleus, mitochondria}"
    ]
    found = differences(data, tiny_settings(), flat_hierarchy(2))
    assert found[0].startswith("classes: found extracellular space") and len(found) == 6


def test_unset_shape_follows_the_file_and_set_shape_does_not(tmp_path: Path) -> None:
    data = load_weights(written(tmp_path / "w.pt", tiny_settings()))
    adopted = with_shape_of(Settings(), data)
    assert adopted.model.feature_size == 8 and adopted.loss.weight_prompt == 1.0
    assert not differences(data, adopted, HIERARCHY)
    kept = with_shape_of(tiny_settings(model__head_size=16), data)
    assert kept.model.head_size == 16


def test_random_states_go_through_a_file(tmp_path: Path) -> None:
    torch.save(random_states(), tmp_path / "r.pt")
    expected = (torch.rand(3), np.random.rand(3), random.random())  # noqa: NPY002
    restore_random_states(torch.load(tmp_path / "r.pt", weights_only=True))
    found = (torch.rand(3), np.random.rand(3), random.random())  # noqa: NPY002
    assert torch.equal(expected[0], found[0]) and expected[2] == found[2]
    np.testing.assert_array_equal(expected[1], found[1])


def test_a_checkpoint_holds_all_of_a_run(tmp_path: Path) -> None:
    settings = tiny_settings(training__ema_decay=0.9)
    state = RunState(settings, HIERARCHY, 10, CPU, None)
    for value in state.net.parameters():
        value.grad = torch.ones_like(value)
    state.advance()
    state.best = 0.25
    state.save(tmp_path / "c.pt", finished=False)
    data = load_weights(tmp_path / "c.pt")
    assert {"model", "optimiser", "schedule", "scaler", "average", "random", "sampler"} <= set(data)
    assert {"settings", "hierarchy", "epoch", "step"} <= set(data)
    assert "learning_rate" in (tmp_path / "c.yaml").read_text()
    again = RunState(settings, HIERARCHY, 10, CPU, None)
    again.load_state_dict(data)
    assert (again.step, again.best) == (1, 0.25)
    assert again.schedule.get_last_lr() == state.schedule.get_last_lr()
    for one, two in zip(state.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(
            state.optimiser.state[one]["exp_avg"], again.optimiser.state[two]["exp_avg"]
        )
    with again.averaged():
        held = again.net.state_dict()
        assert all(torch.equal(held[k], v) for k, v in state.average.average.items())
    with pytest.raises(ValueError, match="start from it"):
        again.load_state_dict(load_weights(written(tmp_path / "w.pt", settings)))


def test_a_run_goes_on_at_the_rate_of_its_settings(tmp_path: Path) -> None:
    rates = {"training__schedule": "constant", "training__warmup_steps": 0}
    state = RunState(tiny_settings(**rates, training__learning_rate=1e-3), HIERARCHY, 10, CPU, None)
    for value in state.net.parameters():
        value.grad = torch.ones_like(value)
    state.advance()
    state.save(tmp_path / "c.pt", finished=False)
    again = RunState(tiny_settings(**rates, training__learning_rate=4e-3), HIERARCHY, 10, CPU, None)
    again.load_state_dict(load_weights(tmp_path / "c.pt"))
    for _ in range(2):
        assert [group["lr"] for group in again.optimiser.param_groups] == [4e-3, 4e-3]
        again.skip()


def test_weights_without_a_fine_path_start_a_run_that_has_one(tmp_path: Path) -> None:
    path = written(tmp_path / "w.pt", tiny_settings())
    wanted = tiny_settings(model__fine_features=4, loss__weight_affinity=1.0)
    data = load_weights(path)
    assert differences(data, wanted, HIERARCHY)
    grown = with_new_parts(data, wanted, HIERARCHY)
    check_fits(path, grown, wanted, HIERARCHY)
    state = RunState(wanted, HIERARCHY, 10, CPU, None)
    state.start_from(grown["model"])
    old = load_network(path)[0]
    state.net.eval()
    image = torch.rand(1, 1, 16, 16, 4)
    before, after = old(image), state.net(image)
    assert all(torch.equal(before[key], after[key]) for key in before)
    # of another width they are refused, not taken for new
    again = written(tmp_path / "fine.pt", wanted)
    wider = tiny_settings(model__fine_features=8, loss__weight_affinity=1.0)
    found = differences(with_new_parts(load_weights(again), wider, HIERARCHY), wider, HIERARCHY)
    assert found == ["model.fine_features: found 4; expected 8"]
    # a part that the run does not ask for is not added
    plain = tiny_settings()
    assert with_new_parts(data, plain, HIERARCHY)["model"].keys() == data["model"].keys()


def test_the_shipped_weights_of_older_versions_have_no_new_parts(tmp_path: Path) -> None:
    path = written(tmp_path / "w.pt", tiny_settings())
    data = load_weights(path)
    del data["settings"]["model"]["fine_features"]
    del data["settings"]["loss"]["weight_affinity"]
    save = tmp_path / "old.pt"
    torch.save(data, save)
    net, read, *_ = load_network(save)
    assert net.backbone.fine is None and "affinity" not in net.task_heads.layers
    assert read == tiny_settings()
