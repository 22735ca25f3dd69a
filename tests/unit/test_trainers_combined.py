"""The trainer that viewers see: its options, its bounds, its figures."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import HIERARCHY, tiny_settings, tiny_study

from lib.configs.places import PUBLISHED
from lib.configs.settings import Settings
from lib.engine.checkpoints import save_checkpoint
from lib.engine.run import RunResult
from lib.networks.model import build_network
from lib.networks.weights import load_network, load_weights, save_weights
from lib.trainers.combined import NOTHING_ANNOTATED, Combined, _Progress
from lib.trainers.tracking import Tracker, metric_name
from lib.volumes.study import Study

QUICK = {"max_epochs": 1, "steps_per_epoch": 1, "device": "cpu"}


@pytest.fixture
def trainer(tmp_path: Path) -> Combined:
    tiny_study(tmp_path / "study")
    model = tmp_path / "model"
    return Combined(model, model / "neuropil.pt", tmp_path / "study", tiny_settings())


def first_choices(trainer: Combined, **changes: Any) -> dict[str, Any]:
    """What a viewer sends: the first of every list, and what the user changed."""
    config = trainer.config()
    return {k: v[0] if isinstance(v, list) else v for k, v in config.items()} | changes


def test_choices_are_lists_and_tracking_is_off_by_default(trainer: Combined) -> None:
    config = trainer.config()
    assert config["tracking"][0] == "None"
    assert config["training_modes"][0] == "automatic + proofread"
    assert config["publish"][0] == "if better"
    json.dumps(trainer.info(), allow_nan=False)


def test_a_run_is_bounded_and_starts_from_the_published_weights(trainer: Combined) -> None:
    settings = tiny_settings(model__embedding_size=7)
    net = build_network(settings.model, settings.loss, HIERARCHY)
    save_weights(trainer.published, net.state_dict(), settings, HIERARCHY)
    trainer.settings = tiny_settings().model_copy(
        update={"model": tiny_settings().model.__class__(feature_size=8, head_size=4)}
    )
    planned, options = trainer.plan(first_choices(trainer))
    assert options.start == trainer.published and options.published == trainer.published
    assert planned.model.embedding_size == 7, "the network keeps the published shape"
    assert planned.training.max_epochs * planned.training.steps_per_epoch <= 200
    planned, options = trainer.plan(
        first_choices(trainer, pretrained=False, publish="never", training_modes="automatic")
    )
    assert options.start is None and options.published is None
    assert planned.training.training_modes == ("automatic",)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("training_modes", "both", "automatic"),
        ("publish", "always", "if better"),
        ("max_epochs", 0, "training.max_epochs"),
        ("learning_rate", "fast", "training.learning_rate"),
        ("max_epochs", "abc", "training.max_epochs"),
        ("max_epochs", "[", "training.max_epochs"),
        ("max_epochs", None, "training.max_epochs"),
        ("max_epochs", float("inf"), "training.max_epochs"),
        ("max_epochs", {}, "training.max_epochs"),
        ("steps_per_epoch", 10**30, "training.steps_per_epoch"),
        ("training_modes", {}, "automatic"),
        ("training_modes", ["automatic"], "automatic"),
        ("point_sample_mode", {}, "training.point_sample_mode"),
        ("pretrained", "yes", "true, false"),
        ("multi_gpu", 1, "true, false"),
        ("tracking", "x", "None"),
        ("name", None, "letters"),
        ("name", "../x", "letters"),
    ],
)
def test_options_that_are_not_offered_are_named(
    trainer: Combined, key: str, value: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=key) as refused:
        trainer.plan(first_choices(trainer, **{key: value}))
    assert told in str(refused.value)


def test_weights_trained_on_errors_of_their_answers_train_on(trainer: Combined) -> None:
    """What such a run needs of the losses comes along with the weights' recipe."""
    settings = tiny_settings(training__error_rounds=3)
    net = build_network(settings.model, settings.loss, HIERARCHY)
    save_weights(trainer.published, net.state_dict(), settings, HIERARCHY)
    trainer.settings = Settings()
    planned, _ = trainer.plan(first_choices(trainer))
    assert planned.training.error_rounds == 3 and planned.loss.weight_prompt > 0


def test_the_shipped_weights_train_on_as_a_viewer_asks(trainer: Combined) -> None:
    trainer.published, trainer.settings = PUBLISHED, Settings()
    _, options = trainer.plan(first_choices(trainer))
    assert options.start == PUBLISHED


def test_training_publishes_weights_and_figures_without_nan(trainer: Combined) -> None:
    assert trainer.stats() == {} and trainer.check() is None
    stats = trainer(dict(QUICK), None)
    assert stats == trainer.stats()
    assert stats["epoch"] == stats["total_epochs"] == 1 and stats["published"]
    assert stats["best_metric"] == stats["eval"]["best_metric"] > 0
    json.dumps(stats, allow_nan=False)
    assert load_network(trainer.published)[3]["step"] == 1


def test_nothing_annotated_is_told_before_anything_starts(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", HIERARCHY)
    study.add_item("n", np.zeros((32, 32, 8), np.uint8), (10.0, 10.0, 40.0))
    bare = Combined(tmp_path / "m", tmp_path / "m" / "w.pt", study.root, tiny_settings())
    assert bare.check() == NOTHING_ANNOTATED
    with pytest.raises(ValueError, match="annotate a region"):
        bare(dict(QUICK), None)
    assert not (tmp_path / "m").exists()


def test_a_killed_run_goes_on_and_a_finished_one_starts_anew(trainer: Combined) -> None:
    asked = first_choices(trainer, **QUICK)
    assert not trainer.plan(asked)[1].resume
    trainer(dict(QUICK), None)
    settings, options = trainer.plan(asked)
    assert not options.resume
    checkpoint = options.out_dir / "checkpoint.pt"
    data = load_weights(checkpoint) | {"finished": False}
    save_checkpoint(checkpoint, data, settings)
    assert trainer.plan(asked)[1].resume


def test_what_goes_to_another_process_can_be_sent(trainer: Combined, tmp_path: Path) -> None:
    settings, options = trainer.plan(first_choices(trainer))
    progress = _Progress(tmp_path / "stats.json", settings)
    pickle.loads(pickle.dumps((settings, options, progress, Tracker())))


def test_figures_that_do_not_exist_are_null(tmp_path: Path) -> None:
    progress = _Progress(tmp_path / "s.json", tiny_settings())
    progress.write(2, {"train/loss": float("nan")}, RunResult(best=float("nan")))
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["train"]["metrics"]["train/loss"] is None
    assert stats["best_metric"] == 0.0 and stats["eval"]["best_metric"] is None


def test_tracking_asks_for_what_is_installed(tmp_path: Path) -> None:
    assert Tracker.of("None", tmp_path) == Tracker()
    with pytest.raises(ValueError, match="tracking"):
        Tracker.of("wandb", tmp_path)
    assert metric_name("train/proofread/loss_sem/ce") == "train.proofread.loss_sem.ce"
