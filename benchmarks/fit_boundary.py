"""Fit the boundary head of a weights file to training data, and store it in it.

    python benchmarks/fit_boundary.py studies/fib25 studies/vnc [--weights model/neuropil.pt]

A pointwise head on the network's features and filter responses (lib/prediction/filters.py)
learns which voxels lie between two objects, from boxes of the training part of every item that
has objects, as they are and as other microscopes would have shown them. The network does not
change. Whoever trains new weights runs it on the data of the training, never on the data that
measure, and `benchmarks/fit_joining.py` after it, since fragments differ then.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.fit_joining import store  # noqa: E402
from benchmarks.training_boxes import (  # noqa: E402
    MOST_ITEMS,
    TrainingBox,
    training_boxes,
    training_items,
)
from lib.adaptation.boundaries import (  # noqa: E402
    BETWEEN,
    INSIDE,
    boundary_targets,
    fit_boundary,
    goes_on,
)
from lib.configs.load import load_settings  # noqa: E402
from lib.data.appearance import change_appearance  # noqa: E402
from lib.networks.study_heads import to_plain  # noqa: E402
from lib.prediction.boundary import has_thick_sections  # noqa: E402
from lib.prediction.features import FeatureSource  # noqa: E402
from lib.prediction.filters import COUNT  # noqa: E402
from lib.prediction.forward import window_size  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.prediction.window_grid import window_grid  # noqa: E402
from lib.volumes.boxes import Box, box_slices, whole_box  # noqa: E402
from lib.volumes.contrast import intensity_window, normalize  # noqa: E402

SIZE = (192, 192, 40)
"""Voxels of a box."""
ROWS = 5000
"""Of each kind, of one window, at most."""
OF_A_GROUP = 60_000
"""Rows of each kind that a data set has in the end, drawn with repetition where it has fewer."""

Rows = dict[tuple[str, int], list[Tensor]]


def appearances(box: TrainingBox, predictor: Predictor, more: int, seed: int) -> Iterator[Tensor]:
    """(X, Y, Z) normalised network images of a box: as it is, and so many changed ones."""
    view = predictor.frame(box.image.shape, box.voxel_size_nm).view(box.image)
    raw = np.asarray(view[box_slices(whole_box(box.ids.shape))])
    image = normalize(raw, intensity_window(view))
    yield torch.from_numpy(image)
    sections = has_thick_sections(box.network_voxel_size_nm)
    for number in range(more):
        generator = np.random.default_rng([seed, number])
        yield torch.from_numpy(change_appearance(image, sections, generator))


def collect(boxes: Iterator[TrainingBox], predictor: Predictor, more: int) -> Rows:
    """Rows of features and responses, by data set and kind."""
    rows: Rows = {}
    for seed, box in enumerate(boxes):
        started = time.perf_counter()
        targets = targets_of(box, predictor.hierarchy.unknown)
        generator = np.random.default_rng(seed)
        for image in appearances(box, predictor, more, seed):
            for values, part in windows_of(predictor, image, targets, box.network_voxel_size_nm):
                for kind in (INSIDE, BETWEEN):
                    at = generator.permutation(np.flatnonzero(part.ravel() == kind))[:ROWS]
                    found = values.flatten(1)[:, torch.from_numpy(at)].T.float()
                    rows.setdefault((box.group, kind), []).append(found.clone())
        share = float((targets == BETWEEN).sum() / max((targets >= 0).sum(), 1))
        seconds = time.perf_counter() - started
        print(f"{box.name}: {box.ids.shape}, {share:.2f} between, {seconds:.0f} s", flush=True)
    return rows


def targets_of(box: TrainingBox, unknown: int) -> NDArray[np.int8]:
    """What labels say of boundaries; section by section where ids hold there only."""
    if not box.sectionwise or not goes_on(box.ids):
        return boundary_targets(box.ids, box.sets == unknown, box.network_voxel_size_nm)
    return np.concatenate(
        [
            boundary_targets(
                box.ids[..., z : z + 1], box.sets[..., z : z + 1] == unknown,
                box.network_voxel_size_nm,
            )
            for z in range(box.ids.shape[2])
        ],
        2,
    )  # fmt: skip


def windows_of(
    predictor: Predictor,
    image: Tensor,
    targets: NDArray[np.int8],
    voxel_size_nm: tuple[float, float, float],
) -> Iterator[tuple[Tensor, NDArray[np.int8]]]:
    """(F + COUNT, x, y, z) and targets of the core of each window."""
    net, inference = predictor.net, predictor.inference
    grid = window_grid(image.shape, window_size(net, inference), inference.overlap)
    source = FeatureSource(net, image.numpy(), inference.precision, contrast=(0.0, 1.0))
    for window, core in grid.cores():
        with torch.inference_mode():
            own = source([window])[0].movedim(0, -1).float()
            beside = source.responses([window], voxel_size_nm)[0].float()
        values = torch.cat((own, beside), -1).movedim(-1, 0)
        yield values[(slice(None), *_within(core, window))], targets[box_slices(core)]


def _within(core: Box, window: Box) -> tuple[slice, ...]:
    return tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(core, window, strict=True))


def balanced(rows: Rows) -> tuple[Tensor, Tensor]:
    """As many rows of every data set and kind: (N, F), (N,) between."""
    generator = torch.Generator().manual_seed(0)
    features, between = [], []
    for (_, kind), parts in sorted(rows.items()):
        found = torch.cat(parts)
        if not len(found):
            continue
        features.append(found[torch.randint(len(found), (OF_A_GROUP,), generator=generator)])
        between.append(torch.full((OF_A_GROUP,), kind == BETWEEN))
    return torch.cat(features), torch.cat(between)


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect rows, fit, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--most", type=int, default=MOST_ITEMS, help="items of each data set")
    parser.add_argument("--boxes", type=int, default=4, help="boxes of each item, at most")
    parser.add_argument("--changed", type=int, default=2, help="changed images of each box")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=48, help="of the hidden layer")
    args = parser.parse_args(arguments)
    predictor = load_predictor(args.weights, load_settings(args.config), "cpu")
    items = training_items(args.studies, predictor, args.most)
    boxes = training_boxes(items, predictor, SIZE, args.boxes)
    features, between = balanced(collect(boxes, predictor, args.changed))
    everything = torch.ones(len(features), dtype=torch.bool)
    (head,) = fit_boundary(features, between, [everything], args.steps, args.width, beside=COUNT)
    with torch.inference_mode():
        logits = head.change(features[:, :-COUNT], features[:, -COUNT:])[:, 0]
    right = float(((logits > 0) == between).float().mean())
    print(f"{len(features)} rows, {right:.3f} of them on the right side", flush=True)
    store(args.weights, {"boundary": to_plain(head)})
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
