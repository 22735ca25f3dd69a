"""A volume zoomed out: from the coarsest copy that is fine enough, and never more than a bound.

Where there is no such copy, and what a part of the screen covers is too much to be read, some of
the parts in which the volume is decoded are read, and each stands for those around it: sections
are left out first, so that what lies in a section stays in its place as long as can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple, box_shape
from lib.volumes.readers.scales import UNIT, Factor

MOST_READ = 2**22
"""Voxels that are read for one request, or one part in which the volume is decoded."""
Edges = NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """A volume in one resolution.

    Args:
        shape: its extent.
        read: gives the voxels of a box.
        unit: voxels that are decoded together.
        factor: voxels of the finest level in one of this.
        start: where the finest level's first voxel begins, in voxels of this.
    """

    shape: Triple
    read: Callable[[Box], NDArray[Any]]
    unit: Triple = UNIT
    factor: Factor = (1.0, 1.0, 1.0)
    start: Factor = (0.0, 0.0, 0.0)

    def edges(self, axis: int, low: int, high: int, factor: int) -> Edges:
        """Where voxels low..high of an axis, `factor` of the finest each, begin and end here."""
        finest = np.arange(low, high + 1, dtype=np.float64) * factor
        here = np.floor(finest / self.factor[axis] + self.start[axis] + 1e-6).astype(np.int64)
        inside: Edges = here.clip(0, self.shape[axis])
        return inside


@dataclass(frozen=True)
class Span:
    """A stretch of an axis that is read.

    Args:
        wanted: of the result, the voxels that it gives.
        read: of the level.
        edges: where each voxel of the result begins and ends in `read`.
    """

    wanted: tuple[int, int]
    read: tuple[int, int]
    edges: Edges


def zoomed(levels: Sequence[Level], box: Box, factor: Triple, *, labels: bool) -> NDArray[Any]:
    """A box of a volume with several voxels as one.

    Args:
        levels: the volume and its coarser copies.
        box: in voxels of the result.
        factor: voxels of the volume in one of the result, along x, y, z.
        labels: whether voxels are ids: one stands for the others; intensities are averaged.

    Returns:
        (X, Y, Z) as the levels are.
    """
    fits = (e for e in levels if all(e.factor[a] < factor[a] + 0.01 for a in range(3)))
    level = max(fits, key=lambda e: prod(e.factor))
    spans = _spans([level.edges(a, *box[a], factor[a]) for a in range(3)], level)
    result: NDArray[Any] | None = None
    for part in product(*spans):
        a, b, c = (span.read for span in part)
        values = np.asarray(level.read((a, b, c)))
        if not labels:
            values = values.astype(np.float32)
        for axis, span in enumerate(part):
            values = (_one_of if labels else _mean)(values, axis, span.edges)
        if result is None:
            result = np.zeros(box_shape(box), values.dtype)
        result[tuple(slice(*span.wanted) for span in part)] = values
    assert result is not None
    return result


def _spans(edges: Sequence[Edges], level: Level) -> list[list[Span]]:
    """What to read along each axis: everything, or as many parts as the bound allows."""
    every = [1, 1, 1]
    while True:
        spans = [_along(edges[a], level.shape[a], level.unit[a], every[a]) for a in range(3)]
        read = [sum(_parts(s, level.unit[a]) for s in spans[a]) for a in range(3)]
        voxels = prod(n * u for n, u in zip(read, level.unit, strict=True))
        if voxels <= MOST_READ or max(read) == 1:
            return spans
        every[2 if read[2] > 1 else int(np.argmax(read))] *= 2


def _parts(span: Span, unit: int) -> int:
    """Parts that are decoded for a span."""
    low, high = span.read
    return -(-high // unit) - low // unit


def _along(edges: Edges, size: int, unit: int, every: int) -> list[Span]:
    """What is read along an axis: of each `every` parts the middle one; of 1, everything."""
    low = min(int(edges[0]), size - 1)
    high = max(int(edges[-1]), low + 1)
    if every == 1:
        return [Span((0, len(edges) - 1), (low, high), edges - low)]
    cells = edges[:-1].clip(low, high - 1) // (unit * every)
    spans = []
    for cell in np.unique(cells).tolist():
        first, last = np.searchsorted(cells, [cell, cell + 1]).tolist()
        start = max(low, cell * unit * every)
        stop = min(high, (cell + 1) * unit * every)
        middle = (start + stop) // 2 // unit * unit
        part = max(start, middle), min(stop, middle + unit)
        stretched = np.arange(last - first + 1) * (part[1] - part[0]) // (last - first)
        spans.append(Span((first, last), part, stretched))
    return spans


def _mean(values: NDArray[Any], axis: int, edges: Edges) -> NDArray[Any]:
    """Means of what lies between edges; one value where nothing does."""
    size = values.shape[axis]
    starts = edges[:-1].clip(max=size - 1)
    counts = np.maximum(np.diff(np.append(starts, size)), 1)
    line = [1, 1, 1]
    line[axis] = len(counts)
    found: NDArray[Any] = np.add.reduceat(values, starts, axis)
    found /= counts.reshape(line)
    return found


def _one_of(values: NDArray[Any], axis: int, edges: Edges) -> NDArray[Any]:
    """The middle one of the values between edges."""
    middle = (edges[:-1] + edges[1:]) // 2
    return values.take(middle.clip(max=values.shape[axis] - 1), axis)
