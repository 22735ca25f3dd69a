"""The grid of regions that an annotator can be sent to, and sums over its cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class RegionGrid:
    """A volume cut into boxes of nearly equal size.

    Regions are numbered in C order of their cell (x, y, z).

    Args:
        edges: along each axis, ascending from 0 to the volume's size.
    """

    edges: Edges

    @staticmethod
    def of(shape: Triple, region: Triple) -> RegionGrid:
        """Cut a volume of `shape` into cells of at most `region` voxels a side."""
        rows = []
        for n, size in zip(shape, region, strict=True):
            count = math.ceil(n / size)
            rows.append(np.array([round(i * n / count) for i in range(count + 1)], np.int64))
        return RegionGrid((rows[0], rows[1], rows[2]))

    @property
    def shape(self) -> Triple:
        """Of the volume, voxels."""
        x, y, z = (int(e[-1]) for e in self.edges)
        return x, y, z

    @property
    def cells(self) -> Triple:
        """Number of regions along each axis."""
        x, y, z = (len(e) - 1 for e in self.edges)
        return x, y, z

    @property
    def count(self) -> int:
        """Number of regions."""
        return math.prod(self.cells)

    @cached_property
    def voxels(self) -> NDArray[np.int64]:
        """(R,) voxels of each region."""
        x, y, z = (np.diff(e) for e in self.edges)
        return np.asarray((x[:, None, None] * y[:, None] * z).reshape(-1))

    def box(self, region: int) -> Box:
        """The voxels of a region."""
        cell = np.unravel_index(region, self.cells)
        x, y, z = ((int(e[i]), int(e[i + 1])) for e, i in zip(self.edges, cell, strict=True))
        return x, y, z

    def overlapping(self, box: Box) -> NDArray[np.int64]:
        """Numbers of the regions that share voxels with a box."""
        spans = [
            np.flatnonzero((e[:-1] < high) & (e[1:] > low))
            for e, (low, high) in zip(self.edges, box, strict=True)
        ]
        return np.asarray(
            np.ravel_multi_index(np.meshgrid(*spans, indexing="ij"), self.cells).reshape(-1)
        )

    def sums(self, values: NDArray[np.float32], box: Box) -> NDArray[np.float64]:
        """What a box of values adds to each region's sum.

        Args:
            values: (K, *box shape).
            box: where they lie.

        Returns:
            (K, R) float64.
        """
        out = values
        for axis, (low, high) in enumerate(box):
            where = np.searchsorted(self.edges[axis], np.arange(low, high), side="right") - 1
            bins = np.zeros((self.cells[axis], high - low), np.float32)
            bins[where, np.arange(high - low)] = 1.0
            # The first spatial axis goes and its bins come last: after three passes the
            # order is x, y, z again.
            out = np.tensordot(out, bins, (1, 1))
        return np.asarray(out.reshape(values.shape[0], -1), np.float64)


def centre(box: Box) -> Triple:
    """The middle voxel of a box."""
    x, y, z = ((low + high - 1) // 2 for low, high in box)
    return x, y, z
