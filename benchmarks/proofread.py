"""Clicks to quality: the app's answer against choosing instances and against plain watershed.

    python benchmarks/proofread.py [--weights model/neuropil.pt] [--objects 12] [--ablate 6]

On FIB-25's dev block (bodies over 1000 voxels), on the mitochondria of VNC's dev sections and
on synthetic neuropil of an unseen seed. Every method sees the same first click; later clicks
are drawn from its own errors with the same random stream. The app starts from the automatic
instances that the first method chooses among, as it does in a study. Prints Markdown tables and
writes the curves as a picture. A second table answers the app's own clicks in other ways
(`proofread_variants.py`), a third heals split and merge errors of the automatic instances
(`proofread_errors.py`).
The data are looked for in $NEUROPIL_DATA, else in ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cc3d
import matplotlib
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
matplotlib.use("Agg")

import torch  # noqa: E402
from matplotlib import pyplot  # noqa: E402

from benchmarks.click_baselines import AutomaticPick, PointWatershed, boundary_map  # noqa: E402
from benchmarks.proofread_errors import heal  # noqa: E402
from benchmarks.proofread_variants import Session, replay, variants  # noqa: E402
from lib.clicks.source import Kind  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.evaluation.click_sessions import Answers, app_answers_on, clickable_objects  # noqa: E402
from lib.metrics.click_scores import AFTER, TARGETS, ClickScores  # noqa: E402
from lib.metrics.clicks import (  # noqa: E402
    Click,
    Mask,
    seeded_generator,
    simulate_clicks,
)
from lib.prediction.evidence import collect_evidence  # noqa: E402
from lib.prediction.grouping import group_volume  # noqa: E402
from lib.prediction.objects import Fragments  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.prediction.scratch import Scratch  # noqa: E402
from lib.synthetic.generate import generate  # noqa: E402
from lib.volumes.boxes import whole_box  # noqa: E402
from lib.volumes.contrast import LazyImage  # noqa: E402
from lib.volumes.readers.opening import open_source  # noqa: E402

MIN_VOXELS = 1000
UNSEEN_SEED = 987_001
VNC_MITOCHONDRIA, VNC_DEV = 191, slice(16, 20)
FIB_DEV = slice(210, 250)
IOU_AFTER = " | ".join(f"IoU@{n}" for n in AFTER)


@dataclass(frozen=True)
class DataSet:
    """Objects to click on: image, ids (-1 unknown), voxel size and least size of an object."""

    name: str
    image: NDArray[np.uint8]
    ids: NDArray[np.int64]
    voxel_size_nm: tuple[float, float, float]
    min_voxels: int
    kind: Kind = "cell"


@dataclass(frozen=True)
class Scene:
    """A data set in the network's frame, with every way of answering clicks."""

    data: DataSet
    image: LazyImage
    ids: NDArray[np.int64]
    voxel_size_nm: tuple[float, float, float]
    automatic: NDArray[np.uint32]
    fragments: Fragments
    methods: dict[str, Answers]


def fib25(data: Path) -> DataSet:
    """Bodies of the FIB-25 dev block."""
    file = data / "fib25_sample2.h5"
    raw = np.asarray(open_source(f"{file}:volumes/raw", "image")[:, :, FIB_DEV])
    ids = np.asarray(open_source(f"{file}:volumes/labels/neuron_ids", "instance")[:, :, FIB_DEV])
    truth = ids.astype(np.int64)
    truth[truth == 0] = -1
    return DataSet("FIB-25 dev, bodies", raw, truth, (10.0, 10.0, 10.0), MIN_VOXELS)


def vnc(data: Path) -> DataSet:
    """Mitochondria of the VNC dev sections: connected components of the class."""
    raw, classes = (
        np.asarray(open_source(str(data / f"vnc_{name}.tif"), role)[:, :, VNC_DEV])
        for name, role in (("raw", "image"), ("labels", "semantic"))
    )
    ids = cc3d.connected_components(classes == VNC_MITOCHONDRIA, connectivity=26)
    voxel = (4.6, 4.6, 50.0)
    return DataSet(
        "VNC dev, mitochondria", raw, ids.astype(np.int64), voxel, MIN_VOXELS, "organelle"
    )


def synthetic() -> DataSet:
    """All objects of a synthetic volume that no training has seen."""
    made = generate((160, 160, 32), (8.0, 8.0, 40.0), UNSEEN_SEED)
    return DataSet("synthetic neuropil", made.image, made.instance, made.voxel_size_nm, 300)


def scene(predictor: Predictor, data: DataSet) -> Scene:
    """Run the network once and set up the three methods."""
    frame = predictor.frame(data.image.shape, data.voxel_size_nm)
    image, voxel = frame.view(data.image), frame.network_voxel_size_nm
    with Scratch(predictor.inference.tile_bytes) as scratch:
        evidence = collect_evidence(
            predictor.net, image, voxel, predictor.inference, predictor.hierarchy, scratch
        )
        fragments = group_volume(evidence, voxel, predictor.inference)
        boundary = boundary_map(evidence)
    crumb = predictor.inference.min_object_voxels
    automatic = fragments.objects(predictor.joining, predictor.hierarchy, crumb).ids
    return Scene(
        data,
        image,
        frame.labels_to_network(data.ids, whole_box(frame.network_shape)),
        voxel,
        automatic,
        fragments,
        {
            "automatic instance": AutomaticPick(automatic),
            "app": app_answers_on(
                predictor, image, voxel, data.name, automatic, fragments, data.kind
            ),
            "point watershed": PointWatershed(boundary),
        },
    )


@dataclass(frozen=True)
class Measured:
    """Sessions of one method.

    Args:
        scores: of all sessions.
        sessions: objects and their clicks.
        seconds: that an answer took, on average.
    """

    scores: ClickScores
    sessions: list[Session]
    seconds: float


def measure(view: Scene, objects: list[int], answer: Answers, most: int) -> Measured:
    """Sessions of one method on the objects, of at most so many clicks."""
    scores, sessions, taken = ClickScores(), [], []
    known = view.ids >= 0

    def timed(clicks: Sequence[Click]) -> Mask:
        start = time.perf_counter()
        mask = answer(clicks)
        taken.append(time.perf_counter() - start)
        return mask

    for instance in objects:
        made, quality = simulate_clicks(
            timed,
            view.ids == instance,
            known,
            view.voxel_size_nm,
            seeded_generator(view.data.name, instance),
            max_clicks=most,
            always=min(10, most),
        )
        scores.update(quality)
        sessions.append((instance, made))
    return Measured(scores, sessions, float(np.mean(taken)))


def main() -> int:
    """Run all data sets, print the tables and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--config", type=Path)
    parser.add_argument(
        "--objects", type=int, default=12, help="of a data set, evenly drawn; 0: all"
    )
    parser.add_argument("--clicks", type=int, default=20, help="most clicks of a session")
    parser.add_argument(
        "--ablate", type=int, default=6, help="objects on which variants are compared; 0: none"
    )
    parser.add_argument("--only", nargs="+", choices=("fib25", "vnc", "synthetic"))
    parser.add_argument("--picture", type=Path, default=ROOT / "benchmarks" / "proofread.png")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    data = Path(os.environ.get("NEUROPIL_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        raise SystemExit(f"no data at {data}: set NEUROPIL_DATA")
    sources: dict[str, Callable[[], DataSet]] = {
        "fib25": lambda: fib25(data),
        "vnc": lambda: vnc(data),
        "synthetic": synthetic,
    }
    predictor = load_predictor(args.weights, load_settings(args.config), torch.device(args.device))
    tables = Tables()
    for name in args.only or sources:
        view = scene(predictor, sources[name]())
        objects = clickable_objects(view.ids, view.data.min_voxels, args.objects)
        tables.add(predictor, view, objects, args.clicks, args.ablate)
        if name == "fib25":
            found = heal(
                view.data.name,
                view.ids,
                view.automatic,
                view.data.voxel_size_nm,
                view.methods["app"],
            )
            tables.healed = [f"| {k} | {t} | {b:.3f} | {a:.3f} |" for k, t, b, a in found]
    print(tables.rest())
    draw(tables.curves, args.picture)
    return 0


@dataclass
class Tables:
    """What is printed: the first table row by row, the rest at the end."""

    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    ablation: list[str] = field(default_factory=list)
    healed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        print(
            f"| data | method | objects | {IOU_AFTER} | area | NoC@80 | NoC@85 | NoC@90 | "
            "fail@85 | clicks that lose > 0.1 | s an answer |"
        )
        print("|---" * (len(AFTER) + 10) + "|", flush=True)

    def add(
        self, predictor: Predictor, view: Scene, objects: list[int], most: int, ablate: int
    ) -> None:
        """Measure all methods on a data set, and the variants on some of the app's sessions."""
        for method, answer in view.methods.items():
            measured = measure(view, objects, answer, most)
            self.curves.setdefault(view.data.name, {})[method] = measured.scores.curve()
            r = measured.scores.result()
            cells = " | ".join(f"{v:.3f}" for v in (*r.iou_after.values(), r.area))
            noc = " | ".join(f"{r.clicks_to[t]:.2f}" for t in TARGETS)
            print(
                f"| {view.data.name} | {method} | {r.objects} | {cells} | {noc} "
                f"| {r.failures[0.85]} | {r.lost:.1%} | {measured.seconds:.2f} |",
                flush=True,
            )
            if method == "app" and ablate:
                some = measured.sessions[:: max(1, len(measured.sessions) // ablate)][:ablate]
                self._ablate(predictor, view, some)

    def _ablate(self, predictor: Predictor, view: Scene, sessions: list[Session]) -> None:
        ways = variants(
            predictor, view.image, view.voxel_size_nm, view.automatic, view.fragments,
            view.data.kind,
        )  # fmt: skip
        for name, answer in ways.items():
            cells = " | ".join(f"{v:.3f}" for v in replay(answer, sessions, view.ids).values())
            self.ablation.append(f"| {view.data.name} | {name} | {len(sessions)} | {cells} |")

    def rest(self) -> str:
        """Variants and healed errors."""
        lines = []
        if self.ablation:
            lines += ["", f"| data | decoding of equal clicks | objects | {IOU_AFTER} |"]
            lines += ["|---" * (len(AFTER) + 3) + "|", *self.ablation]
        if self.healed:
            lines += ["", "| error | body | best automatic instance | app after two clicks |"]
            lines += ["|---|---|---|---|", *self.healed]
        return "\n".join(lines)


def draw(curves: dict[str, dict[str, list[float]]], target: Path) -> None:
    """Mean IoU against clicks, a panel for each data set."""
    _, panels = pyplot.subplots(1, len(curves), figsize=(4.2 * len(curves), 3.4), squeeze=False)
    for panel, (name, methods) in zip(panels[0], curves.items(), strict=True):
        for method, curve in methods.items():
            panel.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, label=method)
        panel.set_title(name)
        panel.set_xlabel("clicks")
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("mean IoU")
    panels[0][0].legend(fontsize=8)
    pyplot.tight_layout()
    pyplot.savefig(target, dpi=80)
    pyplot.close()


if __name__ == "__main__":
    sys.exit(main())
