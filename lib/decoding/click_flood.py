"""Which voxels of a window a click has to judge: block by block, as far as the object reaches.

The answer is connected to a positive point. Blocks are judged from the points outward, and a
neighbour only where a voxel on the face towards it is positive: the cost follows the object,
not the window, and the connected object is exactly that of judging every voxel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.volumes.boxes import Triple

BLOCK: Final = (16, 16, 4)
REACH: Final = (2, 2, 1)
"""A click paints the 3 x 3 voxels around it, and the object goes on from those."""
UNREACHED: Final = -math.inf
"""Logit of voxels that were not judged: no opinion, and not the object."""

Judge = Callable[[Tensor, Tensor], Tensor]
"""Flat voxels (M,) int64 of the window and their places (M, 3) float32 -> logits (M,)."""


def flood(shape: Triple, points: NDArray[np.int64], judge: Judge, device: torch.device) -> Tensor:
    """Logits of one window as far as the clicked object reaches.

    Args:
        shape: of the window.
        points: (P, 3) positive points inside, at least one.
        judge: of voxels; called for each at most once.
        device: on which to work. Where a look at intermediate results waits for the device
            (anything but a CPU), all blocks are judged at once.

    Returns:
        (x, y, z) float32, UNREACHED where nothing was judged.
    """
    grid = tuple(-(-n // b) for n, b in zip(shape, BLOCK, strict=True))
    logits = torch.full(shape, UNREACHED, device=device)
    if device.type != "cpu":
        _judge_blocks(logits, np.argwhere(np.ones(grid, bool)), judge)
        return logits
    wave = _blocks_of(points, shape, grid)
    seen = wave.copy()
    while wave.any():
        _judge_blocks(logits, np.argwhere(wave), judge)
        wave = _beyond(logits.numpy(), wave) & ~seen
        seen |= wave
    return logits


def _judge_blocks(logits: Tensor, blocks: NDArray[np.int64], judge: Judge) -> None:
    """Fill the voxels of some blocks (N, 3)."""
    shape = logits.shape
    size = torch.tensor(BLOCK)
    local = torch.cartesian_prod(*(torch.arange(b) for b in BLOCK))
    places = ((torch.from_numpy(blocks) * size).unsqueeze(1) + local).flatten(0, 1)
    if any(n % b for n, b in zip(shape, BLOCK, strict=True)):
        places = places[(places < torch.tensor(shape)).all(1)]
    index = (places[:, 0] * shape[1] + places[:, 1]) * shape[2] + places[:, 2]
    index, places = index.to(logits.device), places.to(logits.device, torch.float32)
    logits.view(-1)[index] = judge(index, places)


def _blocks_of(
    points: NDArray[np.int64], shape: Triple, grid: tuple[int, ...]
) -> NDArray[np.bool_]:
    wave = np.zeros(grid, bool)
    for point in points:
        low = (np.maximum(point - REACH, 0) // BLOCK).tolist()
        high = (np.minimum(point + REACH, np.array(shape) - 1) // BLOCK + 1).tolist()
        wave[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return wave


def _beyond(logits: NDArray[np.float32], wave: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Blocks next to a face of a block of `wave` on which a voxel is positive."""
    where = [np.flatnonzero(wave.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    first = [int(w[0]) for w in where]
    count = [int(w[-1]) + 1 - f for w, f in zip(where, first, strict=True)]
    spans = tuple(slice(f * b, (f + c) * b) for f, c, b in zip(first, count, BLOCK, strict=True))
    inside = logits[spans] > 0
    missing = [c * b - n for c, b, n in zip(count, BLOCK, inside.shape, strict=True)]
    if any(missing):
        inside = np.pad(inside, [(0, m) for m in missing])
    blocks = inside.reshape([n for pair in zip(count, BLOCK, strict=True) for n in pair])
    here = wave[tuple(slice(f, f + c) for f, c in zip(first, count, strict=True))]
    found = np.zeros([n + 2 for n in wave.shape], bool)
    for axis in range(3):
        for side, face in ((-1, 0), (1, -1)):
            plane = blocks.take([face], 2 * axis + 1).any((1, 3, 5)) & here
            at = [slice(1 + f, 1 + f + c) for f, c in zip(first, count, strict=True)]
            at[axis] = slice(at[axis].start + side, at[axis].stop + side)
            found[tuple(at)] |= plane
    return found[1:-1, 1:-1, 1:-1]
