"""One training at a time, from the moment that it is asked for.

MONAI Label calls a training running once its process is there, which takes a moment. A second
request within it (a double click) was accepted and trained after the first, and *Stop* found
nothing to stop.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import processes, tasks

Run = Callable[..., tuple[dict[str, Any] | None, str | None]]

STARTS_WITHIN_S = 30.0
"""Longer than any process takes to start; one that cannot start is not waited for."""

NAMES = {"train": "training", "batch_infer": "batch inference", "scoring": "scoring"}
_STEP = re.compile(r"\bstep \d+ of \d+")


def answered_once_started(run: Run) -> Run:
    """`AsyncTask.run` that answers when the task's process is there.

    Requests of this kind come one after the other, so the second finds the first one's process
    and is refused, in words. A task that waits behind another by wish (`enqueue`) is answered at
    once.
    """
    starting = threading.Lock()

    def started(
        method: str,
        request: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        force_sync: bool = False,
        enqueue: bool = False,
    ) -> tuple[dict[str, Any] | None, str | None]:
        if force_sync or enqueue:
            task, refused = run(method, request, params, force_sync, enqueue)
            return task, busy(method) if refused else refused
        with starting:
            task, refused = run(method, request, params)
            until = time.monotonic() + STARTS_WITHIN_S
            while task and task["status"] == "SUBMITTED" and time.monotonic() < until:
                if task["id"] in processes(method):
                    break
                time.sleep(0.005)
            return task, busy(method) if refused else refused

    return started


def busy(method: str) -> str:
    """Why a task is refused: what is running, how far it is where it says so, what to do."""
    running = [task for task in tasks(method) if task["id"] in processes(method)]
    model = next((task["request"].get("model") for task in running), None)
    said = [found for task in running for found in _STEP.findall("\n".join(_lines(task)))]
    what = f"a {NAMES.get(method, method)}" + (f" of '{model}'" if model else "")
    return f"{what} is running{f' ({said[-1]})' if said else ''}; stop it or wait"


def _lines(task: dict[str, Any]) -> list[str]:
    """The last lines that a task's process wrote, which goes on writing."""
    return list(task.get("details", ()))


def mend_tasks() -> None:
    """Put `answered_once_started` before everything that starts a task in this process."""
    AsyncTask.run = staticmethod(answered_once_started(AsyncTask.run))
