"""Render sections of synthetic neuropil: image, classes, objects.

python benchmarks/render_synthetic.py [--out docs/images/synthetic.png] [--seed 3]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.labels.hierarchy import load_hierarchy
from lib.synthetic.generate import SyntheticVolume, generate


def class_colors(fine: NDArray[np.int8]) -> NDArray[np.uint8]:
    """(H, W, 3) in the hierarchy's colours; uncertain is black."""
    lut = np.array([*[c.color for c in load_hierarchy().classes], (0, 0, 0)], np.uint8)
    return np.asarray(lut[fine])


def object_colors(instance: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(H, W, 3), a random colour for each object; no object is grey, unknown black."""
    lut = np.random.default_rng(1).integers(40, 256, (int(instance.max()) + 2, 3))
    lut[0], lut[-1] = (90, 90, 90), (0, 0, 0)
    return np.asarray(lut[instance].astype(np.uint8))


def section_row(volume: SyntheticVolume, axis: int, at: int, zoom: int) -> NDArray[np.uint8]:
    """Image, classes and objects of one section side by side."""
    cut = [np.take(a, at, axis).T for a in (volume.image, volume.fine, volume.instance)]
    grey = np.repeat(cut[0][..., None], 3, -1)
    row = np.concatenate([grey, class_colors(cut[1]), object_colors(cut[2])], 1)
    return np.asarray(row.repeat(zoom, 0).repeat(zoom, 1))


def legend(width: int) -> NDArray[np.uint8]:
    """A strip with the class names in their colours."""
    picture = Image.new("RGB", (width, 40), (20, 20, 20))
    draw = ImageDraw.Draw(picture)
    classes = load_hierarchy().classes
    cell = width // 6
    for i, fine in enumerate(classes):
        x, y = i % 6 * cell + 6, i // 6 * 20 + 4
        draw.rectangle((x, y, x + 11, y + 11), fill=fine.color)
        draw.text((x + 16, y), fine.name, fill=(235, 235, 235))
    return np.asarray(picture)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/synthetic.png"))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 64))
    parser.add_argument("--voxel-size-nm", type=float, nargs=3, default=(8, 8, 40))
    parser.add_argument("--sections", type=int, nargs="+", default=[9, 52])
    parser.add_argument("--zoom", type=int, default=2)
    parser.add_argument("--axis", type=int, default=2)
    args = parser.parse_args()
    volume = generate(tuple(args.shape), tuple(args.voxel_size_nm), args.seed)
    rows = [section_row(volume, args.axis, z, args.zoom) for z in args.sections]
    picture = np.concatenate([*rows, legend(rows[0].shape[1])])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(args.out, optimize=True)
    shares = np.bincount(volume.fine.reshape(-1) + 1, minlength=13) / volume.fine.size
    for name, share in zip(["uncertain", *load_hierarchy().class_names], shares, strict=True):
        print(f"{name:20s} {100 * share:6.2f} %")


if __name__ == "__main__":
    main()
