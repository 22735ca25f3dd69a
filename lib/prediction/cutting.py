"""Overlapping blocks: how a volume is cut."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lib.volumes.boxes import Box

Size = tuple[int, int, int]


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
