"""Rows: features and labels of single voxels, from which heads are refitted.

Rows of a study lie in blocks of a fixed lattice. Neighbouring blocks are held back in turn, and
what lies within a gap of a block that is held back does not train: neighbouring voxels are so
alike that a head could be right on one by remembering the other.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.prediction.features import FeatureSource
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.window_grid import WindowGrid
from lib.volumes.boxes import Box, box_origin, box_slices

FOLDS = 4
"""So many parts of the rows are held back in turn."""
GAP = (5, 5, 1)
"""Voxels around a block that do not train while it is held back."""
LEAST_BLOCKS = 12
"""Blocks are made smaller where the rarest class set of an annotation touches fewer of them."""
LEAST_SHARE = 0.01
"""Class sets with a smaller share of an annotation do not make the blocks smaller."""
SIZES = ((64, 64, 16), (32, 32, 8), (16, 16, 4))
"""Edges of a block, network voxels, from the largest on."""

PER_CORE = 100_000
"""Known voxels of one window among which rows are drawn."""
UNKNOWN_SHARE = 20
"""So many times fewer unknown ones."""
LEAST_ROWS, MOST_ROWS = 8, 512
"""Of one class set in one block."""


@dataclass(frozen=True)
class Rows:
    """N voxels.

    Args:
        features: (N, F + FILTERS) float32, as the backbone gives them, filter responses last.
        sets: (N,) int32 class sets; "all classes" where nothing is known.
        weight: (N,) float32, how many voxels a row stands for.
        block: (N,) int64, the block a row lies in, unique over all items.
        fold: (N,) int64, 0 to FOLDS - 1, the part that is held back together.
        near: (N,) int64, bits of the folds that have a block within the gap, its own included.
    """

    features: Tensor
    sets: Tensor
    weight: Tensor
    block: Tensor
    fold: Tensor
    near: Tensor

    def __len__(self) -> int:
        return len(self.sets)

    def __getitem__(self, index: Tensor) -> Rows:
        """The rows at some places."""
        return Rows(*(getattr(self, f.name)[index] for f in fields(self)))

    def trains(self, held_back: int) -> Tensor:
        """(N,) bool: rows that may train while a fold is held back."""
        return (self.near >> held_back) & 1 == 0

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """All rows of several items."""
        return Rows(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Rows)))


@dataclass(frozen=True)
class Lattice:
    """The blocks of one item.

    Args:
        name: of the item; blocks of two items are never one.
        size: edges of a block.
    """

    name: str
    size: tuple[int, int, int]

    @staticmethod
    def fitting(name: str, known: NDArray[np.int64], sets: NDArray[np.int32]) -> Lattice:
        """The largest blocks of which each annotated class set touches enough.

        Args:
            name: of the item.
            known: (K, 3) voxels.
            sets: (K,) their class sets.
        """
        kinds, counts = np.unique(sets, return_counts=True)
        kinds = kinds[counts >= LEAST_SHARE * counts.sum()]
        lattice = Lattice(name, SIZES[0])
        for size in SIZES:
            lattice = Lattice(name, size)
            places = known // np.array(size)
            touched = [len(np.unique(places[sets == kind], axis=0)) for kind in kinds]
            if min(touched, default=0) >= LEAST_BLOCKS:
                break
        return lattice

    def place(self, voxels: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Block, fold and the folds near by, of (K, 3) voxels."""
        low = voxels - np.array(GAP)
        high = voxels + np.array(GAP)
        size = np.array(self.size)
        near = np.zeros(len(voxels), np.int64)
        for corner in itertools.product((0, 1), repeat=3):
            at = np.where(np.array(corner, bool), high, low) // size
            near |= np.int64(1) << _fold(at)
        own = voxels // size
        fold = _fold(own)
        return self._ids(own), fold, near | (np.int64(1) << fold)

    def _ids(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        digest = hashlib.blake2b(self.name.encode(), digest_size=4).digest()
        start = np.int64(int.from_bytes(digest, "big") & 0x7FFFFFFF) << np.int64(30)
        wide = blocks & 0x3FF
        ids: NDArray[np.int64] = start + (wide[:, 0] << 20) + (wide[:, 1] << 10) + wide[:, 2]
        return ids


def _fold(blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Neighbours in a section differ; along the sections pairs of blocks share a fold."""
    x, y, z = blocks.T
    folds: NDArray[np.int64] = (x + 2 * y + z) % FOLDS
    return folds


class SetMap(Protocol):
    """Class sets of an item: an array, or something smaller that is read like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.int32]: ...


@dataclass(frozen=True)
class Sample:
    """Voxels of one window that become rows.

    Args:
        window: the window whose features they take.
        voxels: (K, 3) int64.
        weight: (K,) float64, how many voxels each stands for.
        known: (K,) bool.
    """

    window: Box
    voxels: NDArray[np.int64]
    weight: NDArray[np.float64]
    known: NDArray[np.bool_]


def read_rows(
    name: str,
    source: FeatureSource,
    grid: WindowGrid,
    sets: SetMap,
    unknown: int,
    most: int,
    most_windows: int,
    voxel_size_nm: Sequence[float],
) -> Rows:
    """Rows of one item: known voxels, and as many unknown ones of the same windows at most.

    Deterministic for an item's name and labels.

    Args:
        name: of the item.
        source: features of its windows.
        grid: windows, those of a whole run over the item.
        sets: (X, Y, Z) class sets of the item, network frame.
        unknown: the set of all classes.
        most: rows of known voxels at most, about.
        most_windows: windows at most that are looked at; those with most known voxels.
        voxel_size_nm: (x, y, z) of the item, network frame.

    Returns:
        Rows; those of unknown voxels have the set `unknown`.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    samples = list(_samples(grid, sets, unknown, most_windows, generator))
    voxels = np.concatenate([np.zeros((0, 3), np.int64), *(s.voxels for s in samples)])
    known = np.concatenate([np.zeros(0, bool), *(s.known for s in samples)])
    weight = np.concatenate([np.zeros(0), *(s.weight for s in samples)])
    window = np.repeat(np.arange(len(samples)), [len(s.voxels) for s in samples])
    values = sets[tuple(voxels.T)]
    lattice = Lattice.fitting(name, voxels[known], values[known])
    block, fold, near = lattice.place(voxels)
    kept, weight = _thinned(block, values, weight, known, most, generator)
    features = torch.zeros((len(kept), source.net.feature_channels + FILTERS))
    for number, sample in enumerate(samples):
        here = np.flatnonzero(window[kept] == number)
        if len(here):
            found = seen(source, sample.window, voxels[kept[here]], voxel_size_nm)
            features[torch.from_numpy(here)] = found
    return Rows(
        features,
        torch.from_numpy(values[kept].astype(np.int32)),
        torch.from_numpy(weight.astype(np.float32)),
        torch.from_numpy(block[kept]),
        torch.from_numpy(fold[kept]),
        torch.from_numpy(near[kept]),
    )


def seen(
    source: FeatureSource,
    window: Box,
    voxels: NDArray[np.int64],
    voxel_size_nm: Sequence[float],
) -> Tensor:
    """(K, F + FILTERS) float32 features and filter responses of (K, 3) voxels of a window."""
    at = voxels - np.array(box_origin(window))
    x, y, z = (torch.from_numpy(a).to(source.device) for a in at.T)
    with torch.inference_mode():
        own = source([window])[0][:, x, y, z].T.float()
        beside = source.responses([window], voxel_size_nm)[0, x, y, z].float()
        found = torch.cat([own, beside], 1).cpu()
    return found.clone()


def _samples(
    grid: WindowGrid,
    sets: SetMap,
    unknown: int,
    most_windows: int,
    generator: np.random.Generator,
) -> Iterator[Sample]:
    """What each window gives: every voxel belongs to the window in which it lies deepest."""
    cores = [
        (int((sets[box_slices(core)] != unknown).sum()), window, core)
        for window, core in grid.cores()
    ]
    counted = sorted((c for c in cores if c[0]), key=lambda c: (-c[0], c[1]))[:most_windows]
    for _, window, core in counted:
        part = sets[box_slices(core)]
        voxels, weights, knowns = [], [], []
        for is_known in (True, False):
            flat = np.flatnonzero((part != unknown) == is_known)
            if not len(flat):
                continue
            share = min(PER_CORE if is_known else PER_CORE // UNKNOWN_SHARE, len(flat))
            chosen = generator.choice(flat, share, replace=False) if share < len(flat) else flat
            inside = np.stack(np.unravel_index(chosen, part.shape), 1)
            voxels.append(inside + np.array([low for low, _ in core]))
            weights.append(np.full(share, len(flat) / share))
            knowns.append(np.full(share, is_known))
        yield Sample(
            window, np.concatenate(voxels), np.concatenate(weights), np.concatenate(knowns)
        )


def _thinned(
    block: NDArray[np.int64],
    values: NDArray[np.int32],
    weight: NDArray[np.float64],
    known: NDArray[np.bool_],
    most: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """As many rows of each block's every class set, up to a number.

    Returns:
        indices of the rows that stay, ascending, and what each of them stands for.
    """
    order = generator.permutation(len(block))
    keys = np.stack([block, values.astype(np.int64)], 1)[order]
    _, group, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    by_group = np.argsort(group, kind="stable")
    rank = np.empty(len(order), np.int64)
    starts = np.cumsum(counts) - counts
    rank[by_group] = np.arange(len(order)) - np.repeat(starts, counts)
    groups_known = len(np.unique(group[known[order]]))
    limit = int(np.clip(most // max(groups_known, 1), LEAST_ROWS, MOST_ROWS))
    total = np.bincount(group, weight[order], len(counts))
    share = total / np.minimum(counts, limit)
    stay = rank < limit
    kept = order[stay]
    ascending = np.argsort(kept)
    return kept[ascending], share[group[stay]][ascending]
