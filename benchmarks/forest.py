"""Nothing deep: boosted trees on filter responses, watershed, mean-boundary agglomeration.

    python benchmarks/forest.py STUDIES_DIR [--only fib25 vnc ...] [--json forest.json]

What minutes of fitting with common packages give on the same splits: the line that the network
has to leave behind. The trees learn the boundary of a data set's training items; fragments and
their joining threshold are chosen on a held-back part of them; figures are of the dev items.
The studies come from benchmarks/import_shared_data.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bioimage_cpp
import cc3d
import edt
import numpy as np
import waterz
from bioimage_cpp import filters
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.configs.settings import ModelSettings  # noqa: E402
from lib.data.items import DataItem, labelled_items  # noqa: E402
from lib.labels.hierarchy import load_hierarchy  # noqa: E402
from lib.metrics.object_scores import (  # noqa: E402
    adapted_rand_error,
    contingency,
    variation_of_information,
)
from lib.volumes.boxes import Box  # noqa: E402
from lib.volumes.study import Study  # noqa: E402

Array = NDArray[np.float32]
Ids = NDArray[np.int64]

DATA = ("fib25", "fib25block", "gala", "vnc")
SCALES = (1.0, 2.0, 4.0)
"""Standard deviations of the filters in voxels of the finest axis."""

FITTED_VOXELS = 300_000
ROUNDS = 150
LARGEST = (256, 256, 48)
"""Voxels of the middle of an item that is used, fitted or measured, at most."""

THICK = 2.5
"""Sections so many times as thick as a pixel are filtered and grouped one by one."""

JOINING = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
INSIDE = (40.0, 60.0, 75.0)
"""Percentiles of the boundary map below which seeds may lie."""

MEAN_BOUNDARY = "MeanAffinity<RegionGraphType, ScoreValue>"


@dataclass(frozen=True)
class Sample:
    """A part of an item: (X, Y, Z) image in [0, 1], ids, whether sections are thick."""

    image: Array
    ids: Ids
    thick: bool


@dataclass(frozen=True)
class Figures:
    """Of one data set's dev items: areas and errors, and what was chosen on the training."""

    boundary_auc: float
    are: float
    voi: float
    section_are: float
    inside: float
    joining: float
    fit_seconds: float
    predict_seconds: float


def features_of(sample: Sample) -> Array:
    """(X, Y, Z, F) filter responses, in three dimensions or section by section."""
    if not sample.thick:
        return responses(sample.image)
    depth = sample.image.shape[2]
    return np.stack([responses(sample.image[..., z]) for z in range(depth)], 2)


def responses(image: Array) -> Array:
    """(*S, F): image, Gaussian, gradient, eigenvalues of Hessian and structure tensor."""
    image = np.ascontiguousarray(image, np.float32)
    found = [image[..., None]]
    for sigma in SCALES:
        found += [
            np.asarray(filters.gaussian_smoothing(image, sigma))[..., None],
            np.asarray(filters.gaussian_gradient_magnitude(image, sigma))[..., None],
            np.asarray(filters.hessian_of_gaussian_eigenvalues(image, sigma)),
            np.asarray(filters.structure_tensor_eigenvalues(image, sigma, 2 * sigma)),
        ]
    return np.concatenate(found, -1).astype(np.float32)


def boundary_of(sample: Sample) -> NDArray[np.bool_]:
    """Voxels beside another object, and those of none, where objects are known."""
    ids = sample.ids
    edge = ids == 0
    for axis in range(2 if sample.thick else 3):
        differs = np.diff(ids, axis=axis) != 0
        one, other = [slice(None)] * 3, [slice(None)] * 3
        one[axis], other[axis] = slice(0, -1), slice(1, None)
        edge[tuple(one)] |= differs
        edge[tuple(other)] |= differs
    return edge


def fit(samples: Sequence[Sample], seed: int = 0) -> HistGradientBoostingClassifier:
    """Boosted trees on voxels of all samples."""
    rng = np.random.default_rng(seed)
    rows, answers = [], []
    for sample in samples:
        known = np.flatnonzero(sample.ids.ravel() >= 0)
        chosen = rng.choice(known, min(len(known), FITTED_VOXELS // len(samples)), replace=False)
        values = features_of(sample)
        rows.append(values.reshape(-1, values.shape[-1])[chosen])
        answers.append(boundary_of(sample).ravel()[chosen])
    trees = HistGradientBoostingClassifier(
        max_iter=ROUNDS, learning_rate=0.15, class_weight="balanced", random_state=seed
    )
    return trees.fit(np.concatenate(rows), np.concatenate(answers))


def predict(trees: HistGradientBoostingClassifier, sample: Sample) -> Array:
    """(X, Y, Z) probability of a boundary."""
    values = features_of(sample)
    found = trees.predict_proba(values.reshape(-1, values.shape[-1]))[:, 1]
    out: Array = found.reshape(sample.image.shape).astype(np.float32)
    return out


def group(boundary: Array, thick: bool, inside: float) -> dict[float, Ids]:
    """Objects by joining threshold: watershed fragments joined by their mean boundary."""
    if thick:
        parts = [_group(boundary[..., z : z + 1], inside) for z in range(boundary.shape[2])]
        return {t: np.concatenate([p[t] for p in parts], 2) for t in JOINING}
    return _group(boundary, inside)


def _group(boundary: Array, inside: float) -> dict[float, Ids]:
    flat = boundary.shape[2] == 1
    height = ndimage.gaussian_filter(boundary, (0.7, 0.7, 0.0 if flat else 0.7))
    depth = edt.edt(np.ascontiguousarray(height < np.percentile(height, inside)))
    depth = ndimage.gaussian_filter(depth, (1.0, 1.0, 0.0 if flat else 1.0))
    peaks = (ndimage.maximum_filter(depth, 3) == depth) & (depth > 0.5)
    seeds = cc3d.connected_components(peaks, connectivity=26).astype(np.uint32)
    fragments = np.asarray(bioimage_cpp.segmentation.watershed(height, seeds)).astype(np.uint64)
    affinity = np.zeros((3, *boundary.shape), np.float32)
    for axis in range(3):
        one, other = [slice(None)] * 3, [slice(None)] * 3
        one[axis], other[axis] = slice(0, -1), slice(1, None)
        strongest = np.maximum(boundary[tuple(one)], boundary[tuple(other)])
        affinity[(axis, *other)] = 1.0 - strongest
    with quiet():
        found = waterz.agglomerate(
            affinity, list(JOINING), fragments=np.ascontiguousarray(fragments),
            scoring_function=f"OneMinus<{MEAN_BOUNDARY}>",
        )  # fmt: skip
        return {t: ids.astype(np.int64) for t, ids in zip(JOINING, found, strict=True)}


@contextmanager
def quiet() -> Iterator[None]:
    """Without what waterz writes to the process's own output."""
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def errors(ids: Ids, sample: Sample) -> tuple[float, float, float]:
    """ARE and VOI in three dimensions (0 and 0 where sections are thick), mean ARE of sections."""
    sections = [
        adapted_rand_error(contingency(sample.ids[..., z], ids[..., z]))
        for z in range(ids.shape[2])
    ]
    flat = float(np.nanmean(sections))
    if sample.thick:
        return float("nan"), float("nan"), flat
    table = contingency(sample.ids, ids)
    return adapted_rand_error(table), sum(variation_of_information(table)), flat


def measure(train: Sequence[Sample], dev: Sequence[Sample]) -> Figures:
    """Fit on the first three quarters of each training sample, choose on the rest, measure."""
    started = time.perf_counter()
    trees = fit([_part(s, 0.0, 0.75) for s in train])
    fitted = time.perf_counter() - started
    tuning = [_part(s, 0.75, 1.0) for s in train]
    scores: dict[tuple[float, float], list[float]] = {}
    for sample in tuning:
        boundary = predict(trees, sample)
        for inside in INSIDE:
            for joining, ids in group(boundary, sample.thick, inside).items():
                are, _, flat = errors(ids, sample)
                scores.setdefault((inside, joining), []).append(flat if sample.thick else are)
    inside, joining = min(scores, key=lambda key: float(np.mean(scores[key])))
    started = time.perf_counter()
    areas, found = [], []
    for sample in dev:
        boundary = predict(trees, sample)
        known = sample.ids.ravel() >= 0
        areas.append(roc_auc_score(boundary_of(sample).ravel()[known], boundary.ravel()[known]))
        found.append(errors(group(boundary, sample.thick, inside)[joining], sample))
    seconds = time.perf_counter() - started
    are, voi, flat = (float(np.mean(values)) for values in zip(*found, strict=True))
    return Figures(float(np.mean(areas)), are, voi, flat, inside, joining, fitted, seconds)


def _part(sample: Sample, low: float, high: float) -> Sample:
    """A part along x, which every sample has enough of."""
    n = sample.ids.shape[0]
    where = slice(round(low * n), round(high * n))
    return Sample(sample.image[where], sample.ids[where], sample.thick)


def sample_of(item: DataItem) -> Sample:
    """The middle of an item in the network's frame."""
    box: list[tuple[int, int]] = []
    for n, most in zip(item.shape, LARGEST, strict=True):
        low = max(0, (n - most) // 2)
        box.append((low, min(n, low + most)))
    where: Box = (box[0], box[1], box[2])
    patch = item.read(where)
    x, _, z = item.voxel_size_nm
    return Sample(patch.image, patch.instance, z >= THICK * x)


def main() -> int:
    """Measure the data sets, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", type=Path)
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    hierarchy, model = load_hierarchy(), ModelSettings()
    sources = Study(args.studies, hierarchy).items()
    items = labelled_items(sources, hierarchy, 0.2, 2**30, model.finest_nm, model.most_split)
    found: dict[str, Any] = {}
    print("| data | boundary AUC | ARE | VOI | 2D ARE | joined at | fit, s | dev, s |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in args.only:
        mine = [item for item in items if item.group == name]
        parts = {role: [i for i in mine if i.split.whole == role] for role in ("train", "val")}
        if not parts["train"] or not parts["val"]:
            print(f"error: {name}: no training or no dev item in {args.studies}", file=sys.stderr)
            return 1
        f = measure(*([sample_of(i) for i in parts[role]] for role in ("train", "val")))
        found[name] = asdict(f)
        print(
            f"| {name} | {f.boundary_auc:.3f} | {f.are:.3f} | {f.voi:.2f} | {f.section_are:.3f} | "
            f"{f.joining} | {f.fit_seconds:.0f} | {f.predict_seconds:.0f} |",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
