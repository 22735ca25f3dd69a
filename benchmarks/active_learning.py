"""Simulated annotation: does any strategy beat foreground-aware random?

    python benchmarks/active_learning.py --out runs/active_learning [--data synthetic real]

Each run starts from a few random boxes of truth, trains a learner, asks a strategy for boxes,
reveals the truth in them, trains again, and measures the mean IoU over all label sets of held-out
volumes. Runs that are in the results file are skipped, so that a killed benchmark goes on where
it was. `real` needs VNC and SBEM in $NEUROPIL_DATA or ../shared/data. (FIB-25 has neurite ids
only: no class to learn or to measure.) Two learners (benchmarks/active_learners.py): `filters`,
fixed image filters with small trained heads, minutes on one core; `network`, a small SegResNet
of the app trained on from round to round, for machines with time.
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

from benchmarks.active_learners import HIERARCHY, LEARNERS, Learner, Volume  # noqa: E402
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

PLAIN = "plain random"
ARMS = (PLAIN, *STRATEGIES)


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
    region: tuple[int, int, int] = (32, 32, 8)


def synthetic_data() -> Data:
    """Three volumes to annotate, three to measure on."""
    shape, voxel = (112, 112, 24), (8.0, 8.0, 40.0)

    def volume(seed: int) -> Volume:
        made = generate(shape, voxel, seed)
        return Volume(made.image, class_sets_of(made, HIERARCHY), voxel)

    pool = {f"synthetic-{s}": volume(s) for s in (101, 102, 103)}
    return Data(pool, [volume(s) for s in (201, 202, 203)])


def real_data() -> Data:
    """Parts of VNC and SBEM, by the splits of the shared data's README."""
    from benchmarks.import_shared_data import commands, data_folder
    from lib.volumes.commands import add_import_parser, run_import

    data = data_folder()
    if not data.is_dir():
        raise SystemExit(f"no data at {data}: set NEUROPIL_DATA")
    folder = Path("runs/active_learning/imported")
    parser = argparse.ArgumentParser()
    add_import_parser(parser.add_subparsers(required=True))
    study = Study(folder, HIERARCHY)
    if not study.items():
        for words in commands(data, ["vnc", "sbem"]):
            run_import(parser.parse_args(["import", *words, "--studies", str(folder)]))
    pool: dict[str, Volume] = {}
    tests = []
    for item in study.items():
        sets = item.read_class_sets()
        image = np.asarray(item.open_image()[:, :, :])
        if item.record.split == "train":
            x, y, z = (min(n, m) for n, m in zip(image.shape, (192, 192, 16), strict=True))
            pool[item.id] = Volume(image[:x, :y, :z], sets[:x, :y, :z], item.voxel_size_nm)
        else:
            x, y, z = (min(n, m) for n, m in zip(image.shape, (192, 192, 4), strict=True))
            tests.append(Volume(image[-x:, -y:, :z], sets[-x:, -y:, :z], item.voxel_size_nm))
    return Data(pool, tests)


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


def load_runs(path: Path) -> list[dict[str, Any]]:
    """The runs in the results file; a line cut short by a kill is left out."""
    runs = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return runs


def summarise(runs: list[dict[str, Any]]) -> str:
    """A Markdown table: final mean IoU and area under the curve, mean and spread over seeds."""
    lines = []
    for data in sorted({r["data"] for r in runs}):
        heads = ["strategy", "seeds", "final mean IoU", "mean over all rounds",
                 "against foreground-aware random, seed by seed"]  # fmt: skip
        lines += [f"### {data}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        area = {(r["arm"], r["seed"]): np.mean([row["mean_iou"] for row in r["rows"][1:]])
                for r in runs if r["data"] == data}  # fmt: skip
        for arm in ARMS:
            mine = [r for r in runs if r["data"] == data and r["arm"] == arm]
            if not mine:
                continue
            last = [r["rows"][-1]["mean_iou"] for r in mine]
            mean = [area[arm, r["seed"]] for r in mine]
            gains = [area[arm, r["seed"]] - area["random", r["seed"]]
                     for r in mine if ("random", r["seed"]) in area]  # fmt: skip
            gain = ", ".join(f"{g:+.3f}" for g in gains) if arm != "random" else "-"
            lines.append(
                f"| {arm} | {len(mine)} | {np.mean(last):.3f} ± {np.std(last):.3f} | "
                f"{np.mean(mean):.3f} ± {np.std(mean):.3f} | {gain} |"
            )
        lines.append("")
    return "\n".join(lines)


def draw_curves(runs: list[dict[str, Any]], path: Path) -> None:
    """Mean IoU against annotated boxes, one panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({r["data"] for r in runs})
    figure, axes = pyplot.subplots(1, len(names), figsize=(6 * len(names), 4), squeeze=False)
    for axis, data in zip(axes[0], names, strict=True):
        for arm in ARMS:
            mine = [r["rows"] for r in runs if r["data"] == data and r["arm"] == arm]
            if mine:
                values = np.array([[row["mean_iou"] for row in rows] for rows in mine])
                boxes = [row["boxes"] for row in mine[0]]
                axis.plot(boxes, values.mean(0), marker=".", label=arm)
                axis.fill_between(boxes, values.min(0), values.max(0), alpha=0.12)
        axis.set(title=data, xlabel="annotated boxes", ylabel="mean IoU, held-out volumes")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Run what is missing, then write table and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/active_learning"))
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--learner", choices=list(LEARNERS), default="filters")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--boxes", type=int, default=4, help="annotated in each round")
    parser.add_argument("--start-boxes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=250, help="training steps in each round")
    parser.add_argument("--start-steps", type=int, default=250)
    parser.add_argument("--picture", type=Path, help="where to draw the curves")
    args = parser.parse_args()
    plan = Plan(args.rounds, args.boxes, args.start_boxes, args.steps, args.start_steps)
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / f"results-{args.learner}.jsonl"
    for data in args.data:
        done = {(r["data"], r["arm"], r["seed"]) for r in load_runs(results)}
        todo = [(s, a) for s in args.seeds for a in args.arms if (data, a, s) not in done]
        if not todo:
            continue
        volumes = DATA[data]()
        make = LEARNERS[args.learner]
        settings = make.settings_for(volumes.region, plan.rounds * plan.boxes)
        starts: dict[int, Start] = {}
        for seed, arm in todo:
            began = time.process_time()
            if seed not in starts:
                starts = {seed: make_start(make, seed, plan, settings, volumes, args.out / "study")}
            rows = simulate(arm, seed, plan, starts[seed], volumes, args.out / "study")
            run = {"data": data, "arm": arm, "seed": seed, "plan": asdict(plan), "rows": rows}
            with results.open("a") as file:
                file.write(json.dumps(run) + "\n")
            curve = " ".join(f"{row['mean_iou']:.3f}" for row in rows)
            print(f"{data} {arm} seed {seed}: {curve} ({time.process_time() - began:.0f} s)")
            sys.stdout.flush()
    runs = [r for r in load_runs(results) if r["data"] in args.data]
    print(summarise(runs))
    draw_curves(runs, args.picture or args.out / f"curves-{args.learner}.png")


if __name__ == "__main__":
    main()
