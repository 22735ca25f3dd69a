"""Which windows a list of clicks needs: on a lattice, so that features are found again.

A window depends on a click's place only, never on what was computed before: every list of
clicks has one answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple, box_shape, contains

LATTICE = 4
"""Windows start at multiples of a quarter of their size: a click is near its window's middle."""
GROWTH = 3
"""Quarters by which a grown window is moved: neighbours share a quarter, where they meet."""


def window_at(point: Sequence[int], size: Triple, shape: Triple) -> Box:
    """The window whose middle is nearest to a point.

    Args:
        point: voxel inside the volume.
        size: of the window; cut to the volume where it is larger.
        shape: of the volume.
    """
    spans = []
    for p, wanted, n in zip(point, size, shape, strict=True):
        length = min(wanted, n)
        unit = max(1, length // LATTICE)
        start = math.floor((p - (length - 1) / 2) / unit + 0.5) * unit
        start = min(max(start, 0), n - length)
        spans.append((start, start + length))
    return spans[0], spans[1], spans[2]


def neighbours(box: Box, shape: Triple) -> Iterator[tuple[int, int, Box]]:
    """The windows an object can go on into: (axis, side -1 or 1, window), inside the volume."""
    for axis, (low, high) in enumerate(box):
        step = GROWTH * max(1, (high - low) // LATTICE)
        for side in (-1, 1):
            start = min(max(low + side * step, 0), shape[axis] - (high - low))
            if start != low:
                spans = list(box)
                spans[axis] = (start, start + high - low)
                yield axis, side, (spans[0], spans[1], spans[2])


def comfortable(point: Sequence[int], box: Box, shape: Triple) -> bool:
    """Whether a point has room around it in a window: an eighth of it, or the volume's border."""
    for p, (low, high), n in zip(point, box, shape, strict=True):
        room = (high - low) // 8
        if not (low == 0 or p >= low + room) or not (high == n or p < high - room):
            return False
        if not low <= p < high:
            return False
    return True


def click_windows(points: Sequence[Sequence[int]], size: Triple, shape: Triple) -> list[Box]:
    """The windows of some points: one for the first, more only where a point has no room."""
    boxes: list[Box] = []
    for point in points:
        if not any(comfortable(point, box, shape) for box in boxes):
            boxes.append(window_at(point, size, shape))
    return boxes


def growth_limit(box: Box, limit: Triple, shape: Triple) -> Box:
    """How far windows may grow: a box of `limit` voxels around a first one, moved inside."""
    spans = []
    for (low, high), wanted, n in zip(box, limit, shape, strict=True):
        most = min(max(wanted, high - low), n)
        start = min(max((low + high - most) // 2, 0), n - most)
        spans.append((start, start + most))
    return spans[0], spans[1], spans[2]


def touches(mask: NDArray[np.bool_], axis: int, side: int) -> bool:
    """Whether an object reaches a face of its window, where the network sees little around it."""
    depth = max(1, mask.shape[axis] // 32)
    slab = range(depth) if side < 0 else range(mask.shape[axis] - depth, mask.shape[axis])
    return bool(mask.take(slab, axis).any())


def may_grow(box: Box, limit: Box) -> bool:
    """Whether a window lies within the limit."""
    return contains(limit, box)


def centrality(box: Box, shape: Triple) -> NDArray[np.float32]:
    """(x, y, z) weight of a window's voxels where windows overlap: more, the farther inside.

    A face at the volume's border does not count: nothing is missing there.
    """
    weight = np.ones(box_shape(box), np.float32)
    for axis, ((low, high), n) in enumerate(zip(box, shape, strict=True)):
        place = np.arange(high - low, dtype=np.float32)
        ramp = np.full(high - low, np.float32(high - low))
        if low > 0:
            ramp = np.minimum(ramp, place + 1)
        if high < n:
            ramp = np.minimum(ramp, place[::-1] + 1)
        view = [1, 1, 1]
        view[axis] = -1
        weight *= ramp.reshape(view)
    return weight
