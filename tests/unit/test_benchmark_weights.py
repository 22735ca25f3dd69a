"""`make weights` in slices: packed data, a checkpoint in small files, a device's settings."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_cases import HIERARCHY, add_cells, tiny_settings, tiny_study

from benchmarks import data_pack
from benchmarks.fit_device import FILE, LARGEST_BATCH, device_settings, fitting_batch
from lib.engine.commands import _StopSignal
from lib.engine.run import RunOptions, train
from lib.networks.devices import compile_backbone
from lib.networks.model import build_network
from lib.volumes.study import Study


def test_a_pack_keeps_labels_and_records_exactly_and_images_nearly(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", HIERARCHY)
    known = np.zeros((40, 48, 36), bool)
    known[4:, :40] = True
    add_cells(study, "a-train", (40, 48, 36), known=known, split="train", true_instances=False)
    add_cells(study, "flat", (40, 32, 1), fully_annotated=True, extra={"group": "other"})
    study.add_item("bare", np.zeros((8, 8, 2), np.uint8), (10.0, 10.0, 40.0))
    data_pack.pack([study.root], tmp_path / "pack", HIERARCHY)
    back = Study(tmp_path / "back", HIERARCHY)
    assert data_pack.unpack(tmp_path / "pack", back) == 2
    assert [item.id for item in back.items()] == ["a-train", "flat"]
    for item in back.items():
        source = study.item(item.id)
        np.testing.assert_array_equal(item.read_class_sets(), source.read_class_sets())
        ids, theirs = item.read_instances(), source.read_instances()
        np.testing.assert_array_equal(ids < 1, theirs < 1)
        np.testing.assert_array_equal(ids == -1, theirs == -1)
        pairs = np.unique(np.stack([ids.ravel(), theirs.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
        image = np.asarray(item.open_image()[:, :, :]).astype(float)
        wanted = np.asarray(source.open_image()[:, :, :]).astype(float)
        assert np.corrcoef(image.ravel(), wanted.ravel())[0, 1] > 0.97
        for name in ("voxel_size_nm", "split", "true_instances", "fully_annotated", "extra"):
            assert getattr(item.record, name) == getattr(source.record, name)


def test_a_file_is_cut_into_small_parts_and_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_pack, "PART_BYTES", 1000)
    data = np.random.default_rng(0).bytes(3500)
    data_pack.cut(data + data, tmp_path)
    data_pack.cut(data, tmp_path)  # fewer parts: none is left over
    assert [p.stat().st_size for p in sorted(tmp_path.iterdir())] == [1000, 1000, 1000, 500]
    assert data_pack.join(tmp_path) == data
    (tmp_path / "part-01").unlink()
    with pytest.raises(ValueError, match=r"found parts part-00, part-02, part-03; expected"):
        data_pack.join(tmp_path)


def test_the_batch_fits_the_memory_and_every_slice_has_the_same(tmp_path: Path) -> None:
    gib = 2**30
    assert fitting_batch(80 * gib, 9 * gib) == 6
    assert fitting_batch(8 * gib, 9 * gib) == 1
    assert fitting_batch(800 * gib, gib) == LARGEST_BATCH
    (tmp_path / FILE).write_text('["training.batch_size=6"]')
    assert device_settings(tmp_path, Path("any.yaml")) == ["training.batch_size=6"]
    if not torch.cuda.is_available():
        assert device_settings(tmp_path / "new", Path("any.yaml")) == []


def test_a_run_stops_when_its_minutes_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.engine.commands.signal.signal", lambda *_: None)
    now = time.monotonic()
    monkeypatch.setattr("lib.engine.commands.time.monotonic", lambda: now)
    stop, never = _StopSignal(9), _StopSignal()
    monkeypatch.setattr("lib.engine.commands.time.monotonic", lambda: now + 539)
    assert not stop() and not never()
    monkeypatch.setattr("lib.engine.commands.time.monotonic", lambda: now + 541)
    assert stop() and not never()


def test_slices_give_the_weights_of_one_run(tmp_path: Path) -> None:
    study = tiny_study(tmp_path / "study")
    settings = tiny_settings(
        training__val_interval=100, training__training_modes="[automatic]", loss__weight_prompt=0.0
    )

    def run(out: Path, stop_after: int) -> dict[str, torch.Tensor]:
        done: list[int] = []
        options = RunOptions(
            (study.root,), out, max_steps=2, validation_limit=0,
            stop=lambda: len(done) >= stop_after, progress=lambda step, *_: done.append(step),
        )  # fmt: skip
        train(settings, options)
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        assert state["step"] == min(stop_after, 2)
        found: dict[str, torch.Tensor] = state["model"]
        return found

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "first", 1)
    # what a lent machine takes along is the parts alone
    data_pack.cut((tmp_path / "first" / "checkpoint.pt").read_bytes(), tmp_path / "parts")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "checkpoint.pt").write_bytes(data_pack.join(tmp_path / "parts"))
    sliced = run(tmp_path / "second", 3)
    assert all(torch.equal(whole[key], sliced[key]) for key in whole)


def test_a_compiled_backbone_gives_the_same_features_and_gradients() -> None:
    settings = tiny_settings(training__compile="aot_eager", model__fine_features=4)
    net = build_network(settings.model, settings.loss, HIERARCHY).double()
    names = list(net.state_dict())
    image = torch.rand(1, 1, 16, 16, 4, dtype=torch.float64)

    def both() -> list[torch.Tensor]:
        features = net.features(image)
        return [features, *torch.autograd.grad(features.square().sum(), net.backbone.parameters())]

    plain = both()
    compile_backbone(net, settings.training)
    compiled = both()
    assert list(net.state_dict()) == names
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
