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
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.adaptation.rehearsal import Reservoir, reservoir_path  # noqa: E402
from lib.configs.load import load_settings  # noqa: E402
from lib.labels.class_sets import cells_only  # noqa: E402
from lib.metrics.object_scores import adapted_rand_error, contingency  # noqa: E402
from lib.networks.digests import digest_of  # noqa: E402
from lib.networks.weights import rewrite_meta  # noqa: E402
from lib.prediction.joining import JoinModel, KnownJoins, fit_joining, known_joins  # noqa: E402
from lib.prediction.objects import Fragments  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.volumes.boxes import Box, box_shape, box_slices, whole_box  # noqa: E402
from lib.volumes.study import Study, StudyItem  # noqa: E402

MOST = (320, 320, 64)
"""Voxels of the box of an item, from the middle of its training part."""
OFFSETS = (-1.2, -0.9, -0.6, -0.3, 0.0)
"""Log odds added to every contact: a wrong join costs more than a wrong cut."""


def training_box(item: StudyItem, shape: tuple[int, int, int]) -> Box:
    """A box of at most MOST voxels from the middle of an item, network voxels."""
    spans = []
    for n, most in zip(shape, MOST, strict=True):
        low = max((n - most) // 2, 0)
        spans.append((low, min(low + most, n)))
    return spans[0], spans[1], spans[2]


def example(
    predictor: Predictor, item: StudyItem
) -> tuple[Fragments, KnownJoins, NDArray[np.int64]]:
    """Fragments of a box, what its labels say of their contacts, and the labels."""
    frame = predictor.frame(item.shape, item.voxel_size_nm)
    box = training_box(item, frame.network_shape)
    part = frame.viewer_box(box)
    image = np.asarray(item.open_image()[box_slices(part)])
    found = predictor.fragments(image, item.voxel_size_nm)
    inner = predictor.frame(image.shape, item.voxel_size_nm)
    everything = whole_box(inner.network_shape)
    ids = inner.labels_to_network(item.read_instances(part), everything)
    sets = inner.labels_to_network(item.read_class_sets(part), everything)
    cells = cells_only(ids.astype(np.int64), sets, predictor.hierarchy)
    told = (sets & ~predictor.hierarchy.inside_set).astype(np.int32)  # 0: an organelle alone
    known = known_joins(found.graph, found.ids, cells, told)
    if not item.record.true_instances:  # ids hold within sections only
        across = found.graph.stats[:, 0, 0] == 0
        together = np.where(across, -1, known.together).astype(np.int8)
        known = KnownJoins(known.graph, together)
    print(
        f"{item.id}: {box_shape(everything)} voxels, {found.graph.count} fragments, "
        f"{(known.together >= 0).sum()} of {len(known.together)} contacts known, "
        f"{(known.together == 1).sum()} inside a cell",
        flush=True,
    )
    return found, known, cells


def cell_error(
    predictor: Predictor, found: Fragments, cells: NDArray[np.int64], model: JoinModel, flat: bool
) -> float:
    """Adapted Rand error on the labelled voxels; section by section where ids hold there only."""
    objects = found.objects(model, predictor.hierarchy, predictor.inference.min_object_voxels)
    ids = objects.ids.astype(np.int64)
    if not flat:
        return adapted_rand_error(contingency(cells, ids))
    errors = [
        adapted_rand_error(contingency(cells[..., z], ids[..., z])) for z in range(cells.shape[2])
    ]
    return float(np.nanmean(errors))


def by_group(names: list[str], errors: list[float]) -> float:
    """The mean over data sets of their items' mean: a set of many items is one voice."""
    groups: dict[str, list[float]] = {}
    for name, error in zip(names, errors, strict=True):
        groups.setdefault(name.partition("-")[0], []).append(error)
    return float(np.mean([np.mean(values) for values in groups.values()]))


def main() -> int:
    """Fit, choose the offset, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--most", type=int, default=4, help="items of each study")
    parser.add_argument("--items", nargs="+", default=[], help="only items with these beginnings")
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()
    predictor = load_predictor(args.weights, load_settings(args.config), "cpu")
    examples = []
    for root in args.studies:
        study = Study(root, predictor.hierarchy)
        items = [i for i in study.items() if i.has_label("instance") and i.record.split != "val"]
        if args.items:
            items = [i for i in items if i.id.startswith(tuple(args.items))]
        examples += [(i, *example(predictor, i)) for i in items[: args.most]]
    model = fit_joining([known for _, _, known, _ in examples], steps=args.steps)
    errors = {}
    for offset in OFFSETS:
        moved = replace(model, offset=offset)
        each = [
            cell_error(predictor, found, cells, moved, not item.record.true_instances)
            for item, found, _, cells in examples
        ]
        errors[offset] = by_group([item.id for item, *_ in examples], each)
        print(f"offset {offset}: " + " ".join(f"{e:.3f}" for e in each), flush=True)
    best = min(errors, key=lambda o: errors[o])
    print(f"offset {best}: mean ARE {errors[best]:.3f}")
    store(args.weights, replace(model, offset=best))
    return 0


def store(weights: Path, model: JoinModel) -> None:
    """Put the model into the file; rehearsal rows beside it, of the same parameters, follow."""
    before, rows = digest_of(weights), reservoir_path(weights)
    rewrite_meta(weights, {"joining": model.to_dict()})
    if rows.exists() and (kept := Reservoir.load(rows)).weights == before:
        replace(kept, weights=digest_of(weights)).save(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
