"""Where blocks are worked on: in this process, or by workers of dask.distributed.

Only coordinates go over the wire: a task is (output folder, stage, index), and everything else
is read from the shared disk. A bounded number of tasks is with the workers at any time; a graph
of all of them would fill the scheduler's memory before the first is begun.

This is the only module that knows dask, and it imports it when it is asked for workers:
`requirements/cluster.txt` has what that takes. Without, one process gives the same result.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

from lib.blocks.ledger import Entry
from lib.volumes.boxes import Triple

Work = Callable[[str, str, Triple], dict[str, Any]]
"""(output folder, stage, index of a block) -> what is worth telling of it; plain values."""

TRIES = 2
"""A block that fails is tried once more: a store may have hiccuped. Then it is listed."""
IN_FLIGHT = 4
"""Tasks with the workers at a time, for each worker."""
LOST_WORKERS = 10
"""Workers that may die over one task before the task is taken for the culprit."""
LOST_FOR = "10 minutes"
"""A process of this machine that is started anew may take so long to come back. Dask gives it up
after 15 s, for good, and a run whose workers are all given up waits for ever."""
MISSING = (
    "workers need dask.distributed: pip install --no-deps -r requirements/cluster.txt; "
    "without --workers, --scheduler and --slurm one process does the same"
)


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
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(self, work: Work, out: Path, stage: str, todo: Iterable[Triple]) -> Iterator[Entry]:
        """Entries as workers finish."""
        from distributed import as_completed

        waiting = iter(todo)
        indices: dict[str, Triple] = {}
        flying = as_completed()

        def feed() -> None:
            most = IN_FLIGHT * max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))
            while flying.count() < most:
                index = next(waiting, None)
                if index is None:
                    return
                future = self.client.submit(
                    attempt, work, str(out), stage, index, pure=False, retries=0
                )
                indices[future.key] = index
                flying.add(future)

        feed()
        for future in flying:
            index = indices.pop(future.key)
            failure = future.exception()
            yield (
                future.result()
                if failure is None
                else Entry(stage, index, f"{type(failure).__name__}: {failure}")
            )
            future.release()
            feed()


@contextmanager
def local_workers(count: int, memory_bytes: int) -> Iterator[Workers]:
    """Processes of this machine, one thread each.

    Args:
        count: of workers.
        memory_bytes: a worker that holds more is started anew.

    Raises:
        ValueError: dask.distributed is not installed.
    """
    distributed = _distributed()
    with (
        _dask().config.set({"distributed.deploy.lost-worker-timeout": LOST_FOR}),
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, host="127.0.0.1",
            memory_limit=memory_bytes, dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield Workers(client)


@contextmanager
def cluster_at(address: str, timeout_seconds: float = 20.0) -> Iterator[Workers]:
    """Workers of a scheduler that runs already, for instance "tcp://host:8786".

    Raises:
        ValueError: dask.distributed is not installed, or nobody answers there.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=timeout_seconds)
    except (OSError, TimeoutError) as error:
        raise ValueError(f"--scheduler {address}: no scheduler answers there ({error})") from error
    with client:
        yield Workers(client)


@contextmanager
def slurm_workers(file: Path) -> Iterator[Workers]:
    """Workers that SLURM starts.

    Args:
        file: YAML with arguments of `dask_jobqueue.SLURMCluster`, and `jobs`, how many.

    Raises:
        ValueError: dask-jobqueue is not installed, or the file says no cluster.
    """
    distributed = _distributed()
    with slurm_cluster(file) as cluster, distributed.Client(cluster) as client:
        yield Workers(client)


def slurm_cluster(file: Path) -> Any:
    """The cluster that a file describes; its jobs come and go with the work.

    Workers end by themselves before the job's time is up, and when their scheduler is gone.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ValueError(MISSING) from error
    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
        jobs = int(options.pop("jobs", 1))
        cluster = SLURMCluster(**slurm_options(options))
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"--slurm {file}: {error}; expected YAML with jobs, cores, memory, walltime, queue "
            "and what else dask_jobqueue.SLURMCluster takes"
        ) from error
    cluster.adapt(minimum_jobs=1, maximum_jobs=jobs)
    return cluster


def slurm_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster's arguments with what keeps its workers from leaking or being killed at work."""
    walltime = str(options.get("walltime", "01:00:00"))
    parts = [int(p) for p in walltime.replace("-", ":").split(":")]
    while len(parts) < 4:
        parts.insert(0, 0)
    days, hours, minutes, seconds = parts[-4:]
    lifetime = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    extra = [
        "--lifetime", f"{max(60, int(0.9 * lifetime))}s",
        "--lifetime-stagger", f"{max(10, int(0.05 * lifetime))}s",
        "--nthreads", "1",
    ]  # fmt: skip
    given = list(options.get("worker_extra_args", ()))
    return {
        "death_timeout": 120, "processes": 1, **options, "walltime": walltime,
        "worker_extra_args": [*extra, *given],
    }  # fmt: skip


def _dask() -> Any:
    import dask

    return dask


def _distributed() -> Any:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ValueError(MISSING) from error
    dask.config.set({"distributed.scheduler.allowed-failures": LOST_WORKERS})
    return distributed
