"""Blockwise runs: do objects depend on the cut, and what does an engine cost.

    python benchmarks/blockwise.py objects --image FILE.h5 [--box ...]  needs true ids in the file
    python benchmarks/blockwise.py engine --workers 1 2 8               needs cluster.txt

The stand-in task of `engine` sleeps for a known time, so that its share of the wall is the
engine's efficiency. `blockwise_runs.py` measures memory and kills.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lib.blocks.clusters import local_workers  # noqa: E402
from lib.blocks.ledger import Ledger  # noqa: E402
from lib.metrics.object_scores import adapted_rand_error, contingency, variation_of_information  # noqa: E402
from lib.volumes.boxes import box_slices, fill_box, parse_box, whole_box  # noqa: E402
from lib.volumes.readers.opening import open_source  # noqa: E402


def stand_in(out: str, stage: str, index: tuple[int, int, int]) -> dict[str, Any]:
    """A task of known cost: the stage is called by its seconds."""
    time.sleep(float(stage))
    return {}


def at_faces(ids: np.ndarray, planes: list[int], axis: int) -> float:
    """Share of the object voxels beside some planes whose object ends there."""
    values = np.moveaxis(ids, axis, 0)
    ended = [(values[p - 1] != values[p]) & (values[p - 1] > 0) for p in planes]
    return float(np.mean([e.mean() for e in ended]))


def objects(args: argparse.Namespace) -> dict[str, Any]:
    """ARE and VOI to the truth of one block and of many, between them, and seams."""
    image = open_source(args.image, "image")
    box = fill_box(parse_box(args.box), whole_box(image.shape))
    truth = open_source(args.image, "instance")[box_slices(box)].astype(np.int64)
    found, told = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, core in (("one", [9999] * 3), ("many", args.core)):
            out = Path(folder) / f"{name}.zarr"
            words = [sys.executable, "main.py", "predict", "--image", args.image, "--box", args.box]
            words += ["--out", str(out), "--task", "instances", "--quiet"]
            subprocess.run(
                [*words, "--set", f"blocks.core={core}", "blocks.chunk=[48,48,24]"],
                cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            ids = np.asarray(open_source(str(out / "objects"))).astype(np.int64)
            table = contingency(truth, ids)
            split, merge = variation_of_information(table)
            join = Ledger(out).entries["join"][0, 0, 0].value
            found[name] = ids
            told[name] = {
                "are": round(adapted_rand_error(table), 4), "voi_split": round(split, 3),
                "voi_merge": round(merge, 3), **join,
            }  # fmt: skip
    between = adapted_rand_error(contingency(found["one"], found["many"]))
    seams = []
    for axis in (0, 1):
        size = found["many"].shape[axis]
        count = math.ceil(size / args.core[axis])
        core = 48 * math.ceil(math.ceil(size / count) / 48)
        faces = list(range(core, size, core))
        others = [p for p in range(8, size - 8, 5) if all(abs(p - f) > 4 for f in faces)]
        if faces:
            seams.append(
                at_faces(found["many"], faces, axis) / at_faces(found["many"], others, axis)
            )
    return {**told, "are_between": round(between, 4), "seams": [round(s, 3) for s in seams]}


def engine(args: argparse.Namespace) -> dict[str, Any]:
    """Wall time of stand-in blocks by numbers of workers, as a share of the ideal.

    Beside it the processor time that driver and scheduler take for a block.
    """
    told = {}
    for workers in args.workers:
        blocks = [(i, 0, 0) for i in range(args.blocks)]
        with local_workers(workers, 2**30) as crew, tempfile.TemporaryDirectory() as out:
            crew.client.wait_for_workers(workers)
            list(crew.run(stand_in, Path(out), "0.1", blocks[: 2 * workers]))  # imports
            begin, spent = time.monotonic(), time.process_time()
            list(crew.run(stand_in, Path(out), str(args.seconds), blocks))
            wall, spent = time.monotonic() - begin, time.process_time() - spent
        ideal = args.seconds * math.ceil(args.blocks / workers)
        told[str(workers)] = {
            "wall": round(wall, 2), "of_ideal": round(ideal / wall, 3),
            "driver_ms_a_block": round(1000 * spent / args.blocks, 1),
        }  # fmt: skip
        print(json.dumps({workers: told[str(workers)]}), flush=True)
    return told


def main() -> None:
    """Run one of the parts and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("objects")
    one.add_argument("--image", required=True)
    one.add_argument("--box", default=":,:,:")
    one.add_argument("--core", type=int, nargs=3, default=[96, 96, 48])
    two = parts.add_parser("engine")
    two.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    two.add_argument("--blocks", type=int, default=32)
    two.add_argument("--seconds", type=float, default=5.0, help="that a block takes")
    args = parser.parse_args()
    found = {"objects": objects, "engine": engine}[args.part](args)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
