"""Work on blocks that takes no time to import: for tests of the engines."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lib.volumes.boxes import Triple
from lib.volumes.errors import VolumeError


def marked(out: str, stage: str, index: Triple) -> dict[str, Any]:
    """Leaves a file for each try."""
    (Path(out) / f"{index[0]}-{index[1]}-{os.getpid()}-{time.time_ns()}").touch()
    return {"x": index[0]}


def poisoned(out: str, stage: str, index: Triple) -> dict[str, Any]:
    marked(out, stage, index)
    if index == (1, 1, 0):
        raise VolumeError("em.zarr", "truncated")
    if index == (2, 0, 0):
        raise ZeroDivisionError("a bug")
    return {}


def slow(out: str, stage: str, index: Triple) -> dict[str, Any]:
    time.sleep(0.2)
    return marked(out, stage, index)
