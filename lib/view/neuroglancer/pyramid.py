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
        holds: whether anything of a box is stored.
    """

    shape: Triple
    read: Callable[[Box], NDArray[Any]]
    unit: Triple = UNIT
    factor: Factor = (1.0, 1.0, 1.0)
    start: Factor = (0.0, 0.0, 0.0)
    holds: Callable[[Box], bool] = lambda box: True

    def edges(self, axis: int, low: int, high: int, factor: int) -> Edges:
        """Where voxels low..high of an axis, `factor` of the finest each, begin and end here."""
        finest = np.arange(low, high + 1, dtype=np.float64) * factor
        here = np.floor(finest / self.factor[axis] + self.start[axis] + 1e-6).astype(np.int64)
        inside: Edges = here.clip(0, self.shape[axis])
        return inside


@dataclass(frozen=True)
class Span:
    """A stretch of an axis.

    Args:
        wanted: voxels of the result.
        here: what they cover, in voxels of the level.
        edges: where each of them begins and ends in `here`; None: a part of it stands for all.
    """

    wanted: tuple[int, int]
    here: tuple[int, int]
    edges: Edges | None = None

    def edges_in(self, size: int) -> Edges:
        """Where each voxel of the result begins and ends in what was read."""
        if self.edges is not None:
            return self.edges
        count = self.wanted[1] - self.wanted[0]
        return np.arange(count + 1) * size // count


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
    for x, y, z in product(*spans):
        part = _part_of(level, (x, y, z))
        values = np.asarray(level.read(part))
        if not labels:
            values = values.astype(np.float32)
        for axis, span in enumerate((x, y, z)):
            edges = span.edges_in(values.shape[axis])
            values = (_one_of if labels else _mean)(values, axis, edges)
        if result is None:
            result = np.zeros(box_shape(box), values.dtype)
        result[tuple(slice(*span.wanted) for span in (x, y, z))] = values
    assert result is not None
    return result


def _part_of(level: Level, spans: tuple[Span, Span, Span]) -> Box:
    """What is read for some spans: of what is thinned one part, the middle or a stored one."""
    boxes = [span.here for span in spans]
    thinned = [span.edges is None for span in spans]
    middle = [
        _middle(b, unit) if some else b
        for b, unit, some in zip(boxes, level.unit, thinned, strict=True)
    ]
    one: Box = (middle[0], middle[1], middle[2])
    if level.holds(one) or not level.holds((boxes[0], boxes[1], boxes[2])):
        return one
    while True:  # halve it, and keep a half in which something is stored
        parts = [_parts(boxes[a], level.unit[a]) if thinned[a] else 1 for a in range(3)]
        axis = int(np.argmax(parts))
        if parts[axis] == 1:
            return boxes[0], boxes[1], boxes[2]
        low, high = boxes[axis]
        cut = (low // level.unit[axis] + parts[axis] // 2) * level.unit[axis]
        boxes[axis] = (low, cut)
        if not level.holds((boxes[0], boxes[1], boxes[2])):
            boxes[axis] = (cut, high)


def _middle(here: tuple[int, int], unit: int) -> tuple[int, int]:
    """The middle part of a stretch."""
    start, stop = here
    low = (start + stop) // 2 // unit * unit
    return max(start, low), min(stop, low + unit)


def _spans(edges: Sequence[Edges], level: Level) -> list[list[Span]]:
    """What to read along each axis: everything, or as many parts as the bound allows."""
    every = [1, 1, 1]
    while True:
        spans = [_along(edges[a], level.shape[a], level.unit[a], every[a]) for a in range(3)]
        read = [_read(spans[a], level.unit[a]) for a in range(3)]
        voxels = prod(n * u for n, u in zip(read, level.unit, strict=True))
        if voxels <= MOST_READ or max(read) == 1:
            return spans
        every[2 if read[2] > 1 else int(np.argmax(read))] *= 2


def _read(spans: Sequence[Span], unit: int) -> int:
    """Parts that are decoded for some spans."""
    return sum(1 if s.edges is None else _parts(s.here, unit) for s in spans)


def _parts(here: tuple[int, int], unit: int) -> int:
    """Parts that a stretch touches."""
    return -(-here[1] // unit) - here[0] // unit


def _along(edges: Edges, size: int, unit: int, every: int) -> list[Span]:
    """What is read along an axis: one part in `every`; of 1, everything."""
    low = min(int(edges[0]), size - 1)
    high = max(int(edges[-1]), low + 1)
    if every == 1:
        return [Span((0, len(edges) - 1), (low, high), edges - low)]
    cell = unit * every
    cells = edges[:-1].clip(low, high - 1) // cell
    spans = []
    for n in np.unique(cells).tolist():
        first, last = np.searchsorted(cells, [n, n + 1]).tolist()
        spans.append(Span((first, last), (max(low, n * cell), min(high, (n + 1) * cell))))
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
