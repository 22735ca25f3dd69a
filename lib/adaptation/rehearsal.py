"""Rehearsal: rows of the training data that go along when heads are refitted.

    <weights>.rehearsal.npz   features and class sets of rows, and the digest of the weights

A row is what a study's heads see of a voxel, and means nothing to another backbone. A reservoir
is written with the weights (`benchmarks/make_reservoir.py`); weights published later get one of
synthetic neuropil, made once.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.adaptation.rows import seen
from lib.labels.hierarchy import LabelHierarchy, load_hierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.features import FeatureSource
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.window_grid import window_grid
from lib.synthetic.generate import generate
from lib.synthetic.partial import class_sets_of
from lib.volumes.atomic import write_bytes
from lib.volumes.errors import DAMAGED_ARRAYS

logger = logging.getLogger("neuropil.adaptation")

MADE_SIZE = (96, 96, 24)
MADE = (((8.0, 8.0, 40.0), 1000), ((10.0, 10.0, 10.0), 2000))
"""Voxel sizes and seeds of the synthetic volumes of a reservoir that is made on the spot."""
POWER = 0.5
"""Rows of a class set grow with its voxels to this power: rare classes are not lost."""


@dataclass(frozen=True)
class Reservoir:
    """Rows of data that the weights were trained on.

    Args:
        features: (M, F + FILTERS) float16, filter responses last.
        sets: (M,) int32 class sets.
        weights: SHA-256 of the weights file whose features these are.
    """

    features: Tensor
    sets: Tensor
    weights: str

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        written = io.BytesIO()
        np.savez_compressed(
            written,
            features=self.features.half().numpy(),
            sets=self.sets.numpy(),
            weights=np.array(self.weights),
        )
        write_bytes(path, written.getvalue())

    @staticmethod
    def load(path: Path) -> Reservoir:
        """Read a reservoir.

        Raises:
            ValueError: no such file, or not one of ours.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                features, sets = data["features"], data["sets"].astype(np.int32)
                found = str(data["weights"])
        except DAMAGED_ARRAYS as error:
            raise ValueError(f"rehearsal rows {path}: cannot be read ({error})") from error
        return Reservoir(torch.from_numpy(features), torch.from_numpy(sets), found)


def reservoir_path(weights: Path) -> Path:
    """Where the reservoir of a weights file lies."""
    return weights.with_name(weights.stem + ".rehearsal.npz")


def reservoir_for(
    weights: Path, digest: str, net: NeuropilNet, hierarchy: LabelHierarchy
) -> Reservoir:
    """The reservoir of a weights file; made of synthetic neuropil where there is none of it.

    Args:
        weights: the file.
        digest: its SHA-256.
        net: its network, in evaluation mode.
        hierarchy: its classes.
    """
    path = reservoir_path(weights)
    try:
        found = Reservoir.load(path)
        columns = net.feature_channels + FILTERS
        if found.weights == digest and found.features.shape[1] == columns:
            return found
        logger.info("%s belongs to other weights; rehearsal rows are made anew", path.name)
    except ValueError as error:
        logger.info("%s", error)
    made = synthetic_reservoir(net, hierarchy, digest)
    try:
        made.save(path)
    except OSError as error:
        logger.warning("rehearsal rows are kept in memory only: %s", error)
    return made


def synthetic_reservoir(net: NeuropilNet, hierarchy: LabelHierarchy, digest: str) -> Reservoir:
    """Rows of small synthetic volumes; no rows for a hierarchy with other classes than theirs."""
    parts = []
    same = hierarchy.class_names == load_hierarchy().class_names
    for voxel_size_nm, seed in MADE if same else ():
        volume = generate(MADE_SIZE, voxel_size_nm, seed)
        sets = class_sets_of(volume, hierarchy)
        parts.append(
            volume_rows(net, volume.image, voxel_size_nm, sets, hierarchy.unknown, 8000, seed)
        )
    return pooled(parts, digest, net.feature_channels + FILTERS)


def volume_rows(
    net: NeuropilNet,
    image: NDArray[np.generic],
    voxel_size_nm: Sequence[float],
    sets: NDArray[np.int32],
    unknown: int,
    most: int,
    seed: int,
    contrast: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Rows of one labelled volume: features (M, F + FILTERS) float16 and class sets (M,).

    Args:
        net: in evaluation mode.
        image: (X, Y, Z) in the network's frame.
        voxel_size_nm: (x, y, z).
        sets: (X, Y, Z) class sets.
        unknown: the set of all classes.
        most: rows at most.
        seed: of the draws.
        contrast: of the image, see `FeatureSource`.
    """
    chosen = _by_set(sets, unknown, most, np.random.default_rng(seed))
    grid = window_grid(image.shape, (160, 160, 1 if net.spatial_dims == 2 else 32), 0.0)
    source = FeatureSource(net, image, contrast=contrast)
    features = torch.zeros((len(chosen), net.feature_channels + FILTERS), dtype=torch.float16)
    for window, core in grid.cores():
        inside = np.all([(chosen[:, a] >= low) & (chosen[:, a] < high)
                         for a, (low, high) in enumerate(core)], 0)  # fmt: skip
        if inside.any():
            found = seen(source, window, chosen[inside], voxel_size_nm).half()
            features[torch.from_numpy(np.flatnonzero(inside))] = found
    values = sets[tuple(chosen.T)].astype(np.int32)
    return features, torch.from_numpy(values)


def pooled(parts: Sequence[tuple[Tensor, Tensor]], digest: str, channels: int) -> Reservoir:
    """One reservoir of several volumes' rows."""
    features = [torch.zeros((0, channels), dtype=torch.float16), *(f for f, _ in parts)]
    sets = [torch.zeros(0, dtype=torch.int32), *(s for _, s in parts)]
    return Reservoir(torch.cat(features), torch.cat(sets), digest)


def _by_set(
    sets: NDArray[np.int32], unknown: int, most: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """(M, 3) voxels: of each class set as many as its count to a power allows."""
    found, counts = np.unique(sets[sets != unknown], return_counts=True)
    if not len(found):
        return np.zeros((0, 3), np.int64)
    share = counts.astype(float) ** POWER
    wanted = np.minimum(counts, np.ceil(most * share / share.sum()).astype(int))
    voxels = []
    for value, count in zip(found, wanted, strict=True):
        flat = generator.choice(np.flatnonzero(sets == value), count, replace=False)
        voxels.append(np.stack(np.unravel_index(flat, sets.shape), 1))
    chosen: NDArray[np.int64] = np.concatenate(voxels).astype(np.int64)
    return chosen
