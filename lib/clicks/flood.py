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


def flood(
    shape: Triple,
    points: NDArray[np.int64],
    judge: Judge,
    device: torch.device,
    also: NDArray[np.bool_] | None = None,
) -> Tensor:
    """Logits of one window as far as the clicked object reaches.

    Args:
        shape: of the window.
        points: (P, 3) positive points inside, at least one.
        judge: of voxels; called for each at most once.
        device: on which to work. Where a look at intermediate results waits for the device
            (anything but a CPU), all blocks are judged at once.
        also: (x, y, z) voxels whose blocks are judged in any case.

    Returns:
        (x, y, z) float32, UNREACHED where nothing was judged.
    """
    grid = tuple(-(-n // b) for n, b in zip(shape, BLOCK, strict=True))
    logits = torch.full(shape, UNREACHED, device=device)
    if device.type != "cpu":
        _judge_blocks(logits, np.argwhere(np.ones(grid, bool)), judge)
        return logits
    wave = _blocks_of(points, shape, grid)
    if also is not None:
        wave |= _blocks_with(also, grid)
    seen = wave.copy()
    while wave.any():
        blocks = np.argwhere(wave)
        positive = _judge_blocks(logits, blocks, judge) > 0
        wave = _beyond(positive.numpy(), blocks, grid) & ~seen
        seen |= wave
    return logits


def _judge_blocks(logits: Tensor, blocks: NDArray[np.int64], judge: Judge) -> Tensor:
    """Fill the voxels of some blocks (N, 3).

    Returns:
        (N, *BLOCK) their logits, UNREACHED outside the window.
    """
    shape = logits.shape
    local = torch.cartesian_prod(*(torch.arange(b) for b in BLOCK))
    places = ((torch.from_numpy(blocks) * torch.tensor(BLOCK)).unsqueeze(1) + local).flatten(0, 1)
    values = torch.full((len(places),), UNREACHED, device=logits.device)
    inside: Tensor | slice = slice(None)
    if any(n % b for n, b in zip(shape, BLOCK, strict=True)):
        inside = (places < torch.tensor(shape)).all(1)
        places = places[inside]
    index = (places[:, 0] * shape[1] + places[:, 1]) * shape[2] + places[:, 2]
    index, places = index.to(logits.device), places.to(logits.device, torch.float32)
    found = judge(index, places)
    logits.view(-1)[index] = found
    values[inside] = found
    return values.view(-1, *BLOCK)


def _blocks_of(
    points: NDArray[np.int64], shape: Triple, grid: tuple[int, ...]
) -> NDArray[np.bool_]:
    wave = np.zeros(grid, bool)
    for point in points:
        low = (np.maximum(point - REACH, 0) // BLOCK).tolist()
        high = (np.minimum(point + REACH, np.array(shape) - 1) // BLOCK + 1).tolist()
        wave[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return wave


def _blocks_with(voxels: NDArray[np.bool_], grid: tuple[int, ...]) -> NDArray[np.bool_]:
    """Blocks of the grid that hold some of the voxels (x, y, z)."""
    room = [(0, g * b - n) for g, b, n in zip(grid, BLOCK, voxels.shape, strict=True)]
    (a, b, c), (x, y, z) = grid, BLOCK
    blocks: NDArray[np.bool_] = np.pad(voxels, room).reshape(a, x, b, y, c, z).any((1, 3, 5))
    return blocks


def _beyond(
    positive: NDArray[np.bool_], blocks: NDArray[np.int64], grid: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Blocks of the grid next to a face on which a voxel is positive.

    Args:
        positive: (N, *BLOCK) voxels of some blocks.
        blocks: (N, 3) their places.
    """
    found = np.zeros([n + 2 for n in grid], bool)
    for axis in range(3):
        for side, face in ((-1, 0), (1, -1)):
            hit = positive.take(face, axis + 1).any((1, 2))
            beyond = blocks[hit] + 1
            beyond[:, axis] += side
            found[tuple(beyond.T)] = True
    return found[1:-1, 1:-1, 1:-1]
