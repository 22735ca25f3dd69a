"""Overlapping blocks: how a volume is cut, and which objects of two blocks are one.

Objects are matched by their voxels in the overlap. Joining whatever overlaps at all chains
whole volumes into one object; matching demands that the two agree on most of their voxels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.metrics.object_scores import contingency
from lib.volumes.boxes import Box

Size = tuple[int, int, int]

SAME_IOU = 0.5
"""From this IoU in the overlap on, two objects are one."""
MUTUAL_SHARE = 0.5
"""Or when each is the other's best partner and they share so much of the smaller one."""


@dataclass(frozen=True)
class Block:
    """One block of a cut volume.

    Args:
        index: its place along each axis.
        outer: the box that is segmented.
        core: the box that is written; cores do not overlap and cover the volume.
    """

    index: Size
    outer: Box
    core: Box

    def previous(self) -> list[Size]:
        """Indices of the blocks before it along each axis."""
        return [self._step(axis, -1) for axis in range(3) if self.index[axis] > 0]

    def following(self) -> list[Size]:
        """Indices that blocks after it along each axis would have."""
        return [self._step(axis, 1) for axis in range(3)]

    def _step(self, axis: int, by: int) -> Size:
        x, y, z = (i + by * (a == axis) for a, i in enumerate(self.index))
        return x, y, z


def cut_blocks(shape: Sequence[int], block: Sequence[int], overlap: Sequence[int]) -> list[Block]:
    """Cut a volume into blocks of like size that overlap.

    Args:
        shape: (X, Y, Z) of the volume.
        block: largest outer size.
        overlap: voxels that neighbours share, less than half a block.

    Returns:
        Blocks in order of their index.
    """
    axes = []
    for n, size, shared in zip(shape, block, overlap, strict=True):
        assert size > 2 * shared, (block, overlap)
        count = max(1, math.ceil((n - shared) / (size - shared)))
        while max(b - a for _, (a, b), _ in _spans(n, count, shared)) > size:
            count += 1  # inner blocks overlap on both sides
        axes.append(_spans(n, count, shared))
    return [
        Block((x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2]))
        for x, y, z in itertools.product(*axes)
    ]


def _spans(n: int, count: int, shared: int) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """(index, outer span, core span) of `count` blocks along an axis of n voxels."""
    edges = [round(i * n / count) for i in range(count + 1)]
    below, above = shared // 2, shared - shared // 2
    return [
        (i, (max(a - below, 0), min(b + above, n)), (a, b))
        for i, (a, b) in enumerate(itertools.pairwise(edges))
    ]


def same_objects(
    one: NDArray[np.integer[Any]], other: NDArray[np.integer[Any]]
) -> list[tuple[int, int]]:
    """Objects of two segmentations of the same voxels that are one object.

    Args:
        one: (*S) ids, 0 none.
        other: (*S) ids, 0 none.

    Returns:
        (id in one, id in other), ascending.
    """
    table = contingency(one, other)
    sizes_one = _sizes(table.truth, table.counts)
    sizes_other = _sizes(table.guess, table.counts)
    both = (table.truth > 0) & (table.guess > 0)
    triples = list(
        zip(
            table.truth[both].tolist(),
            table.guess[both].tolist(),
            table.counts[both].tolist(),
            strict=True,
        )
    )
    best_one, best_other = _best(triples), _best([(b, a, n) for a, b, n in triples])
    joined = []
    for a, b, shared in triples:
        iou = shared / (sizes_one[a] + sizes_other[b] - shared)
        mutual = best_one[a] == b and best_other[b] == a
        most = shared >= MUTUAL_SHARE * min(sizes_one[a], sizes_other[b])
        if iou >= SAME_IOU or (mutual and most):
            joined.append((a, b))
    return sorted(joined)


class UnionFind:
    """Sets of ids that are joined; the smallest id stands for its set. Id 0 is "none"."""

    def __init__(self) -> None:
        self.parent = [0]

    def grow(self, count: int) -> int:
        """Add ids; returns the last id before them."""
        last = len(self.parent) - 1
        self.parent.extend(range(last + 1, last + 1 + count))
        return last

    def find(self, i: int) -> int:
        """The smallest id of the set of i."""
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Make the sets of i and j one."""
        a, b = self.find(i), self.find(j)
        self.parent[max(a, b)] = min(a, b)

    def roots(self) -> NDArray[np.uint32]:
        """For each id the smallest id of its set."""
        return np.array([self.find(i) for i in range(len(self.parent))], np.uint32)


def _sizes(ids: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for i, n in zip(ids.tolist(), counts.tolist(), strict=True):
        sizes[i] = sizes.get(i, 0) + n
    return sizes


def _best(triples: Sequence[tuple[int, int, int]]) -> dict[int, int]:
    """For each first id the second id it shares most voxels with (the smaller id on a tie)."""
    best: dict[int, tuple[int, int]] = {}
    for a, b, shared in triples:
        if a not in best or (shared, -b) > best[a]:
            best[a] = (shared, -b)
    return {a: -b for a, (_, b) in best.items()}
