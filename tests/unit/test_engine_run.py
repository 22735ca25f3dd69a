"""Whole runs: they resume exactly, stop on NaN, log what is specified, and share the work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import HIERARCHY, add_cells, tiny_settings, tiny_study
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lib.engine.run as run_module
from lib.configs.load import dump_settings
from lib.configs.settings import Settings
from lib.engine.optimise import FAULTS_IN_A_ROW, NotFiniteError
from lib.engine.pictures import GAP_PIXELS, TITLE_PIXELS
from lib.engine.run import RunOptions, train
from lib.networks.weights import load_weights
from lib.volumes.study import Study

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(900)  # several processes start, one after the other

KILLED = """
import os, signal, sys
from pathlib import Path
from lib.configs.load import load_settings
from lib.engine.run import RunOptions, train
from lib.volumes.atomic import StagedFiles

study, out, config, moment = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "step":
    progress = lambda step, total, figures: die() if step == 5 else None
else:
    progress = lambda *_: None
    commit, count = StagedFiles.commit, [0]
    def commit_or_die(self):
        if any(target.name == "checkpoint.pt" for _, _, target in self._files):
            count[0] += 1
            if count[0] == 3:
                die()
        commit(self)
    StagedFiles.commit = commit_or_die
train(load_settings(config), RunOptions((Path(study),), Path(out), progress=progress))
"""


def options_of(study: Path, out: Path, **changes: Any) -> RunOptions:
    return RunOptions(studies=(study,), out_dir=out, **changes)


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = load_weights(out / "checkpoint.pt")["model"]
    return model


def largest_difference(one: Path, other: Path) -> float:
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def scalars_of(out: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(out / "events")).Reload()
    return {k: [e.value for e in events.Scalars(k)] for k in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    tiny_study(root)
    return root


@pytest.fixture(scope="module")
def settings() -> Settings:
    return tiny_settings(training__ema_decay=0.5, training__workers=1)


@pytest.fixture(scope="module")
def uninterrupted(
    study: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("whole")
    result = train(settings, options_of(study, out))
    assert result.steps == 6 and not result.stopped
    return out


@pytest.mark.parametrize("moment", ["step", "checkpoint"])
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    moment: str, study: Path, settings: Settings, uninterrupted: Path, tmp_path: Path
) -> None:
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    config.write_text(dump_settings(settings))
    arguments = [str(study), str(out), str(config), moment]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT)
    assert killed.returncode == -9
    before = load_weights(out / "checkpoint.pt")
    assert before["step"] == 4 and not before["finished"]
    result = train(settings, options_of(study, out))
    assert result.steps == 6
    assert largest_difference(out, uninterrupted) <= 1e-6
    one, other = (load_weights(path / "checkpoint.pt") for path in (out, uninterrupted))
    assert one["finished"] and one["best"] == other["best"]
    for key, value in one["average"]["average"].items():
        torch.testing.assert_close(value, other["average"]["average"][key], rtol=0, atol=1e-6)


def test_a_run_can_be_stopped_between_steps_and_goes_on(
    study: Path, settings: Settings, uninterrupted: Path, tmp_path: Path
) -> None:
    steps: list[int] = []
    result = train(
        settings,
        options_of(
            study,
            tmp_path,
            progress=lambda step, total, figures: steps.append(step),
            stop=lambda: len(steps) == 3,
        ),
    )
    assert result.stopped and steps == [1, 2, 3]
    assert train(settings, options_of(study, tmp_path)).steps == 6
    assert largest_difference(tmp_path, uninterrupted) <= 1e-6


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on(
    study: Path, settings: Settings, tmp_path: Path
) -> None:
    train(settings, options_of(study, tmp_path, max_steps=2))
    weights = weights_of(tmp_path)
    assert train(settings, options_of(study, tmp_path, max_steps=2)).steps == 2
    assert all(torch.equal(v, weights[k]) for k, v in weights_of(tmp_path).items())
    assert train(settings, options_of(study, tmp_path, max_steps=3)).steps == 3


def test_scores_of_other_validation_places_do_not_count_any_more(tmp_path: Path) -> None:
    study, notes = tiny_study(tmp_path / "study"), []
    options = options_of(study.root, tmp_path / "run", note=notes.append, published=None)
    train(tiny_settings(training__max_epochs=1), options)
    data = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    data["best"] = 2.0  # no score is as good
    torch.save(data, tmp_path / "run" / "checkpoint.pt")
    assert train(tiny_settings(training__max_epochs=2), options).best == 2.0
    add_cells(study, "b-val", (32, 32, 8), split="val")
    result = train(tiny_settings(training__max_epochs=3), options)
    assert result.best is not None and result.best < 1.0
    assert any("validation places have changed" in note for note in notes)


def test_a_checkpoint_of_another_network_is_refused(study: Path, tmp_path: Path) -> None:
    train(tiny_settings(), options_of(study, tmp_path, max_steps=1))
    with pytest.raises(ValueError, match=r"model\.head_size: found 4; expected 8"):
        train(tiny_settings(model__head_size=8), options_of(study, tmp_path))


def test_the_log_has_the_specified_keys(study: Path, uninterrupted: Path) -> None:
    found = scalars_of(uninterrupted)
    parts = ["", "_sem", "_sem/ce", "_sem/iou", "_sem/dice", "_sem/coarse"]
    parts += ["_ins", "_ins/pull", "_ins/push", "_ins/norm"]
    parts += ["_geom", "_geom/dir", "_geom/cov", "_geom/raw"]
    expected = {f"train/{mode}/loss{p}" for mode in ("automatic", "proofread") for p in parts}
    expected |= {"train/loss", "train/learning_rate", "train/gradient_norm"}
    expected |= {"train/samples_per_second", "train/data_wait", "train/proofread/residual_ratio"}
    expected |= {"train/proofread/loss_prompt", "train/largest_weight"}
    assert {key for key in found if key.startswith("train/")} == expected
    assert all(len(found[key]) == 6 for key in expected)
    # the edge weight at least, edge times bone weight at most
    assert all(10.0 <= weight <= 100.0 for weight in found["train/largest_weight"])
    for both, one, two in zip(
        found["train/loss"],
        found["train/automatic/loss"],
        found["train/proofread/loss"],
        strict=True,
    ):
        assert both == pytest.approx((one + two) / 2, rel=1e-5)
    assert {"val/mean_iou", "val/accuracy", "val/are", "val/prompt_gain", "val/iou/axon"} <= set(
        found
    )
    assert len(found["val/score"]) == 3


def test_pictures_of_a_validation_section_are_logged(study: Path, tmp_path: Path) -> None:
    one_mode = tiny_settings(
        training__image_interval=1, training__training_modes=["automatic"], training__max_epochs=1
    )
    train(one_mode, options_of(study, tmp_path))
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    (picture,) = events.Images("val/section")
    panels = Image.open(io.BytesIO(picture.encoded_image_string))
    gaps = 3 * 256 + 2 * GAP_PIXELS, 2 * (256 + TITLE_PIXELS) + GAP_PIXELS
    assert panels.size == gaps, "six panels of 32 voxels, magnified to 256 pixels and titled"
    titles = np.asarray(panels.convert("L"))[:TITLE_PIXELS]
    for left in (0, 256 + GAP_PIXELS, 2 * (256 + GAP_PIXELS)):
        assert titles[:, left : left + 256].min() < 128, "a panel without a title"
    assert not any("proofread" in key for key in events.Tags()["scalars"])


def with_nan(steps: set[int]) -> Any:
    """The combined step, whose gradients are NaN in some of its calls."""
    genuine, calls = run_module.combined_step, [0]

    def step(context: Any, batch: Any, prompts: Any, share: float, *more: Any) -> Any:
        result = genuine(context, batch, prompts, share, *more)
        if calls[0] in steps:
            next(context.net.parameters()).grad.fill_(float("nan"))
        calls[0] += 1
        return result

    return step


def test_one_step_with_nan_changes_nothing_and_is_written_down(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "combined_step", with_nan({1}))
    result = train(tiny_settings(), options_of(study, tmp_path, max_steps=4))
    assert result.steps == 4
    assert all(bool(torch.isfinite(v).all()) for v in weights_of(tmp_path).values())
    (dump,) = (tmp_path / "faults").iterdir()
    written = torch.load(dump, weights_only=True)
    assert written["step"] == 1 and written["gradients"] and written["batches"][0]["item"]


def test_three_in_a_row_end_the_run_with_the_last_good_checkpoint(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "combined_step", with_nan({2, 3, 4}))
    with pytest.raises(NotFiniteError, match=r"3 steps in a row.*step 4.*a-train"):
        train(tiny_settings(), options_of(study, tmp_path))
    assert FAULTS_IN_A_ROW == 3
    data = load_weights(tmp_path / "checkpoint.pt")
    assert data["step"] == 2
    assert all(bool(torch.isfinite(v).all()) for v in data["model"].values())


def test_a_study_without_labels_is_told_plainly(tmp_path: Path) -> None:
    bare = Study(tmp_path / "s", HIERARCHY)
    bare.add_item("n", np.zeros((32, 32, 8), np.uint8), (10.0, 10.0, 40.0))
    with pytest.raises(ValueError, match=r"nothing to train on: no annotated item"):
        train(tiny_settings(), options_of(tmp_path / "s", tmp_path / "out"))


def test_full_partial_and_absent_labels_train_together_and_publish(tmp_path: Path) -> None:
    mixed = Study(tmp_path / "s", HIERARCHY)
    half = np.zeros((64, 64, 16), bool)
    half[:40] = True
    add_cells(mixed, "full", split="train")
    add_cells(mixed, "partly", known=half, split="train")
    add_cells(mixed, "held-out", (32, 32, 8), split="val")
    mixed.add_item("bare", np.zeros((32, 32, 8), np.uint8), (10.0, 10.0, 40.0))
    published = tmp_path / "model" / "neuropil.pt"
    settings = tiny_settings()
    first = train(settings, options_of(mixed.root, tmp_path / "a", published=published))
    assert first.published and first.best is not None
    content = published.read_bytes()
    taught = load_weights(published)["meta"]["classes_learned"]
    assert set(taught) == {HIERARCHY.class_names[c] for c in told_alone(mixed)}
    again = options_of(
        mixed.root, tmp_path / "b", published=published, start=published, max_steps=1
    )
    second = train(tiny_settings(training__learning_rate=1e-9), again)
    assert not second.published and "not above" in second.reason
    assert published.read_bytes() == content


def told_alone(study: Study) -> set[int]:
    """The classes that labels of a study name by themselves."""
    sets = {int(v) for i in study.items() for v in np.unique(i.read_class_sets())}
    told = [HIERARCHY.members(v) for v in sets]
    return {members[0] for members in told if len(members) == 1}


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    """One item is partly known and one has no object, so every share differs by process."""
    mixed = Study(tmp_path / "s", HIERARCHY)
    known = np.random.default_rng(0).random((64, 64, 16)) < 0.6
    add_cells(mixed, "a-partly", known=known, split="train")
    add_cells(mixed, "b-full", split="train")
    add_cells(mixed, "a-val", (32, 32, 8), split="val")
    none = np.full((64, 64, 16), HIERARCHY.set_named("tear"), np.int32)
    noise = np.random.default_rng(1).integers(0, 255, none.shape).astype(np.uint8)
    mixed.add_item(
        "c-empty", noise, (10.0, 10.0, 40.0), none, np.zeros(none.shape, np.int64), split="train"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone, shared = (
        tiny_settings(
            training__batch_size=size,
            training__fractionary_prompts=False,
            training__schedule="constant",
            training__learning_rate=1e-8,  # Adam turns rounding into steps of this size
        )
        for size in (2, 1)
    )
    config = tmp_path / "2.yaml"
    config.write_text(dump_settings(shared))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(ROOT / "main.py"), "train", "--quiet"]
    command += ["--from-scratch", "--studies", str(mixed.root), "--config", str(config)]
    command += ["--out", str(tmp_path / "2")]
    processes = subprocess.Popen(command, cwd=ROOT, env=environment)
    train(alone, options_of(mixed.root, tmp_path / "1"))  # while the others start
    assert processes.wait() == 0
    one, two = scalars_of(tmp_path / "1"), scalars_of(tmp_path / "2")
    assert one.keys() == two.keys()
    for key in one:
        if key.startswith("train/") and key.split("/")[-1] not in (
            "samples_per_second", "data_wait", "residual_ratio"
        ):  # fmt: skip
            np.testing.assert_allclose(two[key], one[key], rtol=1e-4, atol=1e-6, err_msg=key)
    np.testing.assert_allclose(two["val/score"], one["val/score"], atol=1e-3)
    averages = [
        load_weights(tmp_path / name / "checkpoint.pt")["optimiser"]["state"] for name in "12"
    ]
    assert averages[0].keys() == averages[1].keys()
    for key, state in averages[0].items():  # the running mean of all gradients
        found, expected = averages[1][key]["exp_avg"], state["exp_avg"]
        assert float((found - expected).norm()) <= 2e-3 * float(expected.norm()) + 1e-7
