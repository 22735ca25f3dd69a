"""Where the windows of a volume lie: fitted to it, each with a blending weight.

Source: blending by a Gaussian of the window as in MONAI's `sliding_window_inference`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple

Span = tuple[int, int]

SIGMA_SHARE = 0.125
"""Standard deviation of the blending weight as a share of the window (MONAI's default)."""

LARGER, LONGER = 1.25, 1.5
"""So many times a window may have the wanted voxels, and along one axis the wanted length."""
EVEN = 4
"""Windows that are fitted to a volume have a multiple of so many voxels."""

LEAST_WEIGHT = 1e-3
"""Along each axis, so that corners of the volume still get a weight above zero."""


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of a volume lie: a product of starts along each axis.

    Args:
        shape: of the volume.
        window: size of every window, at most the volume's.
        starts: ascending starts along each axis; together the windows cover the volume.
    """

    shape: Triple
    window: Triple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @cached_property
    def axis_weights(self) -> tuple[NDArray[np.float32], ...]:
        """The blending weight along each axis; a voxel's weight is their product."""
        weights = []
        for size in self.window:
            centre, sigma = (size - 1) / 2, max(size * SIGMA_SHARE, 1e-6)
            bell = np.exp(-0.5 * ((np.arange(size) - centre) / sigma) ** 2)
            weights.append(np.maximum(bell, LEAST_WEIGHT).astype(np.float32))
        return tuple(weights)

    @property
    def count(self) -> int:
        """How many windows there are."""
        return math.prod(len(s) for s in self.starts)

    def box(self, start: Triple) -> Box:
        """The window that begins at a voxel."""
        spans = [(a, a + size) for a, size in zip(start, self.window, strict=True)]
        return spans[0], spans[1], spans[2]

    def boxes(self) -> Iterator[Box]:
        """All windows, the last axis fastest."""
        return (self.box(start) for start in itertools.product(*self.starts))

    def cores(self) -> Iterator[tuple[Box, Box]]:
        """(window, the part of it that no other window is nearer to); the parts tile the volume."""
        return (
            ((x[0], y[0], z[0]), (x[1], y[1], z[1]))
            for x, y, z in itertools.product(*(self._axis_cores(axis) for axis in range(3)))
        )

    def _axis_cores(self, axis: int) -> list[tuple[Span, Span]]:
        """Along one axis: each window, and the part of it that no neighbour is nearer to."""
        starts, size, n = self.starts[axis], self.window[axis], self.shape[axis]
        cuts = [(a + b + size) // 2 for a, b in itertools.pairwise(starts)]
        edges = [0, *cuts, n]
        return [((s, s + size), (edges[i], edges[i + 1])) for i, s in enumerate(starts)]

    def touching(self, axis: int, span: Span) -> list[int]:
        """Starts along an axis whose windows share voxels with a span."""
        size = self.window[axis]
        return [s for s in self.starts[axis] if s < span[1] and s + size > span[0]]


def window_grid(shape: Sequence[int], window: Sequence[int], overlap: float) -> WindowGrid:
    """Spread windows evenly over a volume, fitted to it: they repeat little more than they must.

    Args:
        shape: (X, Y, Z) of the volume.
        window: (x, y, z) wanted. Windows are no larger, but for an axis that is then done in one
            window less, where the others leave room.
        overlap: least share of a wanted window that neighbours repeat, 0 to below 1.

    Raises:
        ValueError: an axis of the volume is empty.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"expected a volume (X, Y, Z) with voxels, found shape {tuple(shape)}")
    room = LARGER * math.prod(window)
    ways = itertools.product(*(_fitted(n, w, overlap) for n, w in zip(shape, window, strict=True)))
    fitting = [way for way in ways if math.prod(size for size, _ in way) <= room]
    best = min(fitting, key=lambda way: math.prod(size * count for size, count in way))
    starts = [
        tuple(round(i * (n - size) / max(count - 1, 1)) for i in range(count))
        for n, (size, count) in zip(shape, best, strict=True)
    ]
    return WindowGrid(
        (int(shape[0]), int(shape[1]), int(shape[2])),
        (best[0][0], best[1][0], best[2][0]),
        (starts[0], starts[1], starts[2]),
    )


def _fitted(n: int, wanted: int, overlap: float) -> list[tuple[int, int]]:
    """(size, count) of the windows along an axis: as many as wanted ones, and maybe one less."""
    largest = min(n, wanted)
    step = max(1, int(largest * (1 - overlap)))
    repeated = largest - step
    count = math.ceil((n - largest) / step) + 1

    def fitted(count: int, most: int) -> tuple[int, int]:
        least = math.ceil((n + (count - 1) * repeated) / count)
        size = min(n, most, EVEN * math.ceil(least / EVEN))
        return size, math.ceil((n - size) / (size - repeated)) + 1  # rounded up, fewer may do

    ways = [fitted(count, largest)]
    if count > 1 and wanted > 1:
        ways.append(fitted(count - 1, n))
    return [way for way in ways if way[0] <= LONGER * wanted]
