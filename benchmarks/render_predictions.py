"""Pictures of what weights see: image, label, predicted classes and objects, a column an item.

python benchmarks/render_predictions.py OUT.png --studies DIR [DIR ...] [--items ID ...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from lib.configs.load import load_settings  # noqa: E402
from lib.labels.hierarchy import LabelHierarchy, load_hierarchy  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.volumes.boxes import box_slices  # noqa: E402
from lib.volumes.study import Study, StudyItem  # noqa: E402

EDGE, DEPTH = 384, 16
"""Voxels of the part that is predicted and shown."""

ROWS = ("image", "label", "predicted classes", "predicted objects")


def middle_box(shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    """A box of at most EDGE x EDGE x DEPTH voxels in the middle."""
    spans = []
    for size, most in zip(shape, (EDGE, EDGE, DEPTH), strict=True):
        start = max(0, (size - most) // 2)
        spans.append((start, min(size, start + most)))
    return tuple(spans)


def set_colours(class_sets: NDArray[np.int32], hierarchy: LabelHierarchy) -> NDArray[np.float64]:
    """A class in its colour, a set of several in the pale mean of theirs, unknown black."""
    colours = np.array([c.color for c in hierarchy.classes]) / 255
    out = np.zeros((*class_sets.shape, 3))
    for value in np.unique(class_sets):
        if value == hierarchy.unknown:
            continue
        members = list(hierarchy.members(int(value)))
        mean = colours[members].mean(0)
        out[class_sets == value] = mean if len(members) == 1 else 0.5 * mean
    return out


def object_colours(ids: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Random colours, black without object."""
    table = np.random.default_rng(0).uniform(0.2, 1.0, (int(ids.max()) + 1, 3))
    table[0] = 0
    return table[ids]


def column(predictor: Predictor, item: StudyItem) -> list[NDArray[np.float64]]:
    """The pictures of one item, of the middle section of its middle box."""
    box = middle_box(item.shape)
    image = np.asarray(item.open_image()[box_slices(box)])
    sets = item.read_class_sets(box)
    classes = predictor.classes(image, item.voxel_size_nm, "fine")
    ids = predictor.objects(image, item.voxel_size_nm).ids
    z = image.shape[2] // 2
    table = np.array([(0, 0, 0)] + [c.color for c in predictor.hierarchy.classes]) / 255
    return [
        image[..., z].astype(float),
        set_colours(sets[..., z], predictor.hierarchy),
        table[classes[..., z]],
        object_colours(ids[..., z]),
    ]


def main() -> int:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--studies", type=Path, nargs="+", required=True)
    parser.add_argument("--items", nargs="*", default=[])
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    args = parser.parse_args()
    predictor = load_predictor(args.weights, load_settings())
    items = [
        item
        for root in args.studies
        for item in Study(root, load_hierarchy()).items()
        if not args.items or item.id in args.items
    ]
    figure, axes = plt.subplots(len(ROWS), len(items), figsize=(3 * len(items), 3 * len(ROWS)))
    for k, item in enumerate(items):
        for row, picture in enumerate(column(predictor, item)):
            axis = axes[row, k] if len(items) > 1 else axes[row]
            axis.imshow(picture.swapaxes(0, 1), cmap="gray", interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if k == 0:
                axis.set_ylabel(ROWS[row])
            if row == 0:
                axis.set_title(item.id, fontsize=8)
    figure.tight_layout()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=70)
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
