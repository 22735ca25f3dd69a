"""Blockwise runs as a whole: memory by the volume's size, and kills at random moments.

    python benchmarks/blockwise_runs.py memory --blocks 2,1,1 2,2,2 [--stand-in]
    python benchmarks/blockwise_runs.py join --blocks 2,3,3 6,4,3
    python benchmarks/blockwise_runs.py kills --times 20 [--whom driver worker]

`memory` predicts a tile of synthetic neuropil, repeated, with two workers (needs cluster.txt),
and prints the peaks of the driver and of the largest worker, as the kernel counts them.
`--stand-in` runs the network on one tile and repeats what it said there, as the image is
repeated: the fragments, contacts and objects of a real run, without its network. `--finer 4`
makes voxels so many times finer in plane, which the network sees binned: the same voxels in and
out for a sixteenth of its work. `join` joins what one block says, repeated to so many blocks, and
prints the peak of that alone: how it grows with the contacts. `kills` has two workers do
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
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import tensorstore as ts

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.blocks import commands, fragments, parts  # noqa: E402
from lib.blocks.clusters import local_workers  # noqa: E402
from lib.blocks.contacts import face_contacts  # noqa: E402
from lib.blocks.ledger import Ledger  # noqa: E402
from lib.blocks.objects import join_fragments  # noqa: E402
from lib.blocks.plan import FOLDER, BlockPlan, read_plan  # noqa: E402
from lib.blocks.run import begin, drive  # noqa: E402
from lib.blocks.tasks import run_block, stages  # noqa: E402
from lib.commands import main as main_of_app  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.labels.hierarchy import load_hierarchy  # noqa: E402
from lib.prediction.boundary import boundary_scale  # noqa: E402
from lib.prediction.classes import FINE_VALUE  # noqa: E402
from lib.prediction.evidence import Evidence, collect_evidence  # noqa: E402
from lib.prediction.graph import REACHES  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.prediction.scratch import Scratch  # noqa: E402
from lib.synthetic.generate import generate  # noqa: E402
from lib.volumes.boxes import whole_box  # noqa: E402

PUBLISHED = ROOT / "model" / "neuropil.pt"
TILE = (160, 160, 24)
VOXEL_NM = (10.0, 10.0, 40.0)
"""Of the finest voxels that are not binned."""
KEPT = ("affinities", "classes", "foreground", "offsets")
EVIDENCE = "NEUROPIL_EVIDENCE"
"""Variable: folder of what the network said of the tile; made where it is not set."""
JOINED = (160, 160, 120)
"""Network voxels of a block of `join`: whole tiles."""
IDS = ("voted", "edges", *(f"pairs{reach}" for reach in range(len(REACHES))))
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


@contextmanager
def kept_evidence(scratch_folder: Path | None) -> Iterator[None]:
    """What the network says of one tile among its like, for this process and those it starts."""
    if EVIDENCE in os.environ:  # of an earlier run
        yield
        return
    with tempfile.TemporaryDirectory(dir=scratch_folder) as name:
        keep_evidence(Path(name))
        os.environ[EVIDENCE] = name
        yield
        del os.environ[EVIDENCE]


def keep_evidence(folder: Path) -> None:
    """Ask the network of one tile, as the image repeats it."""
    predictor = load_predictor(PUBLISHED, load_settings(None, {}))
    tile = generate(TILE, VOXEL_NM, 0).image
    image = np.tile(tile, (3, 3, 3))
    middle = tuple((n, 2 * n) for n in TILE)
    with Scratch(2**31) as scratch:
        said = collect_evidence(
            predictor.finder, image, VOXEL_NM, predictor.inference, predictor.hierarchy, scratch,
            box=(middle[0], middle[1], middle[2]),
        )  # fmt: skip
        for name in KEPT:
            np.save(folder / f"{name}.npy", np.asarray(getattr(said, name)))


def repeated(*_: Any, box: Any = None, **more: Any) -> Any:
    """In place of `collect_evidence`: what was said of the tile, over and over."""
    volume, hierarchy, scratch = _[1], _[4], _[5]
    box = box or whole_box(volume.shape)
    folder = Path(os.environ[EVIDENCE])
    kept = {name: np.load(folder / f"{name}.npy") for name in KEPT}
    places = [np.arange(a, b) % n for (a, b), n in zip(box, TILE, strict=True)]
    size = tuple(len(p) for p in places)
    affinities = scratch.array((len(kept["offsets"]), *size), np.float16)
    for target, values in zip(affinities, kept["affinities"], strict=True):
        target[...] = values[np.ix_(*places)]
    classes, foreground = (scratch.array(size, kept[n].dtype) for n in KEPT[1:3])
    classes[...], foreground[...] = (kept[n][np.ix_(*places)] for n in KEPT[1:3])
    offsets = tuple((int(x), int(y), int(z)) for x, y, z in kept["offsets"])
    return Evidence(affinities, offsets, classes, foreground, hierarchy.num_classes + FINE_VALUE)


def without_network(out: str, stage: str, index: tuple[int, int, int]) -> dict[str, Any]:
    """A task of a run whose network is stood in for."""
    fragments.collect_evidence = repeated
    return run_block(out, stage, index)


def stood_in(args: argparse.Namespace) -> None:
    """A run of the command line whose network is stood in for."""
    fragments.collect_evidence = repeated
    commands.drive = partial(drive, work=without_network)
    raise SystemExit(main_of_app(args.words))


def command(folder: Path, args: argparse.Namespace) -> list[str]:
    """The words of a run."""
    this = [str(Path(__file__).resolve()), "stood-in"] if args.stand_in else ["main.py"]
    return [
        sys.executable, *this, "predict", "--image", f"{folder}/em.zarr",
        "--out", f"{folder}/seg.zarr", "--task", args.task, "--quiet", "--weights", str(PUBLISHED),
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
            start = time.monotonic()
            process = subprocess.Popen(command(folder, args), cwd=ROOT, stdout=subprocess.DEVNULL)
            found = peaks(process)
            assert process.returncode == 0, process.returncode
            ledger = Ledger(folder / "seg.zarr")
            crew = {
                int(e.worker.rpartition(":")[2])
                for entries in ledger.entries.values() for e in entries.values()
            } - {process.pid}  # fmt: skip
            told.append({
                "megavoxels": round(math.prod(shape) / 1e6, 1), "blocks": math.prod(counts),
                "driver_mib": found[process.pid] // 1024,
                "worker_mib": max(found.get(p, 0) for p in crew) // 1024,
                "contacts": sum(
                    int(e.value.get("contacts", 0)) for e in ledger.entries["predict"].values()
                ),
                "seconds": round(time.monotonic() - start),
            })  # fmt: skip
            print(json.dumps(told[-1]), flush=True)
    return told


def join(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak of the join by the number of blocks along x, y, z, all as one in the middle says."""
    told = []
    predictor = load_predictor(PUBLISHED, load_settings(None, {}))
    for text in args.blocks:
        x, y, z = (int(n) for n in text.split(","))
        with tempfile.TemporaryDirectory(dir=args.scratch) as name:
            out = Path(name)
            contacts = write_parts(out, predictor, (x, y, z))
            start = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "joined", name], cwd=ROOT
            )
            found = peaks(process)
            assert process.returncode == 0, process.returncode
            told.append({
                "network_megavoxels": round(x * y * z * math.prod(JOINED) / 1e6, 1),
                "contacts": contacts, "mib": found[process.pid] // 1024,
                "seconds": round(time.monotonic() - start),
            })  # fmt: skip
            print(json.dumps(told[-1]), flush=True)
    return told


def write_parts(out: Path, predictor: Predictor, grid: tuple[int, int, int]) -> int:
    """What the blocks of a volume say; the number of contacts.

    A block is whole tiles, so that all say the same of fragments that lie elsewhere.
    """
    (out / FOLDER / "parts").mkdir(parents=True)
    shape = [3 * n for n in JOINED]
    middle = tuple((n, 2 * n) for n in JOINED)
    everything = tuple(n * c for n, c in zip(grid, JOINED, strict=True))
    fragments.collect_evidence = repeated
    with Scratch(2**31) as scratch:
        said = repeated(None, np.empty(TILE), None, None, predictor.hierarchy, scratch)
        scale = boundary_scale([fragments._histogram(said, VOXEL_NM)])
    view = SimpleNamespace(shape=tuple(shape))
    box = (middle[0], middle[1], middle[2])
    part = fragments.fragments_in(predictor, view, VOXEL_NM, box, scale, out)
    own = {"voted": part.voted, "votes": part.votes, "background": part.background}
    own |= parts._arrays(part.contacts)
    steps = [np.ravel_multi_index([n * (a == axis) for a, n in enumerate(JOINED)], shape)
             for axis in range(3)]  # fmt: skip
    between = [
        face_contacts(face, replace(face, low=face.low + np.uint64(step) * (face.low > 0)), axis,
                      VOXEL_NM)
        for axis, (face, step) in enumerate(zip(part.faces, steps, strict=True))
    ]  # fmt: skip
    there = {"edges": np.concatenate([b.edges for b in between])}
    for reach in range(len(REACHES)):
        for i, what in enumerate(("pairs", "stats")):
            there[f"{what}{reach}"] = np.concatenate([b.stats[reach][i] for b in between])
    for index in product(*(range(n) for n in grid)):
        by = [(i - 1) * n for i, n in zip(index, JOINED, strict=True)]
        for kind, arrays in (("part", own), ("between", there)):
            moved = {k: _moved(v, by, shape, everything) if k in IDS else v
                     for k, v in arrays.items()}  # fmt: skip
            np.savez(parts._path(out, kind, index), **moved)
    return math.prod(grid) * (len(own["edges"]) + len(there["edges"]))


def _moved(ids: Any, by: list[int], shape: Any, everything: Any) -> Any:
    """Fragments by the voxels they are known by in a larger volume, some blocks further on."""
    places = np.unravel_index(ids.astype(np.int64) - 1, shape)
    far = [p + step for p, step in zip(places, by, strict=True)]
    inside = np.ravel_multi_index(far, everything, mode="clip").astype(np.uint64) + 1
    beyond = np.any([(f < 0) | (f >= n) for f, n in zip(far, everything, strict=True)], 0)
    return np.where(beyond, np.uint64(2**62), inside)  # no block's own: its contacts go


def joined(args: argparse.Namespace) -> None:
    """What `join` starts."""
    print(join_fragments(args.out, load_predictor(PUBLISHED, load_settings(None, {}))))


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
    kinds = parser.add_subparsers(dest="part", required=True)
    one, two = kinds.add_parser("memory"), kinds.add_parser("kills")
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
    for name, by in (("driven", "kills"), ("joined", "join")):
        kinds.add_parser(name, help=f"what `{by}` starts").add_argument("out", type=Path)
    five = kinds.add_parser("join")
    five.add_argument("--blocks", nargs="+", default=["2,3,3", "6,4,3"], metavar="X,Y,Z")
    four = kinds.add_parser("stood-in", help="what `memory --stand-in` starts")
    four.add_argument("words", nargs=argparse.REMAINDER)
    for part in kinds.choices.values():
        part.add_argument("--workers", type=int, default=2)
        part.add_argument("--scratch", type=Path, help="folder for what is made; default: TMPDIR")
    args = parser.parse_args()
    done = {
        "memory": memory, "kills": kills, "join": join,
        "driven": driven, "joined": joined, "stood-in": stood_in,
    }[args.part]  # fmt: skip
    said = args.part == "join" or getattr(args, "stand_in", False)
    with kept_evidence(args.scratch) if said else nullcontext():
        done(args)


if __name__ == "__main__":
    main()
