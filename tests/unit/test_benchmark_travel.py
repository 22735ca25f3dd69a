"""Changed images keep their geometry: a perfect method stays perfect wherever it can."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.travel import CHANGES, Scene, measure, row
from lib.evaluation.truth import Truth
from lib.labels.hierarchy import LabelHierarchy, load_hierarchy

HIERARCHY = load_hierarchy()
MITO = HIERARCHY.class_names.index("mitochondria")


@dataclass(frozen=True)
class Threshold:
    """Says mitochondria where the image is dark, and keeps what it was asked."""

    hierarchy: LabelHierarchy = HIERARCHY
    most_split: int = 3
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def classes(self, image: np.ndarray, voxel: tuple[float, ...], level: str) -> np.ndarray:
        self.asked.append((image.shape, voxel, image.dtype, self.most_split))
        low, high = float(image.min()), float(image.max())
        return np.where(image < (low + high) / 2, MITO + 1, 1).astype(np.uint8)


def scene(voxel: tuple[float, float, float]) -> Scene:
    grey = np.random.default_rng(0).random((48, 40, 16))
    grey = ndimage.gaussian_filter(grey, 4.0).astype(np.float32)
    grey = (grey - grey.min()) / np.ptp(grey)
    sets = np.where(np.rint(grey * 255) < 127.5, 1 << MITO, HIERARCHY.unknown & ~(1 << MITO))
    truth = Truth(sets.astype(np.int32), np.zeros(sets.shape, np.int64), True, False)
    return Scene("vnc", grey, voxel, truth)


@pytest.mark.parametrize("voxel", [(10.0, 10.0, 10.0), (5.0, 5.0, 50.0)])
def test_every_change_is_measured_on_the_images_own_voxels(voxel) -> None:
    view, found = scene(voxel), {}
    for change in CHANGES:
        method = Threshold()
        found[change.name] = measure(method, view, change)
        if found[change.name]:
            (shape, size, dtype, most_split), *_ = method.asked
            extent = np.array(shape) * np.array(size)
            assert np.allclose(extent, np.array(view.grey.shape) * voxel), change.name
            assert dtype == (np.uint16 if change.top > 255 else np.uint8)
            assert most_split == (3 if change.split else 1)
    iou = {name: figures.get("VNC mitochondria IoU") for name, figures in found.items()}
    assert iou["as it is"] == 1.0
    for same in ("contrast halved", "16 bit, offset 5,000", "voxels half the size"):
        assert iou[same] > 0.9
    assert iou["voxels twice the size"] > 0.8
    assert iou["inverted"] < 0.05
    assert (iou["voxels twice the size, never split"] is None) == (voxel[2] == 50.0)


def test_a_row_tells_what_is_left() -> None:
    first = {"VNC mitochondria IoU": 0.5, "FIB-25 ARE (less is better)": 0.2}
    assert row("x", {"FIB-25 ARE (less is better)": 0.25}, first) == "| x |  | 0.250 (+0.050) |"
    assert row("x", {"VNC mitochondria IoU": 0.4}, first) == "| x | 0.400 (80%) |  |"
