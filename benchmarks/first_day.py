"""A lab's first day, acted out: what the app learns from the first annotations of unseen tissue.

    python benchmarks/first_day.py [--data rat-inverted ...] [--weights FILE] [--seeds 0 1 2]
                                   [--picture docs/images/first-day.png]

An annotator paints boxes or sections at random places, one to ten of them. After 1, 3, 5 and 10
submissions the classes are measured on everything that was not annotated: by the weights as they
are, with the study's heads as the server would use them (refitted, judged, perhaps refused), with
the heads used whatever the gate says, and by a random forest on image filters (the ilastik way);
objects, where they are known, by the adapted Rand error within sections before and after.
Runs that are in the results file are skipped, so that a killed benchmark goes on where it was.

The shipped weights know every data set here, so what is unseen is made: inverted contrast, which
they cannot read at all, blur, or weights of a run without the data set (`--weights`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scipy import ndimage  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402

from benchmarks.active_learners import filtered  # noqa: E402
from benchmarks.first_day_report import ROUNDS, draw, mean_iou, summary  # noqa: E402
from benchmarks.import_shared_data import import_missing  # noqa: E402
from lib.adaptation import learner  # noqa: E402
from lib.adaptation.learner import StudyLearner  # noqa: E402
from lib.adaptation.network import Network  # noqa: E402
from lib.adaptation.rehearsal import reservoir_for  # noqa: E402
from lib.configs.settings import AdaptationSettings  # noqa: E402
from lib.data.items import DataItem, LabelCache  # noqa: E402
from lib.labels.hierarchy import load_hierarchy  # noqa: E402
from lib.metrics.class_scores import ClassScores  # noqa: E402
from lib.metrics.object_scores import adapted_rand_error, contingency  # noqa: E402
from lib.networks.digests import digest_of  # noqa: E402
from lib.networks.study_heads import StudyHeads, with_study_heads  # noqa: E402
from lib.networks.weights import load_network  # noqa: E402
from lib.prediction.classes import predict_classes  # noqa: E402
from lib.prediction.feature_cache import FeatureCache  # noqa: E402
from lib.prediction.features import Shelf  # noqa: E402
from lib.prediction.instances import predict_fragments  # noqa: E402
from lib.prediction.joining import joining_of  # noqa: E402
from lib.prediction.learned import Stored  # noqa: E402
from lib.volumes.boxes import Box, box_slices  # noqa: E402
from lib.volumes.contrast import intensity_window, normalize  # noqa: E402
from lib.volumes.study import Study  # noqa: E402

HIERARCHY = load_hierarchy()
SHIPPED = ROOT / "model" / "neuropil.pt"
LEAST_VOXELS = 300
FOREST_ROWS = 20_000


@dataclass(frozen=True)
class Tissue:
    """A data set as an annotator meets it.

    Args:
        item: of the shared data, imported.
        crop: of it, network voxels.
        box: what the annotator paints at once, network voxels.
        change: of the image.
    """

    item: str
    crop: Box
    box: tuple[int, int, int]
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda image: image


def inverted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """White on black."""
    return (255 - image).astype(np.uint8)


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As by a wider beam."""
    return np.asarray(ndimage.gaussian_filter(image, (1.5, 1.5, 0)))


RAT = ((60, 572), (60, 572), (0, 1))
SECTIONS = ((100, 420), (100, 420), (0, 4))
DATA = {
    "rat": Tissue("axondeepseg-rat6-data15", RAT, (96, 96, 1)),
    "rat-inverted": Tissue("axondeepseg-rat6-data15", RAT, (96, 96, 1), inverted),
    "rat-blurred": Tissue("axondeepseg-rat6-data15", RAT, (96, 96, 1), blurred),
    "sbem": Tissue("sbem-val", ((300, 620), (300, 620), (0, 4)), (128, 128, 1)),
    "sbem-inverted": Tissue("sbem-val", ((300, 620), (300, 620), (0, 4)), (128, 128, 1), inverted),
    "sbem-blurred": Tissue("sbem-val", ((300, 620), (300, 620), (0, 4)), (128, 128, 1), blurred),
    "vnc": Tissue("vnc-val", SECTIONS, (128, 128, 1)),
    "vnc-inverted": Tissue("vnc-val", SECTIONS, (128, 128, 1), inverted),
    "vnc-blurred": Tissue("vnc-val", SECTIONS, (128, 128, 1), blurred),
}


@dataclass(frozen=True)
class Volume:
    """What is annotated and measured.

    Args:
        image: (X, Y, Z) uint8.
        truth: (X, Y, Z) int32 class sets.
        ids: (X, Y, Z) objects within a section, 0 none, -1 unknown.
        voxel_nm: (x, y, z).
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.int32]
    ids: NDArray[np.int64]
    voxel_nm: tuple[float, float, float]


def volume_of(tissue: Tissue, folder: Path, network: Network) -> Volume:
    """The crop in the network's frame."""
    study = Study(folder, network.hierarchy)
    if not study.has_item(tissue.item):
        import_missing(folder, [tissue.item.partition("-")[0]])
    item = DataItem(
        study.item(tissue.item), network.hierarchy, 0.2, LabelCache(2**28), network.finest_nm,
        network.most_split,
    )  # fmt: skip
    image = np.asarray(item._image[box_slices(tissue.crop)])
    sets, ids = item.read_labels(tissue.crop)
    x, y, z = item.voxel_size_nm
    return Volume(tissue.change(np.rint(image).astype(np.uint8)), sets, ids, (x, y, z))


def places(volume: Volume, size: tuple[int, int, int], seed: int) -> Iterator[Box]:
    """Boxes of an annotator who paints anywhere, apart from each other where that is possible."""
    rng = np.random.default_rng(seed)
    taken = np.zeros(volume.truth.shape, bool)
    while True:
        for _ in range(50):
            low = [int(rng.integers(n - s + 1)) for n, s in zip(taken.shape, size, strict=True)]
            spans = [(a, a + s) for a, s in zip(low, size, strict=True)]
            box: Box = (spans[0], spans[1], spans[2])
            if not taken[box_slices(box)].any():
                break
        taken[box_slices(box)] = True
        yield box


def class_figures(
    truth: NDArray[np.int32], found: NDArray[np.int64], measured: NDArray[np.bool_]
) -> dict[str, float]:
    """IoU of each class or small set of classes that was annotated as such."""
    scores = ClassScores(HIERARCHY)
    scores.update(np.where(measured, truth, HIERARCHY.unknown), found)
    kinds, counts = np.unique(truth[measured], return_counts=True)
    return {
        HIERARCHY.describe(int(k)): scores.score(int(k)).iou
        for k, count in zip(kinds, counts, strict=True)
        if count >= LEAST_VOXELS and int(k).bit_count() <= HIERARCHY.num_classes // 2
    }


def rand_error(ids: NDArray[np.int64], found: NDArray[np.uint32]) -> float | None:
    """Adapted Rand error within sections, their mean; None where no objects are known."""
    errors = [
        adapted_rand_error(contingency(ids[..., z], found[..., z]))
        for z in range(ids.shape[2])
        if len(np.unique(ids[..., z])) > 2
    ]
    return float(np.mean(errors)) if errors else None


class Forest:
    """A random forest on image filters, trained on the annotated voxels."""

    def __init__(self, volume: Volume) -> None:
        image = normalize(volume.image, intensity_window(volume.image))
        self.filters = np.moveaxis(filtered(image), 0, -1)

    def classes(
        self, known: NDArray[np.int32], measured: NDArray[np.bool_], seed: int
    ) -> NDArray[np.int64]:
        """(X, Y, Z) fine classes; a voxel of several possible classes counts as any of them."""
        rng = np.random.default_rng(seed)
        at = np.flatnonzero(known != HIERARCHY.unknown)
        at = rng.choice(at, min(FOREST_ROWS, len(at)), replace=False)
        flat = self.filters.reshape(-1, self.filters.shape[-1])
        forest = RandomForestClassifier(100, min_samples_leaf=3, n_jobs=1, random_state=seed)
        forest.fit(flat[at], known.reshape(-1)[at])
        found = np.zeros(known.size, np.int64)
        where = np.flatnonzero(measured)
        first = np.array([HIERARCHY.members(int(s))[0] for s in forest.classes_])
        found[where] = first[forest.predict_proba(flat[where]).argmax(1)]
        return found.reshape(known.shape)


def ungated(rows: Any, network: Network, settings: AdaptationSettings) -> StudyHeads:
    """The heads as they come, whatever the gate says."""
    before = learner.Logits.of(network.net, rows.features)
    reservoir = network.reservoir()
    features = reservoir.features.float()
    rehearsal = (features, reservoir.sets, learner.Logits.of(network.net, features))
    options = learner.refit_options(settings)
    (heads,) = learner.refit(rows, before, rehearsal, [None], network.hierarchy, options)
    return heads


def run(
    name: str, seed: int, network: Network, folder: Path, out: Path
) -> Iterator[dict[str, Any]]:
    """One day of one annotator: rows of figures."""
    volume = volume_of(DATA[name], folder, network)
    settings = AdaptationSettings()
    cache = FeatureCache(2**31)
    study = Study(out / f"study-{name}-{seed}", network.hierarchy)
    shutil.rmtree(study.root, ignore_errors=True)
    shelf = Shelf(cache, network.digest, name)
    day = StudyLearner(study, settings, lambda _: shelf)
    forest = Forest(volume)
    known = np.full_like(volume.truth, HIERARCHY.unknown)

    def classes(heads: StudyHeads | None) -> NDArray[np.int64]:
        found = predict_classes(
            with_study_heads(network.net, heads), volume.image, volume.voxel_nm,
            network.inference, hierarchy=network.hierarchy, level="fine", shelf=shelf,
        )  # fmt: skip
        return found.astype(np.int64) - 1

    def objects(stored: Stored | None) -> NDArray[np.uint32]:
        heads = None if stored is None else stored.grouping
        fragments = predict_fragments(
            with_study_heads(network.net, heads), volume.image, volume.voxel_nm,
            network.inference, hierarchy=network.hierarchy, shelf=shelf,
        )  # fmt: skip
        how = None if stored is None else stored.joining
        joining = network.joining if how is None else how.on(network.joining)
        return fragments.objects(joining, HIERARCHY, network.inference.min_object_voxels).ids

    plain, plain_objects = classes(None), objects(None)
    marked = np.full_like(volume.ids, -1)
    done = 0
    for box in places(volume, DATA[name].box, seed):
        known[box_slices(box)] = volume.truth[box_slices(box)]
        marked[box_slices(box)] = volume.ids[box_slices(box)]
        done += 1
        if done not in ROUNDS:
            continue
        study.add_item(
            "tissue", volume.image, volume.voxel_nm, known, marked, replace=True,
            true_instances=False,
        )  # fmt: skip
        began = time.process_time()  # of one thread: what it takes on a quiet core
        stored = day.learn(network)
        seconds = time.process_time() - began
        measured = (known == HIERARCHY.unknown) & (volume.truth != HIERARCHY.unknown)
        rows = learner.Rows.joined([kept for _, kept in day._kept.values()])
        arms = {
            "as it is": plain,
            "refit": plain if stored.heads is None else classes(stored.heads),
            "refit, ungated": classes(ungated(rows, network, settings)),
            "forest": forest.classes(known, measured, seed),
        }
        figures = {arm: class_figures(volume.truth, found, measured) for arm, found in arms.items()}
        others = np.where(known == HIERARCHY.unknown, volume.ids, -1)
        errors = [rand_error(others, plain_objects), rand_error(others, objects(stored))]
        yield {
            "data": name, "seed": seed, "boxes": done, "seconds": round(seconds, 2),
            "used": stored.learned.used, "figures": figures, "objects": errors,
            "sentence": stored.learned.sentence,
        }  # fmt: skip
        if done == ROUNDS[-1]:
            break
    shutil.rmtree(study.root)


def network_of(path: Path) -> Network:
    """A published network with its rehearsal rows."""
    net, settings, hierarchy, _ = load_network(path)
    digest = digest_of(path)
    inference = settings.inference.model_copy(update={"overlap": 0.0})
    model = settings.model
    reservoir = reservoir_for(path, digest, net, hierarchy)
    return Network(
        net, hierarchy, digest, model.finest_nm, model.most_split, inference, lambda: reservoir,
        joining_of(net),
    )  # fmt: skip


def main() -> int:
    """Run what is missing, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "first_day")
    parser.add_argument("--studies", type=Path, help="shared data imported already")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.jsonl"
    network = network_of(args.weights)
    kept = (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )
    rows = [r for r in kept if r["weights"] == network.digest]
    last = {(r["data"], r["seed"]) for r in rows if r["boxes"] == ROUNDS[-1]}
    for name in args.data:
        for seed in args.seeds:
            if (name, seed) in last:
                continue
            fresh = []
            for row in run(name, seed, network, args.studies or args.out / "imported", args.out):
                told = {arm: f"{mean_iou(f):.3f}" for arm, f in row["figures"].items()}
                print(name, seed, row["boxes"], told, f"{row['seconds']} s", flush=True)
                fresh.append({**row, "weights": network.digest})
            with results.open("a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in fresh))
            rows += fresh
    print(summary(rows))
    draw(rows, args.picture or args.out / "first-day.png")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
