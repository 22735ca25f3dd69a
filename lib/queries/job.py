"""How far the job that scores a study is, told in a file that every process reads."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from lib.queries.scores import FOLDER
from lib.volumes.atomic import write_json

STATUS_SECONDS = 600.0
"""A job that has not reported for so long is taken for dead."""


@dataclass(frozen=True)
class ScoringStatus:
    """A scoring job, as its status file tells.

    Args:
        running: whether it is still at work.
        done: items scored.
        total: items to score.
        item: the one at work.
    """

    running: bool
    done: int
    total: int
    item: str


def read_status(root: Path) -> ScoringStatus | None:
    """The last scoring job of a study; None when there never was one."""
    try:
        data = json.loads(_status_path(root).read_text())
        alive = time.time() - float(data["at"]) < STATUS_SECONDS
        return ScoringStatus(
            bool(data["running"]) and alive, int(data["done"]), int(data["total"]),
            str(data["item"]),
        )  # fmt: skip
    except (FileNotFoundError, ValueError, KeyError):
        return None


def note_status(root: Path, done: int, total: int, item: str, running: bool = True) -> None:
    """Tell how far the job of this process is."""
    status = {"running": running, "done": done, "total": total, "item": item}
    write_json(_status_path(root), {**status, "pid": os.getpid(), "at": time.time()})


def _status_path(root: Path) -> Path:
    return root / FOLDER / "status.json"
