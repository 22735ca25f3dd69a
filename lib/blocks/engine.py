"""Where blocks are worked on: in this process, or by workers of dask.distributed.

Only coordinates go over the wire: a task is (output folder, stage, index), and everything else
is read from the shared disk. One task for each worker is with them at any time; a graph of all
would fill the scheduler's memory before the first is begun. Clusters are begun in clusters.py.
"""

from __future__ import annotations

import math
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Protocol

from tqdm import tqdm

from lib.blocks.ledger import Entry
from lib.configs.places import APP
from lib.volumes.boxes import Triple

Work = Callable[[str, str, Triple], dict[str, Any]]
"""(output folder, stage, index of a block) -> what is worth telling of it; plain values."""

TRIES = 2
"""A block that fails is tried once more: a store may have hiccuped. Then it is listed."""
LOST_WORKERS = 10
"""Workers that may die over one task before the task is taken for the culprit."""
LOOK_SECONDS = 1.0
"""So often a run that waits looks for new workers, and whether there are any."""
TELL_SECONDS = 60.0
"""So often it tells that there are none."""
GONE = "the workers' scheduler is gone; what is done is kept, the same command goes on"


def _to_stderr(line: str) -> None:
    tqdm.write(line, file=sys.stderr)  # beside a progress bar


class Engine(Protocol):
    """Does blocks, in any order."""

    def run(self, work: Work, out: Path, stage: str, todo: Iterable[Triple]) -> Iterator[Entry]:
        """Entries of blocks as they are done or have failed."""
        ...


def attempt(work: Work, out: str, stage: str, index: Triple) -> Entry:
    """Do one block; whatever it raises becomes the entry's error."""
    begin = time.monotonic()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    error, value = "", {}
    for _ in range(TRIES):
        try:
            value = work(out, stage, index)
        except ValueError as failure:  # told in one line, with its remedy
            error = str(failure)
        except Exception as failure:
            last = traceback.extract_tb(failure.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            error = f"{type(failure).__name__}: {failure} ({place})"
        else:
            error = ""
            break
    return Entry(stage, index, error, round(time.monotonic() - begin, 3), 0.0, worker, value)


class OneProcess:
    """Blocks one after another, here."""

    def run(self, work: Work, out: Path, stage: str, todo: Iterable[Triple]) -> Iterator[Entry]:
        """Entries in the order of `todo`."""
        for index in todo:
            yield attempt(work, str(out), stage, index)


class Workers:
    """Blocks by the workers of a dask cluster.

    Args:
        client: connected to its scheduler.
        remedy: what to do when it has no workers.
        expected: workers that may come; so many tasks are with the cluster at the least, by
            which it sees that more are wanted.
        patience_seconds: a run that has no workers for so long ends; None: it waits.
        tell: told, in a line, what the run waits for.
    """

    def __init__(
        self,
        client: Any,
        remedy: str,
        expected: int = 1,
        patience_seconds: float | None = None,
        tell: Callable[[str], None] = _to_stderr,
    ) -> None:
        self.client, self.remedy, self.expected = client, remedy, expected
        self.patience_seconds, self.tell = patience_seconds, tell
        self._since: float | None = None
        self._told = 0.0

    def run(self, work: Work, out: Path, stage: str, todo: Iterable[Triple]) -> Iterator[Entry]:
        """Entries as workers finish.

        A worker gets its next block when its last one was taken note of, so that a kill costs
        no more blocks than there are workers.

        Raises:
            ValueError: no workers for too long, their scheduler is gone, or it cannot run this app.
        """
        waiting = iter(todo)
        flying: dict[str, tuple[Any, Triple]] = {}
        finished: Queue[Any] = Queue()
        most, counted = 0, -math.inf
        while True:
            if time.monotonic() - counted >= LOOK_SECONDS:
                most, counted = max(self.expected, self._count()), time.monotonic()
            for index in islice(waiting, max(0, most - len(flying))):
                future = self.client.submit(
                    attempt, work, str(out), stage, index, pure=False, retries=0
                )
                flying[future.key] = future, index
                future.add_done_callback(finished.put)
            if not flying:
                return
            try:
                future = finished.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            _, index = flying.pop(future.key)
            if future.cancelled():
                raise ValueError(f"{GONE}: {self.remedy}")
            yield _entry(future, stage, index)
            future.release()

    def _count(self) -> int:
        """How many workers there are; tells when there are none.

        Raises:
            ValueError: there have been none for too long, or their scheduler is gone.
        """
        try:
            count = len(self.client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError) as error:
            raise ValueError(f"{GONE} ({error}): {self.remedy}") from error
        now = time.monotonic()
        if count:
            self._since = None
            return count
        if self._since is None:
            self._since, self._told = now, now - TELL_SECONDS + LOOK_SECONDS
        missing = now - self._since
        if self.patience_seconds is not None and missing >= self.patience_seconds:
            raise ValueError(f"no workers for {missing:.0f} s: {self.remedy}")
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self.tell(f"waiting for workers, there are none: {self.remedy}")
        return 0


def _entry(future: Any, stage: str, index: Triple) -> Entry:
    """What became of a block.

    Raises:
        ValueError: not the block failed but the cluster, which cannot run this app.
    """
    from distributed.scheduler import KilledWorker

    failure = future.exception()
    if failure is None:
        entry: Entry = future.result()
        return entry
    if isinstance(failure, KilledWorker):
        return Entry(stage, index, f"{LOST_WORKERS} workers died over it ({failure})")
    told = str(failure).strip().partition("\n")[0]
    raise ValueError(
        f"the cluster cannot run this app ({type(failure).__name__}: {told}); start its scheduler "
        f"and workers in the app's environment, with PYTHONPATH={APP}"
    ) from failure
