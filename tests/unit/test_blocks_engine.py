"""Engines: what fails is told, a lost worker's blocks are done again, nothing else changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_cases import SETTINGS, bytes_of, case, command
from block_work import marked, poisoned, slow

from lib.blocks.clusters import cluster_at, local_workers, slurm_options
from lib.blocks.engine import TRIES, OneProcess, Workers, attempt
from lib.blocks.ledger import Entry, Ledger
from lib.commands import main
from lib.configs.places import APP
from lib.prediction.commands import TAGS
from lib.volumes.boxes import Triple
from lib.volumes.readers.opening import open_source

INDICES = [(x, y, 0) for x in range(4) for y in range(3)]


def test_a_poisoned_block_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    entries = list(OneProcess().run(poisoned, tmp_path, "s", INDICES))
    errors = {e.index: e.error for e in entries if e.error}
    assert errors[1, 1, 0] == "em.zarr: truncated"
    assert errors[2, 0, 0].startswith("ZeroDivisionError: a bug (block_work.py:")
    assert len(entries) == len(INDICES) and len(errors) == 2
    assert len(list(tmp_path.glob("1-1-*"))) == TRIES


def test_a_hiccup_is_forgiven() -> None:
    tries: list[int] = []

    def once(out: str, stage: str, index: Triple) -> dict[str, Any]:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("connection reset")
        return {"ok": 1}

    entry = attempt(once, "", "s", (0, 0, 0))
    assert not entry.error and entry.value == {"ok": 1}


def test_workers_of_slurm_end_before_their_job_does() -> None:
    options = slurm_options({"walltime": "1-02:00:00", "cores": 4, "worker_extra_args": ["--x"]})
    extra = options["worker_extra_args"]
    assert extra[extra.index("--lifetime") + 1] == f"{int(0.9 * 26 * 3600)}s"
    assert extra[-1] == "--x" and options["cores"] == 4 and options["death_timeout"] == 120


def test_without_dask_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with (
        pytest.raises(ValueError, match=r"requirements/cluster\.txt"),
        local_workers(2, 2**30),
    ):
        pass


def test_the_ledger_reads_what_it_wrote_and_forgives_a_torn_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(Entry("s", (0, 0, 0), "", 1.5, 2.0, "w", {"a": 1}))
    ledger.add(Entry("s", (1, 0, 0), "bad"))
    with ledger.path.open("ab") as file:
        file.write(b'\n{"stage": "s", "index": [2, 0')
    ledger.add(Entry("s", (3, 0, 0)))
    again = Ledger(tmp_path)
    assert again.done("s") == {(0, 0, 0), (3, 0, 0)}
    assert [e.index for e in again.failed("s")] == [(1, 0, 0)]
    assert again.entries["s"][0, 0, 0] == Entry("s", (0, 0, 0), "", 1.5, 2.0, "w", {"a": 1})
    again.add(Entry("s", (1, 0, 0)))
    assert not Ledger(tmp_path).failed("s"), "the last line counts"


def test_workers_give_the_bytes_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    folder = case(tmp_path)
    assert main(command(folder)) == 0
    assert main(command(folder, "--workers", "2", out="two.zarr")) == 0
    assert bytes_of(folder / "two.zarr") == bytes_of(folder / "seg.zarr")
    workers = {e.worker for e in Ledger(folder / "two.zarr").entries["predict"].values()}
    assert f":{os.getpid()}" not in "".join(workers)


@pytest.mark.parametrize("task", ["segmentation", "instances"])
def test_a_study_s_items_by_workers_are_those_of_one_process(
    tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = contextmanager(lambda count, limit: (yield OneProcess()))
    monkeypatch.setattr("lib.blocks.commands.local_workers", crew)  # these are tested below
    folder = case(tmp_path)
    study = folder / "studies"
    lazy = ["import", str(folder / "em.zarr"), "--studies", str(study), "--lazy"]
    assert main([*lazy, "--id", "part", "--crop", "8:30,2:26,0:17"]) == 0
    whole = ["import", str(folder / "em.zarr"), "--studies", str(study)]
    assert main([*whole, "--id", "whole"]) == 0
    words = [
        "predict", "--studies", str(study), "--weights", str(folder / "tiny.pt"),
        "--task", task, "--quiet",
    ]  # fmt: skip
    options = ["--set", *SETTINGS, "blocks.core=[64,64,32]", "inference.min_object_voxels=1"]
    assert main([*words, "--out", str(folder / "one"), *options]) == 0
    assert main([*words, "--workers", "2", *options]) == 0
    labels = study / "labels" / TAGS[task]
    for name in ("part", "whole"):
        found = np.asarray(open_source(str(labels / f"{name}.nii.gz")))
        expected = np.asarray(open_source(str(folder / "one" / f"{name}.nii.gz")))
        assert found.dtype == expected.dtype and found.any()
        if task == "segmentation":
            np.testing.assert_array_equal(found, expected)
        else:
            assert found.max() == len(np.unique(found[found > 0]))
            np.testing.assert_array_equal(found > 0, expected > 0)
    assert not list(labels.glob(".*")), "blocks go when all labels are there"
    assert main([*words, "--workers", "2", "--box", ":,:,:", *options]) == 1
    assert "--studies with workers" in capsys.readouterr().err


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    with local_workers(2, 2**30) as engine:
        found, killed = [], 0
        for entry in engine.run(slow, tmp_path, "s", INDICES):
            found.append(entry)
            if not killed:
                killed = int(entry.worker.rpartition(":")[2])
                os.kill(killed, signal.SIGKILL)
        assert {e.index for e in found} == set(INDICES) and len(found) == len(INDICES)
        assert not [e for e in found if e.error]
        tries = len(list(tmp_path.iterdir()))
        assert len(INDICES) <= tries <= len(INDICES) + 1, "only what it had in hand is repeated"
        assert isinstance(engine.client, distributed.Client)
        patience = dask.config.get("distributed.deploy.lost-worker-timeout")
        assert dask.utils.parse_timedelta(patience) >= 600, "a start takes longer under load"


def test_a_poisoned_block_does_not_stop_workers(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with local_workers(1, 2**30) as engine:
        entries = list(engine.run(poisoned, tmp_path, "s", INDICES))
        assert len([e for e in entries if e.error]) == 2 and len(entries) == len(INDICES)
        address = engine.client.scheduler.address
        with cluster_at(address) as other:
            assert len(list(other.run(marked, tmp_path, "s", INDICES[:3]))) == 3


def test_a_run_without_workers_says_so_and_goes_on_when_one_comes(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        engine = Workers(client, "start one", patience_seconds=0.0)
        with pytest.raises(ValueError, match=r"no workers for \d+ s: start one"):
            list(engine.run(marked, tmp_path, "s", INDICES))
        told: list[str] = []

        def one_more(line: str) -> None:
            told.append(line)
            cluster.scale(1)

        engine = Workers(client, "start one", tell=one_more)
        assert len(list(engine.run(marked, tmp_path, "s", INDICES))) == len(INDICES)
        assert told == ["waiting for workers, there are none: start one"]


@contextmanager
def scheduler(folder: Path, path: str) -> Iterator[tuple[Any, subprocess.Popen[bytes]]]:
    """A client of a scheduler in a process of its own, and that process."""
    distributed, file = pytest.importorskip("distributed"), folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    words += ["--no-dashboard", "--scheduler-file", str(file)]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path}, **quiet)
    try:
        with distributed.Client(scheduler_file=str(file), timeout=120) as client:
            yield client, process
    finally:
        process.kill()
        process.wait()


def test_a_scheduler_that_goes_away_ends_the_run_in_words(tmp_path: Path) -> None:
    path = os.pathsep.join([str(APP), str(Path(__file__).parent)])
    with scheduler(tmp_path, path) as (client, process):
        engine = Workers(client, "start it again", tell=lambda line: process.kill())
        with pytest.raises(ValueError, match=r"scheduler is gone.*start it again"):
            list(engine.run(marked, tmp_path, "s", INDICES))


def test_a_cluster_without_this_app_ends_the_run_and_fails_no_block(tmp_path: Path) -> None:
    with scheduler(tmp_path, "") as (client, _):
        found = []
        with pytest.raises(ValueError, match=r"cannot run this app.*PYTHONPATH="):
            found += Workers(client, "").run(marked, tmp_path, "s", INDICES)
        assert not found


def test_no_worker_has_more_in_hand_than_one_block(tmp_path: Path) -> None:
    """A block is handed out when one was taken note of: a kill costs no more than what flies."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        for noted, _ in enumerate(Workers(client, "", 2).run(marked, tmp_path, "s", INDICES)):
            time.sleep(0.05)  # for another block that should not be there
            begun = len(list(tmp_path.iterdir()))
            assert begun <= noted + 2, "what a kill at this moment would repeat"


def test_a_scheduler_that_is_away_is_told() -> None:
    distributed = pytest.importorskip("distributed")
    assert distributed
    with (
        pytest.raises(ValueError, match="no scheduler answers there"),
        cluster_at("tcp://127.0.0.1:1", timeout_seconds=0.5),
    ):
        pass
