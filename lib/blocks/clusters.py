"""Clusters of dask workers: of this machine, at an address, or of SLURM.

This and the engine know dask, and import it when they are asked for workers:
`requirements/cluster.txt` has what that takes. Without, one process gives the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lib.blocks.engine import LOST_WORKERS, Workers

LOST_SECONDS = 600.0
"""A process of this machine that is started anew may take so long to come back. Dask gives it up
after 15 s, for good."""
MISSING = (
    "workers need dask.distributed: pip install --no-deps -r requirements/cluster.txt; "
    "without --workers, --scheduler and --slurm one process does the same"
)


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
        _dask().config.set({"distributed.deploy.lost-worker-timeout": LOST_SECONDS}),
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, host="127.0.0.1",
            memory_limit=memory_bytes, dashboard_address=None,
            silence_logs=logging.ERROR, env={"DASK_LOGGING__DISTRIBUTED": "error"},
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        remedy = (
            "those of this machine were lost and did not come back, often for want of memory; "
            "give the same command with fewer --workers, or free some memory"
        )
        yield Workers(client, remedy, count, LOST_SECONDS)


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
        yield Workers(client, f"start some with: dask worker {address} --nthreads 1")


@contextmanager
def slurm_workers(file: Path) -> Iterator[Workers]:
    """Workers that SLURM starts.

    Args:
        file: YAML with arguments of `dask_jobqueue.SLURMCluster`, and `jobs`, how many.

    Raises:
        ValueError: dask-jobqueue is not installed, or the file says no cluster.
    """
    distributed = _distributed()
    cluster, jobs = slurm_cluster(file)
    with cluster, distributed.Client(cluster) as client:
        remedy = "their jobs wait in SLURM's queue, or end at once: see squeue, and the jobs' logs"
        yield Workers(client, remedy, jobs)


def slurm_cluster(file: Path) -> tuple[Any, int]:
    """The cluster that a file describes, and its workers at most; jobs come and go with the work.

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
    return cluster, jobs * int(options.get("processes", 1))


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
