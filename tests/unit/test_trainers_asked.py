"""A viewer's request to train: its options, devices and folders; what is told while it runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_cases import HIERARCHY, tiny_settings, tiny_study

from lib.engine.recipe import DEFAULT, RECIPE, SET
from lib.engine.run import RunResult
from lib.networks.model import build_network
from lib.networks.weights import save_weights
from lib.trainers import combined
from lib.trainers.combined import EPOCHS, STEPS_PER_EPOCH, Combined, _Progress
from lib.trainers.tracking import EXPERIMENT, Tracker


@pytest.fixture
def trainer(tmp_path: Path) -> Combined:
    tiny_study(tmp_path / "study")
    model = tmp_path / "model"
    return Combined(model, model / "neuropil.pt", tmp_path / "study", tiny_settings())


def publish(trainer: Combined) -> None:
    settings = tiny_settings(training__num_pos_points=7)
    net = build_network(settings.model, settings.loss, HIERARCHY)
    save_weights(trainer.published, net.state_dict(), settings, HIERARCHY)


def test_what_a_request_leaves_out_is_the_first_choice(trainer: Combined) -> None:
    asked = trainer.asked({"max_epochs": 9, "publish": ["never"], "learning_rate": (1e-3, 1.0)})
    assert asked["max_epochs"] == 9 and asked["publish"] == "never"
    assert asked["learning_rate"] == 1e-3
    assert asked["steps_per_epoch"] == STEPS_PER_EPOCH and asked["pretrained"] is True
    assert asked["training_modes"] == "automatic + proofread" and asked["tracking"] == "None"
    assert trainer.asked({"more": []})["more"] == [], "an empty list has no first"


def test_the_defaults_are_a_short_run_validated_once_at_its_end(trainer: Combined) -> None:
    settings, options = trainer.plan(trainer.asked({}))
    training = settings.training
    assert (training.max_epochs, training.steps_per_epoch) == (EPOCHS, STEPS_PER_EPOCH)
    assert training.val_interval == EPOCHS and training.learning_rate == 2e-4
    assert options.studies == (trainer.study,) and options.out_dir == trainer.folder / "train_01"
    assert options.start is None, "nothing is published yet"
    assert options.rehearsal_share == trainer.settings.adaptation.rehearsal_share


def test_where_each_setting_comes_from_is_told(trainer: Combined) -> None:
    publish(trainer)
    settings, options = trainer.plan(trainer.asked({}))
    assert settings.training.num_pos_points == 7, "of the weights' recipe"
    assert options.origins["training.num_pos_points"] == RECIPE
    for key in ("training_modes", "learning_rate", "max_epochs", "point_sample_mode"):
        assert options.origins[f"training.{key}"] == SET
    assert options.origins["training.seed"] == DEFAULT


@pytest.mark.parametrize(
    ("device", "chosen"), [("cpu", "cpu"), ("cuda", None), ("cuda:1", "cuda:1"), (["cpu"], "cpu")]
)
def test_all_gpus_are_meant_unless_one_is_named(
    trainer: Combined, device: Any, chosen: str | None
) -> None:
    assert trainer.plan(trainer.asked({"device": device}))[1].device == chosen


@pytest.mark.parametrize("name", ["run 1", "", ".hidden", "a/b", "-x", "a" * 129, 3, ["../x"]])
def test_a_name_that_is_no_folder_is_refused(trainer: Combined, name: Any) -> None:
    with pytest.raises(ValueError, match=r"name: expected letters, digits, '_', '-' or '\.'"):
        trainer.plan(trainer.asked({"name": name}))


@pytest.mark.parametrize("name", ["a", "run-1.2_x", "a" * 128])
def test_a_name_that_is_a_folder_is_taken(trainer: Combined, name: str) -> None:
    assert trainer.plan(trainer.asked({"name": name}))[1].out_dir.name == name


def test_a_run_from_weights_rehearses_and_has_to_beat_a_refit(
    trainer: Combined, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(trainer)
    asked: list[Path] = []

    def study(folder: Path, _settings: Any) -> Path:
        asked.append(folder)
        return folder / "rehearsal"

    monkeypatch.setattr(combined, "rehearsal_study", study)
    settings, options = trainer.plan(trainer.asked({}))
    made = trainer._beside_what_is_there(options, settings)
    assert asked == [trainer.published.parent]
    assert made.rehearsal == trainer.published.parent / "rehearsal"
    assert made.adapt is not None
    off = trainer.settings.adaptation.model_copy(update={"enabled": False})
    trainer.settings = trainer.settings.model_copy(update={"adaptation": off})
    assert trainer._beside_what_is_there(options, settings).adapt is None
    assert made.start == options.start and made.out_dir == options.out_dir


def test_progress_is_told_once_an_epoch_and_at_the_end(tmp_path: Path) -> None:
    settings = tiny_settings(training__steps_per_epoch=3, training__max_epochs=3)
    progress = _Progress(tmp_path / "stats.json", settings)
    told = []
    for step in range(1, 9):
        progress.path.unlink(missing_ok=True)
        progress(step, 8, {"train/loss": float(step)})
        if progress.path.exists():
            stats = json.loads(progress.path.read_text())
            told.append((step, stats["epoch"], stats["train"]["metrics"]["train/loss"]))
    assert told == [(3, 1, 3.0), (6, 2, 6.0), (8, 2, 8.0)]


def test_the_end_of_a_run_is_told_with_its_reason(tmp_path: Path) -> None:
    progress = _Progress(tmp_path / "stats.json", tiny_settings())
    result = RunResult(steps=6, best=0.5, published=True, reason="better")
    progress.write(6, {}, result)
    stats = json.loads(progress.path.read_text())
    assert stats["best_metric"] == stats["eval"]["best_metric"] == 0.5
    assert stats["published"] is True and stats["reason"] == "better"
    progress.write(6, {}, replace(result, best=-math.inf, published=False))
    stats = json.loads(progress.path.read_text())
    assert stats["best_metric"] == 0.0 and stats["eval"]["best_metric"] is None
    assert stats["published"] is False


class MLflow(SimpleNamespace):
    """What a tracker calls, in order."""

    def __init__(self) -> None:
        super().__init__(calls=[])

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.calls.append((name, *args, *more.values()))


def test_a_tracked_run_is_one_run_from_its_first_step_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = MLflow()
    monkeypatch.setattr("lib.trainers.tracking.find_spec", lambda _: object())
    monkeypatch.setattr("lib.trainers.tracking.import_module", lambda _: mlflow)
    tracker = Tracker.of("mlflow", tmp_path)
    assert tracker.uri == f"sqlite:///{tmp_path / 'mlflow.db'}" and not mlflow.calls
    tracker(1, {"train/loss": 2.0})
    tracker(2, {"train/loss": 1.0})
    tracker.close({"val/score": 0.5}, 2)
    assert mlflow.calls == [
        ("set_tracking_uri", tracker.uri),
        ("set_experiment", EXPERIMENT),
        ("start_run",),
        ("log_metrics", {"train.loss": 2.0}, 1),
        ("log_metrics", {"train.loss": 1.0}, 2),
        ("log_metrics", {"val.score": 0.5}, 2),
        ("end_run",),
    ]


@pytest.mark.parametrize("choice", [None, "", "None"])
def test_an_untracked_run_calls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: Any
) -> None:
    def never(_: str) -> None:
        raise AssertionError("no tracker is asked for")

    monkeypatch.setattr("lib.trainers.tracking.import_module", never)
    tracker = Tracker.of(choice, tmp_path)
    tracker(1, {"train/loss": 1.0})
    tracker.close({}, 1)


def test_tracking_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.trainers.tracking.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="mlflow where it is installed; found 'mlflow'"):
        Tracker.of("mlflow", tmp_path)
