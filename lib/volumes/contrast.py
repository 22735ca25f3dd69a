"""Contrast normalisation: one window of intensities for each item."""

from __future__ import annotations

from itertools import product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, box_slices

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
BLOCK = 128
"""Edge of the sampled blocks, voxels; each lies in one section, as files store them."""
BLOCKS = (4, 4, 8)
"""Blocks sampled along x, y, z: at most 2 million voxels, whatever the volume's size."""
FILL_SHARE = 0.02
"""From this share on, the lowest or highest value of the type counts as filling."""


class LazyImage(Protocol):
    """What can be sliced into (X, Y, Z) arrays: an array, a memory map, a Source."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any) -> Any: ...


def intensity_window(image: LazyImage) -> tuple[float, float]:
    """Robust percentiles of an image, from blocks spread evenly over it.

    Stretches of 0 or of the type's highest value, with which stitched volumes are padded,
    are left out.

    Args:
        image: (X, Y, Z), any type of numbers or bool; sliced, never read whole. A part of a
            larger volume has that volume's window as `contrast`.

    Returns:
        (dark, bright) in the image's units; the higher value is the dark one where the image is
        `inverted` (see `lib/volumes/seen.py`).
    """
    known: tuple[float, float] | None = getattr(image, "contrast", None)
    if known is not None:
        return known
    blocks = [np.asarray(image[box_slices(box)]).ravel() for box in sample_boxes(image.shape)]
    low, high = values_window(np.concatenate(blocks))
    return (high, low) if getattr(image, "inverted", False) else (low, high)


def sample_boxes(shape: tuple[int, ...]) -> list[Box]:
    """Blocks spread evenly over a volume, each of one section."""
    starts = [
        _spread(size, block, count)
        for size, block, count in zip(shape, (BLOCK, BLOCK, 1), BLOCKS, strict=True)
    ]
    return [
        ((x, min(x + BLOCK, shape[0])), (y, min(y + BLOCK, shape[1])), (z, z + 1))
        for z, y, x in product(*reversed(starts))
    ]


def values_window(values: NDArray[Any]) -> tuple[float, float]:
    """Robust percentiles of sampled intensities, without filling; low < high.

    One voxel that is NaN would make the whole image so: what is no number is not counted.
    """
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size or values.dtype.kind == "b":  # a picture of one bit
        return 0.0, 1.0
    sample = _without_filling(values)
    low, high = (float(v) for v in np.percentile(sample, (LOW_PERCENTILE, HIGH_PERCENTILE)))
    return (low, high) if high > low else (low, low + 1.0)


def normalize(patch: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float32]:
    """Map a window of intensities to 0..1 and clip.

    Args:
        patch: any shape, the image's own units; NaN counts as dark.
        window: of `intensity_window`.

    Returns:
        Same shape, float32 in [0, 1].
    """
    dark, bright = window
    scaled = np.asarray(patch, np.float32)
    scaled = (scaled - np.float32(dark)) * np.float32(1.0 / (bright - dark))
    np.clip(scaled, 0.0, 1.0, out=scaled)
    if np.asarray(patch).dtype.kind == "f":
        np.nan_to_num(scaled, copy=False)
    return scaled


def _spread(size: int, block: int, count: int) -> list[int]:
    """First voxels of up to `count` blocks, evenly spread, without needless overlap."""
    count = max(1, min(count, size // block))
    last = max(0, size - block)
    return (
        sorted({round(i * last / max(1, count - 1)) for i in range(count)})
        if count > 1
        else [last // 2]
    )


def _without_filling(sample: NDArray[Any]) -> NDArray[Any]:
    fillings: list[float] = [0]
    if np.issubdtype(sample.dtype, np.integer):
        fillings.append(np.iinfo(sample.dtype).max)
    for value in fillings:
        filled = sample == value
        if FILL_SHARE < filled.mean() < 1.0:
            sample = sample[~filled]
    return sample
