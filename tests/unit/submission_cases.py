"""A study of one item, and strokes and segmentations to submit for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from volume_files import SIZE_NM, Volume, nifti, volume

from lib.labels.hierarchy import load_hierarchy
from lib.volumes.study import Study

H = load_hierarchy()
SHAPE = (13, 17, 9)
AXON, TEAR, MITO = (H.set_named(n) for n in ("axon", "tear", "mitochondria"))
NAMES = ["axon", "organelle", "axon 17", "uncertain"]
INFO = [{"name": n, "idx": i} for n, i in zip(NAMES, (1, 3, 4, 6), strict=True)]
ROI = ((2, 9), (0, 17), (3, 6))
INSIDE = np.zeros(SHAPE, bool)
INSIDE[2:9, :, 3:6] = True


def study_of_one(root: Path) -> Study:
    """A study with the unlabelled item "one"."""
    made = Study(root, H)
    made.add_item("one", volume(SHAPE), SIZE_NM)
    return made


def strokes(seed: int = 0, high: int = 5, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """Label values below `high`."""
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def upload(folder: Path, data: Volume, name: str = "up.nii.gz") -> Path:
    """A file as an annotator sends it."""
    return Path(nifti(folder / name, data))


def seg_nrrd(
    path: Path, layers: list[Volume], segments: list[tuple[str, int, int]], **header: Any
) -> Path:
    """A .seg.nrrd as Slicer writes it: segments are (name, value, layer)."""
    directions = [[-SIZE_NM[0], 0, 0], [0, -SIZE_NM[1], 0], [0, 0, SIZE_NM[2]]]
    layered = len(layers) > 1
    data = np.stack(layers) if layered else layers[0]
    fields = {
        "space": "left-posterior-superior",
        "space directions": np.array([[np.nan] * 3, *directions]) if layered else directions,
        "kinds": [*(["list"] if layered else []), *["domain"] * 3],
        "space origin": [0.0, 0.0, 0.0],
        "encoding": "gzip",
    }
    for i, (name, value, layer) in enumerate(segments):
        fields |= {
            f"Segment{i}_ID": f"Segment_{i}", f"Segment{i}_Name": name,
            f"Segment{i}_LabelValue": str(value), f"Segment{i}_Layer": str(layer),
        }  # fmt: skip
    nrrd.write(str(path), data, {**fields, **header})
    return path
