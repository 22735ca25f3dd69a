"""One training at a time, from the moment that it is asked for.

MONAI Label calls a training running once its process is there, which takes a moment. A second
request within it (a double click) was accepted and trained after the first, and *Stop* found
nothing to stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import processes

Run = Callable[..., tuple[dict[str, Any] | None, str | None]]

STARTS_WITHIN_S = 30.0
"""Longer than any process takes to start; one that cannot start is not waited for."""


def answered_once_started(run: Run) -> Run:
    """`AsyncTask.run` that answers when the task's process is there.

    Requests of this kind come one after the other, so the second finds the first one's process
    and is refused. A task that waits behind another by wish (`enqueue`) is answered at once.
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
            return run(method, request, params, force_sync, enqueue)
        with starting:
            task, refused = run(method, request, params)
            until = time.monotonic() + STARTS_WITHIN_S
            while task and task["status"] == "SUBMITTED" and time.monotonic() < until:
                if task["id"] in processes(method):
                    break
                time.sleep(0.005)
            return task, refused

    return started


def mend_tasks() -> None:
    """Put `answered_once_started` before everything that starts a task in this process."""
    AsyncTask.run = staticmethod(answered_once_started(AsyncTask.run))
