"""Scores for the strategies are computed in the background: at the start and when they are stale.

The stock server starts every scoring method anew at its start, after each training and with
each sample handed out, and lets them queue up.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from typing import Any

from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import processes, tasks

from lib.activelearning.parts import QueryParts

logger = logging.getLogger("neuropil.queries")

METHOD = "uncertainty"
WAITING = ("SUBMITTED", "RUNNING")
_deciding = threading.Lock()


def score_if_stale(queries: QueryParts, datastore: Any) -> bool:
    """Start scoring if an item has no scores of the published weights and nobody is at it.

    Returns:
        Whether a scoring process was started.
    """
    with _deciding:
        weights = queries.weights
        if not weights or processes("scoring"):
            return False
        if any(task["status"] in WAITING for task in tasks("scoring")):
            return False
        store = queries.store(datastore)
        stale = [item.id for item in store.stale_items(weights)]
        work = hashlib.blake2b(repr((weights, stale)).encode(), digest_size=8).hexdigest()
        if not stale or _failed(work):
            return False
        logger.info("scoring %d items in the background", len(stale))
        AsyncTask.run("scoring", request={"method": METHOD, "work": work}, enqueue=True)
        return True


def _failed(work: str) -> bool:
    """Whether just this failed a moment ago: trying with each sample would not mend it."""
    last = tasks("scoring")[-1:]
    return any(t["status"] == "ERROR" and t["request"].get("work") == work for t in last)


def look_through_at_start(queries: QueryParts, datastore: Any) -> threading.Thread:
    """Read headers and labels beside the first requests, so that no sample waits for it."""

    def look() -> None:
        store = queries.store(datastore)
        with store.lock:  # a sample asked for meanwhile waits, and finds it done
            store.look_through()

    thread = threading.Thread(target=look, name="study", daemon=True)
    thread.start()
    return thread


def score_at_start(queries: QueryParts, datastore: Any) -> threading.Thread:
    """`score_if_stale` beside the first requests: looking through a large study takes a while."""
    thread = threading.Thread(
        target=score_if_stale, args=(queries, datastore), name="scoring", daemon=True
    )
    thread.start()
    return thread
