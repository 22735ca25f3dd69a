"""Dense prediction against one pass of the network over the same voxels.

    python benchmarks/predict.py [--repeat 3]

On a block of FIB-25 (synthetic neuropil where the shared data are missing): what the windows cost
beyond a single pass over the whole block with all heads, what the grouping costs, what a second
task on the same image costs, whether the grouping is linear in the volume, and how far the answer
of the windows is from that of the single pass. Prints a Markdown table; busy seconds of all
threads count, so other work on the machine shows little.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.import_shared_data import data_folder  # noqa: E402
from benchmarks.instances import BLOCKS, Block  # noqa: E402
from benchmarks.measure import Cost, machine, timed  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.metrics.object_scores import adapted_rand_error, contingency  # noqa: E402
from lib.prediction.evidence import collect_evidence  # noqa: E402
from lib.prediction.feature_cache import FeatureCache  # noqa: E402
from lib.prediction.features import Shelf, use_bfloat16  # noqa: E402
from lib.prediction.grouping import group_volume  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.prediction.scratch import Scratch  # noqa: E402
from lib.volumes.contrast import intensity_window, normalize  # noqa: E402


@dataclass(frozen=True)
class Line:
    """One row: what was done, and what it took."""

    name: str
    cost: Cost


def single_pass(predictor: Predictor, block: Block) -> Callable[[], dict[str, torch.Tensor]]:
    """All heads on the whole block at once."""
    image = normalize(block.image, intensity_window(block.image))
    tensor = torch.from_numpy(image)[None, None].contiguous(memory_format=torch.channels_last_3d)
    half = use_bfloat16(predictor.inference.precision, torch.device("cpu"))

    def run() -> dict[str, torch.Tensor]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return predictor.net.heads(predictor.net.features(tensor))

    return run


def best(work: Callable[[], object], repeat: int) -> Cost:
    """The cheapest of some runs."""
    runs = [timed(work, torch.device("cpu")) for _ in range(repeat)]
    return min(runs, key=lambda cost: cost.busy)


def lines(predictor: Predictor, block: Block, repeat: int) -> Iterator[Line]:
    """All rows, the single pass first."""
    image, size = block.image, block.voxel_size_nm
    yield Line("one pass, all heads", best(single_pass(predictor, block), repeat))
    yield Line("`segmentation`", best(lambda: predictor.classes(image, size), repeat))
    yield Line("`instances`", best(lambda: predictor.objects(image, size), repeat))
    shelf = Shelf(FeatureCache(2**32), "weights", "image")
    predictor.classes(image, size, shelf=shelf)
    again = best(lambda: predictor.classes(image, size, "coarse", shelf=shelf), repeat)
    yield Line("`segmentation` by groups after it", again)
    after = best(lambda: predictor.objects(image, size, shelf=shelf), repeat)
    yield Line("`instances` after it", after)
    for share, name in ((2, "grouping alone, half of the block"), (1, "grouping alone")):
        part = image[: image.shape[0] // share]
        with Scratch(2**32) as scratch:
            evidence = collect_evidence(
                predictor.net, part, size, predictor.inference, predictor.hierarchy, scratch
            )
            yield Line(
                name, best(lambda e=evidence: group_volume(e, size, predictor.inference), repeat)
            )


def agreement(predictor: Predictor, block: Block) -> str:
    """How the answer of the windows differs from that of one window."""
    shape = block.image.shape
    alone = predictor.inference.model_copy(update={"window": shape})
    whole = Predictor(
        predictor.net, predictor.hierarchy, alone, predictor.finest_nm, predictor.most_split,
        joining=predictor.joining,
    )  # fmt: skip
    size = block.voxel_size_nm
    classes = [p.classes(block.image, size) for p in (predictor, whole)]
    objects = [p.objects(block.image, size).ids.astype(np.int64) for p in (predictor, whole)]
    same = float((classes[0] == classes[1]).mean())
    between = adapted_rand_error(contingency(objects[1], objects[0]))
    truth = [adapted_rand_error(contingency(block.truth, ids)) for ids in objects]
    return (
        f"Windows against one window: {100 * same:.1f} % of the classes alike, ARE between the "
        f"objects {between:.3f}, ARE against truth {truth[0]:.3f} and {truth[1]:.3f}."
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    args = parser.parse_args()
    name = "fib25" if data_folder().is_dir() else "synthetic"
    block = BLOCKS[name]()
    predictor = load_predictor(args.weights, load_settings(None), "cpu")
    shape = " x ".join(map(str, block.image.shape))
    print(f"{name}, {shape} voxels; {machine(torch.device('cpu'))}\n")
    print("| what | times one pass | busy s | s |\n|---|--:|--:|--:|")
    one = 0.0
    for line in lines(predictor, block, args.repeat):
        one = one or line.cost.busy
        print(
            f"| {line.name} | {line.cost.busy / one:.2f} | {line.cost.busy:.1f} | "
            f"{line.cost.wall:.1f} |",
            flush=True,
        )
    print(f"\n{agreement(predictor, block)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
