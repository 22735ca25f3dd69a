"""The slider, the cut into blocks and the join model, on blocks that no training saw.

    python benchmarks/instances.py [--weights model/neuropil.pt] [--data fib25 gala synthetic]

The network runs once a block. Prints a Markdown table a block (ARE, VOI, AP against its
labels; "best joining" gives each fragment to the true object that most of it lies in) and
writes a picture of a section of the first.
The data are looked for in $NEUROPIL_DATA, else in ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
matplotlib.use("Agg")

import torch  # noqa: E402
from matplotlib import pyplot  # noqa: E402

from lib.configs.load import load_settings  # noqa: E402
from lib.metrics.object_scores import contingency, object_report  # noqa: E402
from lib.prediction.evidence import Evidence, collect_evidence  # noqa: E402
from lib.prediction.grouping import group_volume  # noqa: E402
from lib.prediction.join_fitting import owners  # noqa: E402
from lib.prediction.joining import PLAIN  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.prediction.scratch import Scratch  # noqa: E402
from lib.synthetic.generate import generate  # noqa: E402
from lib.volumes.contrast import intensity_window, normalize  # noqa: E402
from lib.volumes.readers.opening import open_source  # noqa: E402

DEV = slice(210, 250)
CUTS = ((192, 192, 96), (170, 170, 80), (250, 130, 64))
SLIDER = (-0.5, -0.25, 0.25, 0.5)
UNSEEN_SEED = 987_001
MIN_VOXELS = 1000
"""Smallest body that AP looks at; ARE and VOI look at every voxel."""


@dataclass(frozen=True)
class Block:
    """Image, true ids (-1 unknown) and voxel size."""

    image: NDArray[np.uint8]
    truth: NDArray[np.int64]
    voxel_size_nm: tuple[float, float, float]


def stored_block(name: str, sections: slice) -> Block:
    """Some sections of a file of the shared data, (x, y, z)."""
    data = Path(os.environ.get("NEUROPIL_DATA", ROOT.parent / "shared" / "data"))
    file = data / name
    if not file.exists():
        raise SystemExit(f"no data at {file}: set NEUROPIL_DATA")
    raw, ids = (
        np.asarray(open_source(f"{file}:volumes/{dataset}", role)[:, :, sections])
        for dataset, role in (("raw", "image"), ("labels/neuron_ids", "instance"))
    )
    truth = ids.astype(np.int64)
    truth[truth == 0] = -1
    return Block(raw, truth, (10.0, 10.0, 10.0))


def synthetic_block() -> Block:
    """Synthetic neuropil of an unseen seed."""
    made = generate((160, 160, 32), (8.0, 8.0, 40.0), UNSEEN_SEED)
    return Block(made.image, made.instance, made.voxel_size_nm)


BLOCKS: dict[str, Callable[[], Block]] = {
    "fib25": lambda: stored_block("fib25_sample2.h5", DEV),
    "gala": lambda: stored_block("gala_test.h5", slice(None)),
    "synthetic": synthetic_block,
}


def alternatives(
    predictor: Predictor, evidence: Evidence, block: Block
) -> Iterator[tuple[str, NDArray[np.integer[Any]], float]]:
    """What to compare, the shipped way first: name, ids, seconds of grouping."""
    inference, hierarchy, voxel = predictor.inference, predictor.hierarchy, block.voxel_size_nm
    least = inference.min_object_voxels
    start = time.perf_counter()
    whole = group_volume(evidence, voxel, inference)
    shipped = whole.objects(predictor.joining, hierarchy, least)
    yield "shipped", shipped.ids, time.perf_counter() - start
    for value in SLIDER:
        start = time.perf_counter()
        moved = whole.objects(predictor.joining, hierarchy, least, value)
        yield f"split_merge {value}", moved.ids, time.perf_counter() - start
    yield "mean affinity alone", whole.objects(PLAIN, hierarchy, least).ids, 0.0
    owner = owners(whole.graph.count, whole.ids, block.truth)
    yield f"best joining of {whole.graph.count} fragments", owner[whole.ids], 0.0
    for cut in CUTS:
        start = time.perf_counter()
        changed = inference.model_copy(update={"instance_block": cut, "instance_overlap": 64})
        found = group_volume(evidence, voxel, changed).objects(predictor.joining, hierarchy, least)
        between = object_report(contingency(shipped.ids.astype(np.int64), found.ids)).are
        name = f"blocks of {' x '.join(map(str, cut))} (ARE {between:.3f} to shipped)"
        yield name, found.ids, time.perf_counter() - start


def picture(block: Block, ids: NDArray[np.integer[Any]], target: Path) -> None:
    """Image, true and predicted objects of the middle section, one colour an object."""
    z = block.image.shape[2] // 2
    image = normalize(block.image[:, :, z], intensity_window(block.image))
    _, panels = pyplot.subplots(1, 3, figsize=(12, 4.2))
    named = (("image", None), ("truth", block.truth), ("instances", ids.astype(np.int64)))
    for panel, (title, labels) in zip(panels, named, strict=True):
        panel.imshow(image.T, cmap="gray", interpolation="nearest")
        if labels is not None:
            panel.imshow(coloured(labels[:, :, z].T), interpolation="nearest")
        panel.set_title(title)
        panel.axis("off")
    pyplot.tight_layout()
    pyplot.savefig(target, dpi=80)
    pyplot.close()


def coloured(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """(Y, X, 4) half-transparent colours, the same for one id always; clear where there is none."""
    hue = (np.maximum(labels, 0) * 0.618034) % 1.0
    colour = pyplot.get_cmap("hsv")(hue).astype(np.float32)
    colour[..., 3] = np.where(labels > 0, 0.45, 0.0)
    return colour


def main() -> int:
    """Run all alternatives and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--picture", type=Path, default=ROOT / "benchmarks" / "instances.png")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", nargs="+", choices=tuple(BLOCKS), default=["fib25"])
    args = parser.parse_args()
    predictor = load_predictor(args.weights, load_settings(args.config), torch.device(args.device))
    for name in args.data:
        target = args.picture if name == args.data[0] else None
        compare(predictor, name, BLOCKS[name](), target)
    return 0


def compare(predictor: Predictor, data: str, block: Block, target: Path | None) -> None:
    """The table of a block, and its picture where one is wanted."""
    print(f"\n{data}\n")
    print("| alternative | ARE | VOI split | VOI merge | VOI | AP-50 | AP-75 | largest | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with Scratch(predictor.inference.tile_bytes) as scratch:
        evidence = collect_evidence(
            predictor.net,
            block.image,
            block.voxel_size_nm,
            predictor.inference,
            predictor.hierarchy,
            scratch,
        )
        for name, ids, seconds in alternatives(predictor, evidence, block):
            report = object_report(contingency(block.truth, ids), min_voxels=MIN_VOXELS)
            figures = report.to_dict()
            keys = ("are", "voi_split", "voi_merge", "voi", "ap_50", "ap_75", "largest_share")
            cells = " | ".join(f"{figures[k]:.3f}" for k in keys)
            print(f"| {name} | {cells} | {seconds:.1f} |", flush=True)
            if name == "shipped" and target is not None:
                picture(block, ids, target)


if __name__ == "__main__":
    sys.exit(main())
