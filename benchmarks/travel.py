"""How weights do on images other than they were trained on: contrast, bits, noise, voxel size.

    python benchmarks/travel.py --studies DIR [--items ID ...] [--edge N | --quick] [--json FILE]

The dev images are changed in one way at a time, segmented at the voxel size they then have, and
the maps are measured on the image's own voxels. Prints a Markdown table. DIR is a study with the
shared data (`benchmarks/import_shared_data.py`). Only the middle of each image is looked at, 512
voxels wide (`--edge`; 0: all of it), 128 with `--quick`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.configs.load import hierarchy_of, load_settings  # noqa: E402
from lib.evaluation.evaluate import data_set_of  # noqa: E402
from lib.evaluation.truth import Truth, read_truth  # noqa: E402
from lib.metrics.class_scores import ClassScores  # noqa: E402
from lib.metrics.object_scores import adapted_rand_error, contingency  # noqa: E402
from lib.networks.devices import choose_device  # noqa: E402
from lib.prediction.predictor import Predictor, load_predictor  # noqa: E402
from lib.volumes.atomic import write_json  # noqa: E402
from lib.volumes.boxes import Box, box_slices  # noqa: E402
from lib.volumes.contrast import intensity_window, normalize  # noqa: E402
from lib.volumes.frames import SECTION_RATIO  # noqa: E402
from lib.volumes.study import Study, StudyItem  # noqa: E402

Grey = NDArray[np.float32]
"""(X, Y, Z) in [0, 1]."""

ITEMS = ("vnc-val", "sbem-val", "axondeepseg-rat6-data15", "fib25-val")
EDGE, QUICK_EDGE = 512, 128
FIGURES = {
    "vnc": ("VNC mitochondria IoU",),
    "sbem": ("SBEM mitochondria IoU",),
    "axondeepseg": ("axon Dice", "myelin Dice"),
    "fib25": ("FIB-25 ARE (less is better)",),
}
FINER, SAME, COARSER = 0.5, 1.0, 2.0


@dataclass(frozen=True)
class Change:
    """One way in which an image is another.

    Args:
        name: for the table.
        make: grey values and in-plane axes -> changed grey values.
        top: grey value of 1.0; above 255 the image has 16 bits.
        scale: voxel size in terms of the image's own.
        split: whether coarse voxels may be split.
    """

    name: str
    make: Callable[[Grey, tuple[int, ...]], Grey] = lambda grey, _: grey
    top: int = 255
    scale: float = SAME
    split: bool = True


def _blurred(grey: Grey, axes: tuple[int, ...]) -> Grey:
    sigma = [1.5 if a in axes else 0.0 for a in range(3)]
    return np.asarray(ndimage.gaussian_filter(grey, sigma), np.float32)


def _noisy(grey: Grey, _: tuple[int, ...]) -> Grey:
    noise = np.random.default_rng(0).standard_normal(grey.shape, np.float32)
    return (grey + np.float32(0.1) * noise).clip(0, 1)


def _shaded(grey: Grey, _: tuple[int, ...]) -> Grey:
    ramp = np.linspace(0.6, 1.0, grey.shape[0], dtype=np.float32)[:, None, None]
    return grey * ramp


def _finer(grey: Grey, axes: tuple[int, ...]) -> Grey:
    zoom = [2 if a in axes else 1 for a in range(3)]
    return np.asarray(ndimage.zoom(grey, zoom, order=1, grid_mode=True, mode="nearest"))


def _coarser(grey: Grey, axes: tuple[int, ...]) -> Grey:
    for axis in axes:
        grey = (grey.take(range(0, grey.shape[axis], 2), axis) +
                grey.take(range(1, grey.shape[axis], 2), axis)) / 2  # fmt: skip
    return grey


CHANGES = (
    Change("as it is"),
    Change("contrast halved", lambda g, _: 0.25 + 0.5 * g),
    Change("contrast x 1.6, saturated", lambda g, _: (0.5 + 1.6 * (g - 0.5)).clip(0, 1)),
    Change("gamma 0.6", lambda g, _: g**0.6),
    Change("gamma 1.6", lambda g, _: g**1.6),
    Change("16 bit, offset 5,000", lambda g, _: (5000 + 40000 * g) / 65535, top=65535),
    Change("shaded, 0.6 to 1 across", _shaded),
    Change("noise, sigma 0.1", _noisy),
    Change("blur, sigma 1.5 voxels", _blurred),
    Change("inverted", lambda g, _: 1 - g),
    Change("voxels half the size", _finer, scale=FINER),
    Change("voxels twice the size", _coarser, scale=COARSER),
    Change("voxels twice the size, never split", _coarser, scale=COARSER, split=False),
)


@dataclass(frozen=True)
class Scene:
    """An item's image, changed or not, and what is known of it."""

    data_set: str
    grey: Grey
    voxel_size_nm: tuple[float, float, float]
    truth: Truth

    @property
    def axes(self) -> tuple[int, ...]:
        """Those along which voxels change: not across sections."""
        finest = min(self.voxel_size_nm)
        return tuple(
            a
            for a in range(3)
            if self.grey.shape[a] > 1 and self.voxel_size_nm[a] < SECTION_RATIO * finest
        )


def read_scene(predictor: Predictor, item: StudyItem, edge: int) -> Scene:
    """The even-sized middle of an item, at most `edge` voxels wide; 0: all of it."""
    frame = predictor.frame(item.shape, item.voxel_size_nm)
    truth = read_truth(item, frame, "val", 0.2)
    if truth is None:
        raise SystemExit(f"{item.id}: nothing known in the split val")
    spans = []
    for size in item.shape:
        extent = min(size, edge or size)
        extent -= extent % 2 if extent > 1 else 0
        spans.append(((size - extent) // 2, (size - extent) // 2 + extent))
    box: Box = (spans[0], spans[1], spans[2])
    part = box_slices(box)
    image = item.open_image()
    grey = normalize(np.asarray(image[part]), intensity_window(image))
    cut = replace(truth, class_sets=truth.class_sets[part], instances=truth.instances[part])
    return Scene(data_set_of(item), grey, item.voxel_size_nm, cut)


def measure(predictor: Predictor, scene: Scene, change: Change) -> dict[str, float]:
    """The figures of a changed scene; empty where the change makes none."""
    axes = scene.axes
    isotropic = len(axes) == 3
    if not change.split and not isotropic:
        return {}
    if not change.split:
        predictor = replace(predictor, most_split=1)
    made = change.make(scene.grey, axes)
    kind = np.uint8 if change.top <= 255 else np.uint16
    image = np.rint(made * change.top).astype(kind)
    x, y, z = (s * (change.scale if a in axes else 1) for a, s in enumerate(scene.voxel_size_nm))
    names = FIGURES[scene.data_set]
    if scene.data_set == "fib25":
        ids = _back(predictor.objects(image, (x, y, z)).ids, change.scale, axes)
        return {names[0]: adapted_rand_error(contingency(scene.truth.instances, ids))}
    found = _back(predictor.classes(image, (x, y, z), "fine"), change.scale, axes)
    scores = ClassScores(predictor.hierarchy)
    scores.update(scene.truth.class_sets, found.astype(np.int16) - 1)
    by_class = scores.result().by_class
    if scene.data_set == "axondeepseg":
        return {n: by_class[n.split()[0]].dice for n in names}
    return {names[0]: by_class["mitochondria"].iou}


def _back(values: NDArray[Any], scale: float, axes: tuple[int, ...]) -> NDArray[Any]:
    """A map on changed voxels -> on the image's own."""
    for axis in axes:
        if scale == FINER:
            values = values.take(range(0, values.shape[axis], 2), axis)
        elif scale == COARSER:
            values = values.repeat(2, axis)
    return values


def row(name: str, figures: dict[str, float], first: dict[str, float]) -> str:
    """Figures, and what is left of those of the unchanged image."""
    cells = [name]
    for column, reference in first.items():
        value = figures.get(column)
        if value is None:
            cells.append("")
        elif "ARE" in column:
            cells.append(f"{value:.3f} ({value - reference:+.3f})")
        else:
            cells.append(f"{value:.3f} ({value / max(reference, 1e-9):.0%})")
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Measure every change on every item."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--items", nargs="+", default=list(ITEMS), choices=ITEMS, metavar="ID")
    parser.add_argument("--edge", type=int, default=EDGE, help=f"voxels, default {EDGE}; 0: all")
    parser.add_argument("--quick", action="store_true", help=f"as --edge {QUICK_EDGE}")
    parser.add_argument("--weights", type=Path, default=ROOT / "model" / "neuropil.pt")
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    begin, settings = time.perf_counter(), load_settings()
    predictor = load_predictor(args.weights, settings, choose_device(args.device))
    study = Study(args.studies, hierarchy_of(settings), settings.data.spacing_unit)
    edge = QUICK_EDGE if args.quick else args.edge
    scenes = [read_scene(predictor, study.item(name), edge) for name in args.items]
    columns = [name for scene in scenes for name in FIGURES[scene.data_set]]
    print("| image | " + " | ".join(columns) + " |\n|---" + "|--:" * len(columns) + "|")
    rows: dict[str, dict[str, float]] = {}
    for change in CHANGES:
        found: dict[str, float] = {}
        for scene in scenes:
            found.update(measure(predictor, scene, change))
        if found:
            rows[change.name] = found
            print(row(change.name, found, rows[CHANGES[0].name]), flush=True)
    print(f"\n{time.perf_counter() - begin:.0f} s, {time.process_time():.0f} s of CPU")
    if args.json:
        write_json(  # which sorts keys: what has an order is a list
            args.json,
            {"columns": columns, "changes": [list(pair) for pair in rows.items()], "edge": edge},
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
