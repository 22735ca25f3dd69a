"""The published weights and the versions kept before them, with their figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.engine.publish import versions
from lib.networks.digests import recorded_digest
from lib.networks.weights import load_weights

SHOWN = {
    "val/score": "score",
    "val/mean_iou": "mean IoU",
    "val/are": "ARE",
    "val/prompt_iou": "click IoU",
}
"""Figures of a file's meta -> their names on the page."""


@dataclass(frozen=True)
class WeightsVersion:
    """One weights file.

    Args:
        name: of the file.
        since: when it was written, seconds since the epoch.
        current: whether it is the one that answers.
        step: of its training; None where it does not say.
        figures: on the validation places of its own run, by name.
        digest: the first digits of its SHA-256, "" where none is kept.
        trouble: why it cannot be used; "" where it can.
    """

    name: str
    since: float
    current: bool
    step: int | None
    figures: tuple[tuple[str, float], ...]
    digest: str
    trouble: str = ""


def weights_versions(published: Path) -> list[WeightsVersion]:
    """The published file first, then the kept ones, newest first."""
    files = [published] if published.exists() else []
    return [_version(p, p == published) for p in [*files, *versions(published)]]


def _version(path: Path, current: bool) -> WeightsVersion:
    state = path.stat()
    told = _meta(path, state.st_mtime_ns, state.st_size)
    if isinstance(told, str):
        return WeightsVersion(path.name, state.st_mtime, current, None, (), "", told)
    figures = dict(told.get("figures") or {})
    shown = tuple((n, float(figures[k])) for k, n in SHOWN.items() if _number(figures.get(k)))
    if not shown and _number(told.get("score")):
        shown = (("score", float(told["score"])),)
    step = told.get("step")
    return WeightsVersion(
        path.name, state.st_mtime, current, step if isinstance(step, int) else None, shown,
        (recorded_digest(path) or "")[:12],
    )  # fmt: skip


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


@lru_cache(maxsize=16)
def _meta(path: Path, *state: int) -> Mapping[str, Any] | str:
    """What a file says of itself, or why it cannot be read; once for each state of it."""
    try:
        return dict(load_weights(path).get("meta") or {})
    except (ValueError, OSError) as error:
        return str(error)
