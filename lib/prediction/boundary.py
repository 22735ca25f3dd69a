"""Where one object ends and the next begins, read off the affinities of next neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.targets.pairs import NEAREST, Offset

THICK = 2.5
"""Sections at least so many times as thick as a pixel is wide are cut into fragments one by one:
across them neither the image nor the affinities say where a boundary runs."""
BINS = 256
SCALE_PERCENTILE = 0.99
"""A boundary is as strong as the strongest hundredth of the volume's voxels."""


@dataclass(frozen=True)
class BoundaryScale:
    """What a volume's boundary map counts as strong, and as inside an object.

    Args:
        strong: value of the map that counts as a full boundary.
        inside: share of `strong` up to which a voxel lies inside an object.
    """

    strong: float
    inside: float


def has_thick_sections(voxel_size_nm: Sequence[float]) -> bool:
    """Whether fragments are cut section by section."""
    return voxel_size_nm[2] >= THICK * min(voxel_size_nm[:2])


def boundary_map(
    affinities: NDArray[np.float16],
    offsets: Sequence[Offset],
    foreground: NDArray[np.bool_],
    voxel_size_nm: Sequence[float],
) -> NDArray[np.float32]:
    """The largest complement of the affinities of the pairs with a next neighbour.

    Args:
        affinities: (A, X, Y, Z) in [-1, 1]; partner of voxel v is v + offset.
        offsets: A offsets.
        foreground: (X, Y, Z) voxels that can be objects; a pair with another is a boundary.
        voxel_size_nm: (x, y, z); pairs across thick sections are left out.

    Returns:
        (X, Y, Z) in [0, 1], 1 where a voxel surely has a neighbour of another object.
    """
    out = np.zeros(foreground.shape, np.float32)
    thick = has_thick_sections(voxel_size_nm)
    for channel, offset in enumerate(offsets):
        if offset not in NEAREST or (thick and offset[2]):
            continue
        here, there = pair_slices(offset, foreground.shape)
        apart = (1.0 - affinities[channel][here].astype(np.float32)) / 2.0
        apart[~(foreground[here] & foreground[there])] = 1.0
        np.maximum(out[here], apart, out=out[here])
        np.maximum(out[there], apart, out=out[there])
    return out


def boundary_histogram(
    boundary: NDArray[np.float32], foreground: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(BINS,) counts of the boundary map over the foreground; histograms of blocks add up."""
    found, _ = np.histogram(boundary[foreground], BINS, (0.0, 1.0))
    return found.astype(np.int64)


def boundary_scale(histograms: Iterable[NDArray[np.int64]]) -> BoundaryScale:
    """What is strong and what is inside, from the histograms of all blocks of a volume.

    Inside goes up to Otsu's threshold of the map cut at its full strength; where values keep
    apart, as in clean volumes, to the middle between them.

    Source: Otsu 1979.
    """
    counts = np.sum(list(histograms), axis=0)
    total = int(counts.sum())
    if not total:
        return BoundaryScale(1.0, 0.5)
    strong = int(np.searchsorted(np.cumsum(counts), SCALE_PERCENTILE * total)) + 1
    cut = counts[:strong].astype(np.float64)
    cut[-1] += counts[strong:].sum()
    below, centres = np.cumsum(cut)[:-1], (np.arange(strong) + 0.5) / strong
    sums = np.cumsum(cut * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / (total - below)
        variance = np.nan_to_num(below * (total - below) * apart**2)
    if not variance.any():
        return BoundaryScale(strong / BINS, 0.5)
    best = np.flatnonzero(variance >= variance.max() * (1 - 1e-9))
    return BoundaryScale(strong / BINS, float(best.mean() + 1) / strong)


def pair_slices(
    offset: Offset, shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index of the first and of the second voxels of all pairs inside an array."""
    here = tuple(slice(0, max(n - d, 0)) for n, d in zip(shape, offset, strict=True))
    there = tuple(slice(min(d, n), None) for n, d in zip(shape, offset, strict=True))
    return here, there
