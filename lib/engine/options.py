"""What a run is given, what it trains on, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.configs.load import hierarchy_of
from lib.configs.settings import Settings
from lib.data.damage import with_readable_labels
from lib.data.holding import hold_back
from lib.data.items import DataItem, labelled_items
from lib.engine.validation import ValidationReport
from lib.networks.model import NeuropilNet
from lib.volumes.errors import VolumeError
from lib.volumes.options import open_study


def _never() -> bool:
    return False


def _ignore(*told: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class RunOptions:
    """What a run is given beside the settings.

    Args:
        studies: study folders; their labelled items train.
        out_dir: checkpoints, logs, reports and the run's best weights.
        published: the weights file that better weights replace; None: publish nothing.
        start: weights to start from; None: from scratch.
        resume: go on from a checkpoint in `out_dir` if there is one.
        max_steps: optimiser steps at most; None: epochs times steps per epoch.
        device: "cpu", "cuda", "cuda:1"; None chooses.
        validation_limit: most places that are validated on.
        stop: asked after each step; True ends the run after a checkpoint.
        progress: called after each step with (step, steps in all, figures).
        note: told what happens, in sentences.
        rehearsal: study whose items are trained on beside the others, against forgetting, and
            on whose validation items published weights must not get worse; None: none.
        rehearsal_share: of the patches that come from it.
        origins: where each setting comes from, for the log and the resolved configuration.
        adapt: puts the refit that needs no run on the published network, which a run has to
            beat; None: the published network as it is.
    """

    studies: tuple[Path, ...]
    out_dir: Path
    published: Path | None = None
    start: Path | None = None
    resume: bool = True
    max_steps: int | None = None
    device: str | None = None
    validation_limit: int = 24
    stop: Callable[[], bool] = _never
    progress: Callable[[int, int, dict[str, float]], None] = _ignore
    note: Callable[[str], None] = _ignore
    rehearsal: Path | None = None
    rehearsal_share: float = 0.25
    origins: Mapping[str, str] = field(default_factory=dict)
    adapt: Callable[[NeuropilNet], NeuropilNet] | None = None


@dataclass
class RunResult:
    """How a run ended.

    Args:
        steps: optimiser steps done, those before a resume included.
        stopped: it was asked to stop before its end.
        best: score of the best weights; None without validation.
        published: whether this run changed the published weights.
        reason: why it did or did not.
        report: the last validation.
    """

    steps: int = 0
    stopped: bool = False
    best: float | None = None
    published: bool = False
    reason: str = "no weights to publish to"
    report: ValidationReport | None = None


def load_items(
    settings: Settings, studies: tuple[Path, ...], note: Callable[[str], None] = _ignore
) -> list[DataItem]:
    """The labelled items of all studies.

    Args:
        note: told of each file that is left out, and why.
    """
    sources = []
    for root in studies:
        study = open_study(root, settings)
        listing = study.listing()
        for left in listing.skipped:
            note(f"left out: {root / left.name}: {left.reason}")
        for item in study.items_of(listing):
            try:
                item.check_labels()
                sources.append(item)
            except VolumeError as error:
                note(f"left out: {error}")
    labelled = labelled_items(
        sources,
        hierarchy_of(settings),
        settings.training.val_fraction,
        settings.data.cache_bytes,
        settings.model.finest_nm,
        settings.model.most_split,
    )
    items = with_readable_labels(labelled, note)
    hold_back(items, settings.training.val_fraction)
    return items
