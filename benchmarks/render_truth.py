"""The picture of docs/proofreading.md: what is known after a submission.

    python benchmarks/render_truth.py [--out docs/images/truth.png]

Synthetic neuropil, a machine that is wrong in places, an annotator who mends one of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from scipy import ndimage  # noqa: E402

from lib.labels.hierarchy import load_hierarchy  # noqa: E402
from lib.synthetic.generate import generate  # noqa: E402

SEED, SECTION = 7, 8


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "truth.png")
    out = parser.parse_args().out
    hierarchy = load_hierarchy()
    made = generate((160, 160, 16), (8.0, 8.0, 40.0), SEED)
    grey, true = made.image[:, :, SECTION].T, made.fine[:, :, SECTION].T
    objects = made.instance[:, :, SECTION].T
    axon, soma = (hierarchy.class_names.index(n) for n in ("axon", "soma"))
    ids, counts = np.unique(objects[true == axon], return_counts=True)
    mended = (objects == ids[counts.argmax()]) & (true == axon)
    machine = ndimage.median_filter(true, 5)
    machine[ndimage.binary_dilation(mended)] = soma  # one of its mistakes
    sent = np.where(mended, axon, machine)
    touched = sent != machine
    colors = np.array([c.color for c in hierarchy.classes], np.float64) / 255
    panels: list[tuple[str, NDArray[np.float64]]] = [
        ("image", np.repeat(grey[..., None] / 255.0, 3, -1)),
        ("the machine's answer", _over(grey, colors[machine], np.ones(grey.shape, bool))),
        ("submitted: one object renamed", _over(grey, colors[sent], np.ones(grey.shape, bool))),
        ("known: what a person changed", _over(grey, colors[sent], touched)),
    ]
    figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.9))
    for axis, (title, picture) in zip(axes, panels, strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    axes[2].contour(mended, [0.5], colors="white", linewidths=1.5)
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def _over(
    grey: NDArray[np.uint8], colors: NDArray[np.float64], where: NDArray[np.bool_]
) -> NDArray[np.float64]:
    base = np.repeat(grey[..., None] / 255.0, 3, -1)
    return np.where(where[..., None], 0.45 * base + 0.55 * colors, base)


if __name__ == "__main__":
    main()
