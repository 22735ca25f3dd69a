"""Simulated annotation: does any strategy beat foreground-aware random?

    python benchmarks/active_learning.py [--data synthetic real] [--learner heads]

Each run starts from a few random boxes of truth, trains a learner, asks a strategy for boxes,
reveals the truth in them, trains again, and measures the masked mean IoU over all label sets of
held-out volumes. Runs that are in the results file are skipped, so that a killed benchmark goes
on where it was; data sets may run at the same time in processes of their own.

`real` needs FIB-25 and VNC in $NEUROPIL_DATA or ../shared/data. FIB-25 has neurite ids only: its
boxes name no class, so they are worth little, and a strategy should find that out. Learners:
`heads`, the shipped network with class heads that learn on (benchmarks/active_heads.py);
`filters`, fixed image filters with small trained heads; `network`, a small SegResNet of the app
trained from scratch, for machines with time.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.active_heads import HeadsLearner  # noqa: E402
from benchmarks.active_learners import (  # noqa: E402
    HIERARCHY,
    FilterLearner,
    Learner,
    NetworkLearner,
    Volume,
)
from benchmarks.active_report import PLAIN, draw_curves, load_runs, summarise  # noqa: E402
from lib.configs.settings import Settings  # noqa: E402
from lib.labels.encodings import class_sets_to_final  # noqa: E402
from lib.queries.select import STRATEGIES, next_region  # noqa: E402
from lib.queries.store import ScoreStore  # noqa: E402
from lib.synthetic.generate import generate  # noqa: E402
from lib.synthetic.partial import class_sets_of  # noqa: E402
from lib.volumes.atomic import StagedFiles  # noqa: E402
from lib.volumes.boxes import Box, box_slices  # noqa: E402
from lib.volumes.study import Study  # noqa: E402
from lib.volumes.writing import label_file, write_label  # noqa: E402

ARMS = (PLAIN, *STRATEGIES)
LEARNERS: dict[str, type[Learner]] = {
    "heads": HeadsLearner, "filters": FilterLearner, "network": NetworkLearner
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much is annotated and trained."""

    rounds: int
    boxes: int
    start_boxes: int
    steps: int
    start_steps: int


@dataclass(frozen=True)
class Data:
    """What is annotated and what is measured on.

    Args:
        pool: item id -> volume to annotate.
        tests: held-out volumes.
        region: voxels of a box.
    """

    pool: dict[str, Volume]
    tests: list[Volume]
    region: tuple[int, int, int] = (24, 24, 8)


def synthetic_data() -> Data:
    """Three volumes to annotate, three to measure on."""
    shape, voxel = (112, 112, 24), (8.0, 8.0, 40.0)

    def volume(seed: int) -> Volume:
        made = generate(shape, voxel, seed)
        return Volume(made.image, class_sets_of(made, HIERARCHY), voxel)

    pool = {f"synthetic-{s}": volume(s) for s in (101, 102, 103)}
    return Data(pool, [volume(s) for s in (201, 202, 203)])


def real_data() -> Data:
    """Parts of FIB-25 and VNC, by the splits of the shared data's README.

    VNC is binned by two in the plane (9.2 nm), as the network would see it.
    """
    from benchmarks.import_shared_data import import_missing

    folder = Path("runs/active_learning/imported")
    study = Study(folder, HIERARCHY)
    import_missing(folder, ["fib25", "vnc"])
    parts = {
        "fib25-train": [((0, 96), (0, 96), (0, 48))],
        "fib25-val": [((0, 96), (0, 96), (0, 16))],
        "vnc-train": [((0, 224), (0, 224), (0, 16)), ((600, 824), (500, 724), (0, 16))],
        "vnc-val": [((0, 320), (0, 320), (0, 4)), ((600, 920), (500, 820), (0, 4))],
    }
    pool: dict[str, Volume] = {}
    tests = []
    for item_id, boxes in parts.items():
        item = study.item(item_id)
        for n, box in enumerate(boxes):
            image = np.asarray(item.open_image()[box_slices(box)])
            volume = Volume(image, item.read_class_sets(box), item.voxel_size_nm)
            if item_id.startswith("vnc"):
                volume = binned(volume)
            if item.record.split == "train":
                pool[f"{item_id}-{n}"] = volume
            else:
                tests.append(volume)
    return Data(pool, tests)


def binned(volume: Volume) -> Volume:
    """Half the voxels in the plane: mean grey values, the label of one of the four."""
    x, y, z = volume.image.shape
    grey = volume.image.reshape(x // 2, 2, y // 2, 2, z).mean((1, 3))
    a, b, c = volume.voxel_nm
    return Volume(np.rint(grey).astype(np.uint8), volume.truth[::2, ::2], (2 * a, 2 * b, c))


DATA = {"synthetic": synthetic_data, "real": real_data}


class Annotator:
    """Reveals the truth box by box in a study on disk.

    Args:
        folder: of the study.
        pool: the volumes.
    """

    def __init__(self, folder: Path, pool: dict[str, Volume]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.study = Study(folder, HIERARCHY)
        self.pool = pool
        self.known = {n: np.full_like(v.truth, HIERARCHY.unknown) for n, v in pool.items()}
        for name, volume in pool.items():
            self.study.add_item(name, volume.image, volume.voxel_nm, split="train")

    def reveal(self, item_id: str, box: Box) -> None:
        """Annotate a box."""
        part = box_slices(box)
        self.known[item_id][part] = self.pool[item_id].truth[part]
        item = self.study.item(item_id)
        final, table = class_sets_to_final(self.known[item_id], HIERARCHY, item.record.class_sets)
        with StagedFiles() as staged:
            target = label_file(self.study.root, "final", item_id)
            write_label(staged, target, final, item.voxel_size_nm)
            staged.commit()
        item.write_record(item.record.changed(class_sets=table))


def plain_region(store: ScoreStore, rng: np.random.Generator) -> tuple[str, Box]:
    """Any region that is not annotated, all equally likely."""
    open_regions = [
        (item.id, grid.box(int(r)))
        for item in store.study.items()
        for grid in [store.grid_of(item)]
        for r in np.flatnonzero(store.known_share(item, grid) < 0.5)
    ]
    return open_regions[int(rng.integers(len(open_regions)))]


@dataclass
class Start:
    """Where all strategies of a seed begin: the same boxes, the same network.

    Args:
        boxes: annotated before the first query.
        learner: trained on them.
        row: its figures.
    """

    boxes: list[tuple[str, Box]]
    learner: Learner
    row: dict[str, Any]


def make_start(
    make: type[Learner], seed: int, plan: Plan, settings: Settings, data: Data, folder: Path
) -> Start:
    """Random boxes and a network trained on them."""
    annotator = Annotator(folder, data.pool)
    store = ScoreStore(annotator.study, settings.queries)
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(plan.start_boxes):
        boxes.append(plain_region(store, rng))
        annotator.reveal(*boxes[-1])
    learner = make(settings, data.pool, seed)
    learner.train(annotator.study, annotator.known, plan.start_steps)
    return Start(boxes, learner, row_of(plan.start_boxes, learner.measure(data.tests)))


def row_of(boxes: int, found: dict[str, float]) -> dict[str, Any]:
    """One point of a curve."""
    return {"boxes": boxes, "mean_iou": float(np.nanmean(list(found.values()))), **found}


def simulate(
    arm: str, seed: int, plan: Plan, start: Start, data: Data, folder: Path
) -> list[dict[str, Any]]:
    """One run: the figures after each round."""
    learner = copy.deepcopy(start.learner)
    settings = learner.settings
    annotator = Annotator(folder, data.pool)
    for item_id, box in start.boxes:
        annotator.reveal(item_id, box)
    store = ScoreStore(annotator.study, settings.queries)
    rng = np.random.default_rng((seed, ARMS.index(arm)))
    rows = [start.row]
    for done in range(plan.rounds):
        chosen: list[tuple[str, Box]] = []
        if arm != PLAIN:
            net = learner.net.eval()
            store.score(lambda net=net: (net, settings, HIERARCHY), f"round {done}")
        while len(chosen) < plan.boxes:
            if arm == PLAIN:
                chosen.append(plain_region(store, rng))
            else:
                query = next_region(store, arm, client="simulated", rng=rng)  # type: ignore[arg-type]
                chosen.append((query.item, query.box))
        for item_id, box in chosen:
            annotator.reveal(item_id, box)
        learner.train(annotator.study, annotator.known, plan.steps)
        boxes = plan.start_boxes + (done + 1) * plan.boxes
        rows.append(row_of(boxes, learner.measure(data.tests)))
    return rows


def run_missing(data: str, args: argparse.Namespace, plan: Plan, results: Path) -> None:
    """Make the runs of a data set that the results file has not got."""
    make = LEARNERS[args.learner]
    stamp = make.stamp()
    done = {(r["arm"], r["seed"]) for r in chosen_runs(results, plan, stamp) if r["data"] == data}
    todo = [(s, a) for s in args.seeds for a in args.arms if (a, s) not in done]
    if not todo:
        return
    volumes = DATA[data]()
    folder = args.out / f"study-{data}-{args.learner}"
    settings = make.settings_for(volumes.region, plan.rounds * plan.boxes)
    starts: dict[int, Start] = {}
    for seed, arm in todo:
        began = time.process_time()
        if seed not in starts:
            starts = {seed: make_start(make, seed, plan, settings, volumes, folder)}
        rows = simulate(arm, seed, plan, starts[seed], volumes, folder)
        run = {"data": data, "arm": arm, "seed": seed, "plan": asdict(plan), "learner": stamp}
        with results.open("a") as file:  # one write a line: several data sets may run at once
            file.write(json.dumps({**run, "rows": rows}) + "\n")
        curve = " ".join(f"{row['mean_iou']:.3f}" for row in rows)
        seconds = time.process_time() - began
        print(f"{data} {arm} seed {seed}: {curve} ({seconds:.0f} s of CPU)", flush=True)
    shutil.rmtree(folder)


def chosen_runs(results: Path, plan: Plan, stamp: str) -> list[dict[str, Any]]:
    """The runs of this plan with this learner's weights."""
    runs = load_runs(results)
    return [r for r in runs if (r["plan"], r.get("learner", "")) == (asdict(plan), stamp)]


def main() -> None:
    """Run what is missing, then write table and curves of all that this plan has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/active_learning"))
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--learner", choices=list(LEARNERS), default="heads")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--boxes", type=int, default=4, help="annotated in each round")
    parser.add_argument("--start-boxes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=400, help="training steps in each round")
    parser.add_argument("--start-steps", type=int, default=400)
    parser.add_argument("--picture", type=Path, help="where to draw the curves")
    args = parser.parse_args()
    plan = Plan(args.rounds, args.boxes, args.start_boxes, args.steps, args.start_steps)
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / f"results-{args.learner}.jsonl"
    for data in args.data:
        run_missing(data, args, plan, results)
    runs = chosen_runs(results, plan, LEARNERS[args.learner].stamp())
    print(summarise(runs, ARMS))
    draw_curves(runs, ARMS, args.picture or args.out / f"curves-{args.learner}.png")


if __name__ == "__main__":
    main()
