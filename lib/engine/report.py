"""What a run leaves for people and programs to read, as JSON without NaN."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from lib.engine.options import RunResult
from lib.engine.state import RunState
from lib.engine.validation import ValidationReport
from lib.volumes.atomic import write_json


class ReportWriter:
    """Writes `validation.json` (the last validation) and `result.json`.

    Args:
        folder: of the run.
        active: whether this process writes.
    """

    def __init__(self, folder: Path, active: bool) -> None:
        self.folder, self.active = folder, active
        self.started = time.time()

    def validation(self, report: ValidationReport, state: RunState) -> None:
        """Write the figures of one validation."""
        if self.active:
            write_json(self.folder / "validation.json", {"step": state.step, **report.to_dict()})

    def result(self, result: RunResult) -> None:
        """Write how the run ended."""
        if self.active:
            write_json(self.folder / "result.json", result_dict(result, self.started))


def result_dict(result: RunResult, started: float) -> dict[str, Any]:
    """A run's result as plain values; figures that do not exist are None."""
    return {
        "steps": result.steps,
        "stopped": result.stopped,
        "best": finite_or_none(result.best),
        "published": result.published,
        "reason": result.reason,
        "seconds": round(time.time() - started, 1),
        "figures": {} if result.report is None else result.report.scalars(),
    }


def finite_or_none(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
