"""Scores of an item's regions, stored beside the item.

`<studies>/scores/<id>.npz` holds the figures that every strategy needs, so that a query is
answered from them without the network. The scores name the weights and the image they were
computed with; when either changes they are stale.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.queries.regions import RegionGrid
from lib.volumes.atomic import write_bytes
from lib.volumes.boxes import Triple
from lib.volumes.errors import DAMAGED_ARRAYS

FORMAT = 1
FOLDER = "scores"
HEAT_MAPS = ("uncertainty", "hierarchy")

Row = NDArray[np.float32]


@dataclass(frozen=True)
class ItemScores:
    """What the network says about the regions of one item.

    Args:
        weights: version of the weights (see `weights_version`).
        image: fingerprint of the image file.
        region: the largest size of a region that was asked for, in network voxels.
        grid: the regions, in the item's own axes.
        entropy: (R,) mean predictive entropy, 0..1 (1: all classes equally likely).
        disagreement: (R,) mean divergence between the coarse head and the groups' sums of
            the fine head, 0..1.
        prompted: (R,) mean divergence between automatic and prompted classes, 0..1; NaN where
            the network was never trained with prompts.
        class_entropy: (R, C) entropy of the voxels predicted as each class, summed and divided
            by the region's voxels.
        class_share: (R, C) share of voxels predicted as each class.
        features: (R, F) mean backbone features.
        heat: (2, *) uint8, the maps HEAT_MAPS in percent on a coarser grid.
        heat_grid: the cells of `heat`.
    """

    weights: str
    image: str
    region: Triple
    grid: RegionGrid
    entropy: Row
    disagreement: Row
    prompted: Row
    class_entropy: Row
    class_share: Row
    features: Row
    heat: NDArray[np.uint8]
    heat_grid: RegionGrid


_ROWS = ("entropy", "disagreement", "prompted", "class_entropy", "class_share", "features")


def scores_path(root: Path, item_id: str) -> Path:
    """Where an item's scores lie."""
    return root / FOLDER / f"{item_id}.npz"


def save_scores(path: Path, scores: ItemScores) -> None:
    """Write scores; the file appears whole or not at all."""
    arrays = {name: getattr(scores, name).astype(np.float32) for name in _ROWS}
    for name, grid in (("grid", scores.grid), ("heat_grid", scores.heat_grid)):
        arrays.update({f"{name}_{axis}": e for axis, e in zip("xyz", grid.edges, strict=True)})
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format=np.array(FORMAT),
        weights=np.array(scores.weights),
        image=np.array(scores.image),
        region=np.array(scores.region),
        heat=scores.heat,
        **arrays,
    )
    write_bytes(path, buffer.getvalue())


def load_scores(path: Path) -> ItemScores | None:
    """Read scores; None where there are none, or a file of another version or a damaged one.

    Scores can always be computed again, so that a file nobody can read counts as missing.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            if int(data["format"]) != FORMAT:
                return None
            x, y, z = (int(n) for n in data["region"])
            return ItemScores(
                region=(x, y, z),
                weights=str(data["weights"]),
                image=str(data["image"]),
                grid=_grid(data, "grid"),
                heat=data["heat"],
                heat_grid=_grid(data, "heat_grid"),
                **{name: data[name] for name in _ROWS},
            )
    except DAMAGED_ARRAYS:
        return None


def _grid(data: np.lib.npyio.NpzFile, name: str) -> RegionGrid:
    return RegionGrid((data[f"{name}_x"], data[f"{name}_y"], data[f"{name}_z"]))
