"""Learning on the page: the last training's figures and curves, and the refits of study heads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.prediction.learned import heads_path, load_heads

CURVES = {
    "train/loss": "loss",
    "val/score": "score on held-out parts",
    "val/mean_iou": "mean IoU of classes",
    "val/are": "adapted Rand error of objects",
}
"""Key of the event file -> its name on the page, in the page's order."""
POINTS = 300
WIDTH, HEIGHT = 280.0, 90.0


@dataclass(frozen=True)
class Curve:
    """A figure over the steps of a run.

    Args:
        name: for people.
        points: (step, value), in order.
    """

    name: str
    points: tuple[tuple[int, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(v for _, v in self.points)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(v for _, v in self.points)

    @property
    def ends(self) -> tuple[float, float]:
        """Where the newest point lies in that field."""
        across, down = self.path.rsplit(" ", 1)[-1].split(",")
        return float(across), float(down)

    @property
    def path(self) -> str:
        """The points of an SVG polyline in a field of WIDTH x HEIGHT."""
        first, last = self.points[0][0], self.points[-1][0]
        across = max(last - first, 1)
        up = (self.high - self.low) or 1.0
        return " ".join(
            f"{(s - first) / across * WIDTH:.1f},{HEIGHT - (v - self.low) / up * HEIGHT:.1f}"
            for s, v in self.points
        )


@dataclass(frozen=True)
class Run:
    """The newest training run of the server.

    Args:
        name: of its folder.
        curves: of its figures; empty before the first step was written.
    """

    name: str
    curves: tuple[Curve, ...]


def newest_run(folder: Path) -> Run | None:
    """The run under `model/combined/` that wrote events last; None before the first.

    Args:
        folder: of all runs.
    """
    files = [p for p in folder.glob("*/events/events.out.tfevents.*") if p.is_file()]
    if not files:
        return None
    newest = max(files, key=lambda p: p.stat().st_mtime_ns)
    state = newest.stat()
    curves = _curves(newest.parent, state.st_mtime_ns, state.st_size)
    return Run(newest.parents[1].name, curves)


def last_figures(folder: Path) -> dict[str, Any]:
    """What `train_stats.json` says of the last run that a viewer started; empty without one."""
    try:
        return dict(json.loads((folder / "train_stats.json").read_text()))
    except (FileNotFoundError, ValueError):
        return {}  # absent before the first run, or being replaced by a killed one's remains


def refits(root: Path) -> Curve | None:
    """Mean IoU of the classes on parts held back, over the refits of a study's heads.

    A refit that was refused counts with what answers instead, the heads before it.

    Args:
        root: the study's folder.

    Returns:
        None before the first refit with figures.
    """
    try:
        state = heads_path(root).stat()
    except FileNotFoundError:
        return None
    return _refits(root, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _refits(root: Path, *state: int) -> Curve | None:
    """Read once for each state of the file."""
    try:
        stored = load_heads(root)
    except ValueError:
        return None  # the sentence of the server's learning tells
    if stored is None:
        return None
    points = []
    for number, learned in enumerate((*stored.history, stored.learned), 1):
        known = [f["after" if learned.used and f["used"] else "before"] for f in learned.figures]
        measured = [float(v) for v in known if v is not None and v == v]
        if measured:
            points.append((number, sum(measured) / len(measured)))
    return Curve("mean IoU of the classes, refit by refit", tuple(points)) if points else None


@lru_cache(maxsize=4)
def _curves(folder: Path, *state: int) -> tuple[Curve, ...]:
    """Read once for each state of the newest event file."""
    events = EventAccumulator(
        str(folder), {"scalars": POINTS, "images": 1, "tensors": POINTS, "histograms": 1}
    )
    events.Reload()
    known = set(events.Tags()["scalars"])
    found = []
    for key, name in CURVES.items():
        if key in known:
            points = tuple((e.step, float(e.value)) for e in events.Scalars(key))
            finite = tuple((s, v) for s, v in points if v == v and abs(v) != float("inf"))
            if finite:
                found.append(Curve(name, finite))
    return tuple(found)
