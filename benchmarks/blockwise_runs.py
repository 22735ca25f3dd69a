"""Blockwise runs as a whole: memory by the volume's size, and kills at random moments.

    python benchmarks/blockwise_runs.py memory --blocks 2,1,1 2,2,2 [--stand-in]
    python benchmarks/blockwise_runs.py kills --times 20 [--whom driver worker]

`memory` predicts a tile of synthetic neuropil, repeated, with two workers (needs cluster.txt),
and prints the peaks of the driver and of the largest worker, as the kernel counts them.
`--stand-in` is a network of the same design and the smallest size; `--finer 4` makes voxels so
many times finer in plane, which the network sees binned: the same voxels in and out for a
sixteenth of its work. `kills` has two workers do
stand-ins of known cost, sends kill -9 to the driver, and in a second run to a worker, at random
moments, goes on by the same command, and counts the tries of each block.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorstore as ts

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.blocks.clusters import local_workers  # noqa: E402
from lib.blocks.ledger import Ledger  # noqa: E402
from lib.blocks.plan import BlockPlan, read_plan  # noqa: E402
from lib.blocks.run import begin, drive  # noqa: E402
from lib.blocks.tasks import stages  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.labels.hierarchy import load_hierarchy  # noqa: E402
from lib.networks.model import build_network  # noqa: E402
from lib.networks.weights import save_weights  # noqa: E402
from lib.synthetic.generate import generate  # noqa: E402
from lib.volumes.boxes import whole_box  # noqa: E402

PUBLISHED = ROOT / "model" / "neuropil.pt"
TILE = (160, 160, 24)
VOXEL_NM = (10.0, 10.0, 40.0)
"""Of the finest voxels that are not binned."""
EVERY_SECONDS = 0.1
SLEEP_SECONDS = 0.3
"""Of a stand-in."""
TRIES = ".neuropil/tries"


def volume(path: Path, shape: tuple[int, int, int], finer: int = 1) -> None:
    """A tile of synthetic neuropil, repeated to a Zarr of a shape (x, y, z).

    Args:
        finer: voxels in plane that show one of the tile's.
    """
    tile = generate(TILE, VOXEL_NM, 0).image.repeat(finer, 0).repeat(finer, 1)
    spec = {
        "driver": "zarr", "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {"chunks": [24, 160, 160], "dimension_separator": "/"},
    }  # fmt: skip
    array = ts.open(spec, create=True, dtype=ts.uint8, shape=shape[::-1]).result()
    counts = [math.ceil(n / t) for n, t in zip(shape, tile.shape, strict=True)]
    slab = np.tile(tile, (counts[0], counts[1], 1))[: shape[0], : shape[1]]
    for z in range(0, shape[2], TILE[2]):
        array[z : z + TILE[2]].write(slab[..., : shape[2] - z].T).result()
    voxel = [VOXEL_NM[0] / finer, VOXEL_NM[1] / finer, VOXEL_NM[2]]
    (path / ".zattrs").write_text(json.dumps({"resolution": voxel[::-1]}))


def small_weights(path: Path) -> Path:
    """A random network of the smallest size."""
    changes = {"model.feature_size": 8, "model.head_size": 4, "model.embedding_size": 3}
    settings, hierarchy = load_settings(None, changes), load_hierarchy()
    net = build_network(settings.model, settings.loss, hierarchy)
    save_weights(path, net.state_dict(), settings, hierarchy)
    return path


def command(folder: Path, args: argparse.Namespace, out: str, weights: Path) -> list[str]:
    """The words of a run."""
    return [
        sys.executable, "main.py", "predict", "--image", f"{folder}/em.zarr",
        "--out", f"{folder}/{out}", "--task", args.task, "--quiet", "--weights", str(weights),
        "--workers", str(args.workers), "--set", f"blocks.core={list(args.core)}",
        f"blocks.chunk={list(args.chunk)}", *args.set,
    ]  # fmt: skip


def peaks(process: subprocess.Popen[bytes]) -> dict[int, int]:
    """Peak resident KiB of a process and of all that it starts, until it ends."""
    found: dict[int, int] = {}
    own = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for one in family:
            try:
                status = Path(f"/proc/{one.pid}/status").read_text()
            except OSError:  # it has just ended
                continue
            told = [row.split()[1] for row in status.splitlines() if row.startswith("VmHWM")]
            if told:
                found[one.pid] = int(told[0])
        time.sleep(EVERY_SECONDS)
    return found


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Peaks by the number of blocks along x, y, z; --core is in the network's voxels."""
    told = []
    for text in args.blocks:
        counts = [int(n) for n in text.split(",")]
        core = (args.core[0] * args.finer, args.core[1] * args.finer, args.core[2])
        shape = tuple(n * c for n, c in zip(counts, core, strict=True))
        with tempfile.TemporaryDirectory(dir=args.scratch) as name:
            folder = Path(name)
            volume(folder / "em.zarr", (shape[0], shape[1], shape[2]), args.finer)
            weights = small_weights(folder / "small.pt") if args.stand_in else PUBLISHED
            start = time.monotonic()
            process = subprocess.Popen(
                command(folder, args, "seg.zarr", weights), cwd=ROOT, stdout=subprocess.DEVNULL
            )
            found = peaks(process)
            assert process.returncode == 0, process.returncode
            ledger = Ledger(folder / "seg.zarr")
            by_stage: dict[str, int] = {}
            for stage, entries in ledger.entries.items():
                pids = {int(e.worker.rpartition(":")[2]) for e in entries.values()}
                by_stage[stage] = max(found.get(p, 0) for p in pids) // 1024
            told.append({
                "megavoxels": round(math.prod(shape) / 1e6, 1), "blocks": math.prod(counts),
                "driver_mib": found[process.pid] // 1024, "worker_mib": max(by_stage.values()),
                "joiner_mib": by_stage.get("join", 0),
                "contacts": sum(
                    int(e.value.get("contacts", 0)) for e in ledger.entries["predict"].values()
                ),
                "seconds": round(time.monotonic() - start),
            })  # fmt: skip
            print(json.dumps(told[-1]), flush=True)
    return told


def kills(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Blocks lost and repeated by kill -9 at random moments, of drivers and of workers."""
    told, draw = [], random.Random(args.seed)
    for whom in args.whom:
        with tempfile.TemporaryDirectory(dir=args.scratch) as name:
            out = Path(name) / "out.zarr"
            begin(out, standing_in(args.grid), load_hierarchy())
            (out / TRIES).mkdir()
            told.append(killed(out, whom, args.times, draw))
            print(json.dumps(told[-1]), flush=True)
    return told


def standing_in(grid: list[int]) -> BlockPlan:
    """A plan of so many blocks along x, y, z, of a source that no task opens."""
    shape = (8 * grid[0], 8 * grid[1], 8 * grid[2])
    return BlockPlan(
        "none", shape, (0, 0, 0), VOXEL_NM, whole_box(shape), (8, 8, 8), (8, 8, 8), (0.0, 1.0),
        "segmentation", "fine", "none", "none", {}, 1,
    )  # fmt: skip


def stand_in(out: str, stage: str, index: tuple[int, int, int]) -> dict[str, Any]:
    """A task of known cost that leaves a file for each try."""
    name = f"{stage.replace(' ', '_')}-{'-'.join(map(str, index))}-{time.time_ns()}"
    (Path(out) / TRIES / name).touch()
    time.sleep(SLEEP_SECONDS)
    return {}


def driven(args: argparse.Namespace) -> None:
    """The run that is killed: stand-ins by two workers."""
    with local_workers(args.workers, 2**30) as crew:
        drive(args.out, crew, work=stand_in)


def killed(out: Path, whom: str, times: int, draw: random.Random) -> dict[str, Any]:
    """A run that is killed some times and then left to end; what became of its blocks."""
    words = [sys.executable, str(Path(__file__).resolve()), "driven", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    hits, lost, noted = 0, 0, 0
    process = subprocess.Popen(words, cwd=ROOT, **quiet)
    while process.poll() is None and hits < times:
        before = len(list((out / TRIES).iterdir()))
        while process.poll() is None and len(list((out / TRIES).iterdir())) == before:
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, 8 * SLEEP_SECONDS))
        crew = workers_of(process.pid) if process.poll() is None else []
        if not crew:
            continue
        hits += 1
        if whom == "worker":
            os.kill(draw.choice(crew), signal.SIGKILL)
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs([psutil.Process(p) for p in crew if psutil.pid_exists(p)], 60)
        done = sum(len(entries) for entries in Ledger(out).entries.values())
        lost, noted = lost + max(0, noted - done), done
        process = subprocess.Popen(words, cwd=ROOT, **quiet)
    status = process.wait()
    rows = map(json.loads, filter(None, Ledger(out).path.read_text().splitlines()))
    blocks = Counter((row["stage"], tuple(row["index"])) for row in rows)
    return {
        "whom": whom, "kills": hits, "exit": status, "blocks": len(blocks),
        "of": sum(len(s.blocks) for s in stages(standing(out), out)), "lost": lost,
        "noted_twice": sum(n - 1 for n in blocks.values()),
        "repeated": len(list((out / TRIES).iterdir())) - len(blocks),
    }  # fmt: skip


def standing(out: Path) -> BlockPlan:
    """The plan that lies beside an output."""
    plan = read_plan(out)
    assert plan is not None, out
    return plan


def workers_of(pid: int) -> list[int]:
    """The worker processes of a driver."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def main() -> None:
    """Run one of the parts; a line of JSON for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    one, two = parts.add_parser("memory"), parts.add_parser("kills")
    one.add_argument("--blocks", nargs="+", default=["2,1,1", "2,2,2"], metavar="X,Y,Z")
    one.add_argument("--stand-in", action="store_true")
    one.add_argument("--finer", type=int, default=1, help="voxels in plane of one of the network's")
    one.add_argument("--core", type=int, nargs=3, default=(480, 480, 120))
    one.add_argument("--chunk", type=int, nargs=3, default=(96, 96, 24))
    one.add_argument("--task", default="both")
    one.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    two.add_argument("--times", type=int, default=20)
    two.add_argument("--whom", nargs="+", default=["driver", "worker"])
    two.add_argument("--seed", type=int, default=0)
    two.add_argument("--grid", type=int, nargs=3, default=[10, 10, 6])
    three = parts.add_parser("driven", help="what `kills` starts")
    three.add_argument("out", type=Path)
    for part in (one, two, three):
        part.add_argument("--workers", type=int, default=2)
        part.add_argument("--scratch", type=Path, help="folder for what is made; default: TMPDIR")
    args = parser.parse_args()
    {"memory": memory, "kills": kills, "driven": driven}[args.part](args)


if __name__ == "__main__":
    main()
