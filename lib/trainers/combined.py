"""The `combined` trainer of MONAI Label: lib/engine's training with a viewer's options."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.distributed.launcher import Parallel
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list

from lib.adaptation.baseline import RefitAlone, rehearsal_study
from lib.configs.load import load_settings
from lib.configs.settings import Settings
from lib.engine.recipe import SET, origins_of, with_recipe_of
from lib.engine.report import finite_or_none
from lib.engine.run import RunOptions, RunResult, train
from lib.networks.weights import load_weights
from lib.trainers.tracking import Tracker
from lib.volumes.atomic import write_json
from lib.volumes.options import open_study

logger = logging.getLogger(__name__)

MODES = {
    "automatic + proofread": ["automatic", "proofread"],
    "automatic": ["automatic"],
    "proofread": ["proofread"],
}
PUBLISH_BETTER, PUBLISH_NEVER = "if better", "never"
CHOSEN = ("training_modes", "publish", "pretrained", "multi_gpu", "tracking")
NUMBERS = ("learning_rate", "max_epochs", "steps_per_epoch")
BOTH = [True, False]
EPOCHS, STEPS_PER_EPOCH = 4, 15
"""A run from a viewer is short; the command line trains for long."""

NOTHING_ANNOTATED = (
    "nothing to train on: no image has an annotation yet; annotate a region in the viewer and "
    "submit it, then train again"
)


class Combined(TrainTask):
    """Trains on every annotated item of the study, from the published weights.

    Args:
        model_dir: the app's folder of weights.
        published: the weights that inference uses.
        study: the folder of the study.
        settings: the app's configuration, from which a request starts.
    """

    def __init__(self, model_dir: Path, published: Path, study: Path, settings: Settings) -> None:
        super().__init__("Train both modes on what is annotated; publish what is better")
        self.folder = model_dir / "combined"
        self.published, self.study, self.settings = published, study, settings

    def config(self) -> dict[str, Any]:
        """What a viewer may change; the first of a list is the default."""
        tracking = ["None", "mlflow"] if find_spec("mlflow") else ["None"]
        return {
            "name": "train_01",
            "max_epochs": EPOCHS,
            "steps_per_epoch": STEPS_PER_EPOCH,
            "training_modes": list(MODES),
            "point_sample_mode": ["instance", "class"],
            "learning_rate": [2e-4, 1e-4, 5e-4, 1e-3],
            "pretrained": True,
            "publish": [PUBLISH_BETTER, PUBLISH_NEVER],
            "device": device_list(),
            "multi_gpu": True,
            "tracking": tracking,
        }

    def stats(self) -> dict[str, Any]:
        """Figures of the last run, for viewers; JSON without NaN."""
        try:
            return dict(json.loads((self.folder / "train_stats.json").read_text()))
        except FileNotFoundError:
            return {}

    def check(self) -> str | None:
        """Why training cannot start now, None when it can; answers at once."""
        study = open_study(self.study, self.settings)
        labelled = (i.has_label("final") or i.has_label("instance") for i in study.items())
        return None if any(labelled) else NOTHING_ANNOTATED

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; runs in a process of its own.

        Raises:
            ValueError: nothing annotated, or an option that is not offered.
        """
        if reason := self.check():
            raise ValueError(reason)
        asked = self.asked(request)
        settings, options = self.plan(asked)
        if options.start is not None:
            options = self._beside_what_is_there(options, settings)
        progress = _Progress(self.folder / "train_stats.json", settings)
        tracker = Tracker.of(asked["tracking"], options.out_dir)
        gpus = torch.cuda.device_count() if asked["multi_gpu"] and options.device is None else 0
        if gpus > 1:
            with Parallel(backend="nccl", nproc_per_node=gpus) as parallel:
                parallel.run(_process, settings, options, progress, tracker)
        else:
            _process(0, settings, options, progress, tracker)
        return self.stats()

    def _beside_what_is_there(self, options: RunOptions, settings: Settings) -> RunOptions:
        """A run from published weights: rehearses what they know, and has to beat a refit."""
        assert options.start is not None
        alone = RefitAlone(self.study, settings, options.start)
        return replace(
            options,
            rehearsal=rehearsal_study(self.published.parent, settings),
            adapt=alone if self.settings.adaptation.enabled else None,
        )

    def asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Every option of a run: as a request has it, else its default; no lists of choices."""
        return {key: _first(value) for key, value in {**self.config(), **request}.items()}

    def plan(self, asked: Mapping[str, Any]) -> tuple[Settings, RunOptions]:
        """The run that a request asks for.

        Args:
            asked: see `asked`.

        Raises:
            ValueError: an option that is not offered; names it and the choices.
        """
        for key, choices in self.config().items():
            if key in CHOSEN:
                _check_choice(key, asked[key], choices if isinstance(choices, list) else BOTH)
        start = self.published if asked["pretrained"] and self.published.exists() else None
        settings, origins = self.settings, origins_of(self.settings)
        if start is not None:
            settings, origins = with_recipe_of(settings, load_weights(start))
        changed = {
            "training_modes": MODES[asked["training_modes"]],
            **{key: asked[key] for key in NUMBERS},
            "point_sample_mode": asked["point_sample_mode"],
        }
        # Checked with the losses: some of a run's settings need one of theirs.
        sections = {
            "loss": settings.loss.model_dump(),
            "training": {**settings.training.model_dump(), **changed, "val_interval": 1},
        }
        checked = load_settings(
            None,
            {f"{s}.{key}": v for s, keys in sections.items() for key, v in keys.items()},
        )
        once = {"val_interval": checked.training.max_epochs}  # at the end: a viewer's run is short
        settings = settings.model_copy(
            update={"training": checked.training.model_copy(update=once)}
        )
        origins |= {f"training.{key}": SET for key in changed}
        out_dir = self.folder / _folder_name(asked["name"])
        device = str(asked["device"])
        return settings, RunOptions(
            studies=(self.study,),
            out_dir=out_dir,
            published=self.published if asked["publish"] == PUBLISH_BETTER else None,
            start=start,
            resume=_unfinished(out_dir / "checkpoint.pt"),
            device=device if device == "cpu" or ":" in device else None,
            rehearsal_share=self.settings.adaptation.rehearsal_share,
            origins=origins,
        )


@dataclass
class _Progress:
    """Keeps `train_stats.json` up to date while a run goes on.

    Args:
        path: the file.
        settings: of the run.
    """

    path: Path
    settings: Settings
    started: float = field(default_factory=time.time)

    def __call__(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        if step % self.settings.training.steps_per_epoch == 0 or step == total:
            logger.info("step %d of %d: loss %.4f", step, total, figures["train/loss"])
            self.write(step, dict(figures), None)

    def write(self, step: int, figures: Mapping[str, float], result: RunResult | None) -> None:
        """Replace the file."""
        training = self.settings.training
        best = None if result is None else finite_or_none(result.best)
        report = None if result is None else result.report
        shown = {} if report is None else report.scalars()
        write_json(
            self.path,
            {
                "best_metric": best if best is not None else 0.0,
                "epoch": step // training.steps_per_epoch,
                "total_epochs": training.max_epochs,
                "start_ts": int(self.started),
                "seconds": round(time.time() - self.started, 1),
                "train": {"metrics": {k: finite_or_none(v) for k, v in figures.items()}},
                "eval": {"metrics": shown, "key_metric_name": "val/score", "best_metric": best},
                "published": result is not None and result.published,
                "reason": "" if result is None else result.reason,
            },
        )


def _process(
    rank: int,
    settings: Settings,
    options: RunOptions,
    progress: _Progress,
    tracker: Tracker,
) -> None:
    """What each process does; the first one tells and writes."""
    leads = idist.get_rank() == 0
    last: dict[str, float] = {}

    def follow(step: int, total: int, figures: dict[str, float]) -> None:
        last.update(figures)
        if leads:
            progress(step, total, figures)
            tracker(step, figures)

    told: Callable[[str], None] = logger.info if leads else logger.debug
    result = train(settings, _with_callbacks(options, follow, told))
    if leads:
        progress.write(result.steps, last, result)
        tracker.close({} if result.report is None else result.report.scalars(), result.steps)


def _with_callbacks(
    options: RunOptions,
    follow: Callable[[int, int, dict[str, float]], None],
    note: Callable[[str], None],
) -> RunOptions:
    """Callbacks are set in each process: options travel to it, functions cannot."""
    return replace(options, progress=follow, note=note)


def _unfinished(checkpoint: Path) -> bool:
    """Whether a run was killed or stopped before its end."""
    return checkpoint.exists() and not load_weights(checkpoint).get("finished", True)


def _check_choice(key: str, value: Any, choices: list[Any]) -> None:
    """Refuse what is not offered; 1 is no True."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        allowed = ", ".join(json.dumps(c) if isinstance(c, bool) else str(c) for c in choices)
        raise ValueError(f"{key}: expected one of {allowed}; found {value!r}")


def _folder_name(value: Any) -> str:
    """A run's name, which becomes a folder.

    Raises:
        ValueError: no text, or nothing to call a folder.
    """
    if not isinstance(value, str) or not re.fullmatch(r"\w[\w.-]{0,127}", value):
        raise ValueError(f"name: expected letters, digits, '_', '-' or '.', found {value!r}")
    return value


def _first(value: Any) -> Any:
    """Viewers send a list's first item; other callers may send the list."""
    return value[0] if isinstance(value, list | tuple) and value else value
