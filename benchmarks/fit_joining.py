"""Fit the join model of a weights file to contacts whose truth is known, and store it in it.

    python benchmarks/fit_joining.py studies/fib25 studies/vnc [--weights model/neuropil.pt]

Fragments and their graph are made of a box of the training part of every item that has
objects; the model (lib/prediction/joining.py) learns which contacts lie inside one cell. The
offset is then chosen on the same boxes, so that the error of the cells is least on average.
Whoever trains new weights runs it on the data of the training, never on the data that measure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.training_boxes import (  # noqa: E402
    MOST_ITEMS,
    TrainingBox,
    training_boxes,
    training_items,
)
from lib.adaptation.rehearsal import Reservoir, reservoir_path  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.metrics.object_scores import adapted_rand_error, contingency  # noqa: E402
from lib.networks.digests import digest_of  # noqa: E402
from lib.networks.weights import rewrite_weights  # noqa: E402
from lib.prediction.join_fitting import KnownJoins, fit_joining, known_joins  # noqa: E402
from lib.prediction.joining import JoinModel  # noqa: E402
from lib.prediction.objects import Fragments  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402

SIZE = (256, 256, 48)
"""Voxels of a box."""
OFFSETS = (-1.8, -1.5, -1.2, -0.9, -0.6, -0.3, 0.0)
"""Log odds added to every contact: a wrong join costs more than a wrong cut."""

Example = tuple[TrainingBox, Fragments, KnownJoins]


def example(predictor: Predictor, box: TrainingBox) -> Example:
    """A box, its fragments, and what its labels say of their contacts."""
    found = predictor.fragments(box.image, box.voxel_size_nm)
    told = (box.sets & ~predictor.hierarchy.inside_set).astype(np.int32)  # 0: an organelle alone
    known = known_joins(found.graph, found.ids, box.ids, told)
    if box.sectionwise:
        across = found.graph.stats[:, 0, 0] == 0
        together = np.where(across, -1, known.together).astype(np.int8)
        known = KnownJoins(known.graph, together)
    print(
        f"{box.name}: {box.ids.shape} voxels, {found.graph.count} fragments, "
        f"{(known.together >= 0).sum()} of {len(known.together)} contacts known, "
        f"{(known.together == 1).sum()} inside a cell",
        flush=True,
    )
    return box, found, known


def cell_error(predictor: Predictor, box: TrainingBox, found: Fragments, model: JoinModel) -> float:
    """Adapted Rand error on the labelled voxels; section by section where ids hold there only."""
    objects = found.objects(model, predictor.hierarchy, predictor.inference.min_object_voxels)
    ids, cells = objects.ids.astype(np.int64), box.ids
    if not box.sectionwise:
        return adapted_rand_error(contingency(cells, ids))
    errors = [
        adapted_rand_error(contingency(cells[..., z], ids[..., z])) for z in range(cells.shape[2])
    ]
    return float(np.nanmean(errors))


def by_group(names: list[str], errors: list[float]) -> float:
    """The mean over data sets of their boxes' mean: a set of many boxes is one voice."""
    groups: dict[str, list[float]] = {}
    for name, error in zip(names, errors, strict=True):
        groups.setdefault(name, []).append(error)
    return float(np.mean([np.mean(values) for values in groups.values()]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, choose the offset, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--most", type=int, default=MOST_ITEMS, help="items of each data set")
    parser.add_argument("--boxes", type=int, default=12, help="boxes of each item, at most")
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args(arguments)
    predictor = load_predictor(args.weights, load_settings(args.config), "cpu")
    items = training_items(args.studies, predictor, args.most)
    boxes = training_boxes(items, predictor, SIZE, args.boxes)
    examples = [example(predictor, box) for box in boxes]
    groups = [box.group for box, *_ in examples]
    model = fit_joining([known for *_, known in examples], steps=args.steps, groups=groups)
    errors = {}
    for offset in OFFSETS:
        moved = replace(model, offset=offset)
        each = [cell_error(predictor, box, found, moved) for box, found, _ in examples]
        errors[offset] = by_group(groups, each)
        print(f"offset {offset}: " + " ".join(f"{e:.3f}" for e in each), flush=True)
    best = min(errors, key=lambda o: errors[o])
    print(f"offset {best}: mean ARE {errors[best]:.3f}")
    store(args.weights, {"joining": replace(model, offset=best).to_dict()})
    return 0


def store(
    weights: Path, fitted: Mapping[str, Any], parameters: Mapping[str, Tensor] | None = None
) -> None:
    """Put what was fitted into the file; rehearsal rows beside it, of the same backbone, follow.

    Args:
        weights: the file.
        fitted: for its meta data.
        parameters: of heads that were fitted.
    """
    before, rows = digest_of(weights), reservoir_path(weights)
    rewrite_weights(weights, fitted, parameters)
    if rows.exists() and (kept := Reservoir.load(rows)).weights == before:
        replace(kept, weights=digest_of(weights)).save(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
