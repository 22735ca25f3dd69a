"""Sliding windows with blending over a lazily read volume, in bounded memory.

The grid of windows belongs to the whole volume, and every voxel adds up its windows in one
order, so the result does not depend on how the volume is cut into tiles: computing a tile
needs exactly the windows that touch it. Inside a tile the windows march along the last axis;
planes that no further window reaches are blended, handed over and forgotten. At no time are
more than one tile's channels of one window's depth in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.prediction.window_grid import Span, WindowGrid
from lib.volumes.boxes import Box, Triple, whole_box

Outputs = Mapping[str, Tensor]


class LazyVolume(Protocol):
    """What can be read in pieces: a memory map, a tensorstore, an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> Any: ...


@dataclass
class WindowRun:
    """One pass of a predictor over a volume.

    Args:
        grid: where the windows lie.
        evaluate: B windows -> named outputs (B, C, *window).
        consume: takes a box and its blended outputs (C, *box), float32, on `device`. Boxes
            do not overlap and together are the volume, or the part of it that is wanted.
        channels: all channels of all outputs together, to bound the memory.
        device: where windows are predicted and blended.
        tile_bytes: most bytes of outputs held at once (never less than one window's).
        batch_size: windows predicted at once.
        pair_offsets: outputs whose channel a at voxel v speaks of the pair (v, v + offset a):
            pairs that leave the window have no weight, and a pair's weight is the mean
            (geometric) of its two voxels' weights.
        progress: called with (windows done, windows in all).
        box: the part of the volume that is wanted; None: all of it. Its outputs are those of
            a run over everything, and only windows that touch it are evaluated.
    """

    grid: WindowGrid
    evaluate: Callable[[Sequence[Box]], Outputs]
    consume: Callable[[Box, Outputs], None]
    channels: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    tile_bytes: int = 2**30
    batch_size: int = 1
    pair_offsets: Mapping[str, Sequence[Triple]] = field(default_factory=dict)
    progress: Callable[[int, int], None] | None = None
    box: Box | None = None

    def run(self) -> None:
        """Predict, blend and hand over what is wanted."""
        tiles = list(self._tiles())
        total = sum(len(self._columns(tile)) for tile in tiles) * len(self._levels())
        done = 0
        with torch.inference_mode():
            for tile in tiles:
                for fresh in self._run_tile(tile):
                    done += fresh
                    if self.progress is not None:
                        self.progress(done, total)

    @property
    def _wanted(self) -> Box:
        return self.box if self.box is not None else whole_box(self.grid.shape)

    def _levels(self) -> list[int]:
        return self.grid.touching(2, self._wanted[2])

    def _tiles(self) -> Iterator[tuple[Span, Span]]:
        """Cut x and y so that a tile's outputs fit the memory, into tiles of like size."""
        window, spans = self.grid.window, self._wanted[:2]
        most = max(self.tile_bytes // (4 * self.channels * window[2]), 1)
        parts = [1, 1]
        whole = [high - low for low, high in spans]
        size = list(whole)
        while size[0] * size[1] > most and (size[0] > window[0] or size[1] > window[1]):
            axis = 0 if size[0] / window[0] >= size[1] / window[1] else 1
            parts[axis] += 1
            size[axis] = math.ceil(whole[axis] / parts[axis])
        cuts = [
            [(a, min(a + step, high)) for a in range(low, high, step)]
            for (low, high), step in zip(spans, size, strict=True)
        ]
        return itertools.product(cuts[0], cuts[1])

    def _columns(self, tile: tuple[Span, Span]) -> list[tuple[int, int]]:
        xs, ys = (self.grid.touching(axis, tile[axis]) for axis in (0, 1))
        return list(itertools.product(xs, ys))

    def _run_tile(self, tile: tuple[Span, Span]) -> Iterator[int]:
        grid = self.grid
        depth, levels = grid.window[2], self._levels()
        first_plane, end = self._wanted[2]
        columns = self._columns(tile)
        sums: dict[str, Tensor] = {}
        for level, z in enumerate(levels):
            for first in range(0, len(columns), self.batch_size):
                corners = [(x, y, z) for x, y in columns[first : first + self.batch_size]]
                for corner, outputs in zip(corners, self._predict(corners), strict=True):
                    self._add(sums, outputs, corner, tile)
                yield len(corners)
            last = level + 1 == len(levels)
            ready = end - z if last else levels[level + 1] - z
            skipped = max(0, first_plane - z)  # planes of the first windows before the part
            box = (tile[0], tile[1], (z + skipped, z + ready))
            if ready > skipped:
                found = {n: s[..., skipped:ready] for n, s in sums.items()}
                self.consume(box, {n: s / self._weight(n, box) for n, s in found.items()})
            for name, total in sums.items():
                shifted = torch.zeros_like(total)
                shifted[..., : depth - ready] = total[..., ready:]
                sums[name] = shifted

    def _predict(self, corners: list[Triple]) -> Iterator[dict[str, Tensor]]:
        outputs = self.evaluate([self.grid.box(corner) for corner in corners])
        for i in range(len(corners)):
            yield {name: out[i].float() for name, out in outputs.items()}

    def _add(
        self,
        sums: dict[str, Tensor],
        outputs: Mapping[str, Tensor],
        corner: Triple,
        tile: tuple[Span, Span],
    ) -> None:
        """Add one window's weighted outputs to the tile, where they lie in it."""
        inside, target = [], []
        for axis in (0, 1):
            low = max(tile[axis][0], corner[axis])
            high = min(tile[axis][1], corner[axis] + self.grid.window[axis])
            inside.append(slice(low - corner[axis], high - corner[axis]))
            target.append(slice(low - tile[axis][0], high - tile[axis][0]))
        for name, out in outputs.items():
            if name not in sums:
                size = [b - a for a, b in tile]
                sums[name] = out.new_zeros((out.shape[0], *size, self.grid.window[2]))
            wx, wy, wz = (self._axis_weight(name, a).to(out.device) for a in range(3))
            weighted = out[:, inside[0], inside[1]] * (
                wx[:, inside[0], None, None] * wy[:, None, inside[1], None] * wz[:, None, None]
            )
            sums[name][:, target[0], target[1]] += weighted

    def _axis_weight(self, name: str, axis: int) -> Tensor:
        """(C or 1, window) the blending weight along one axis, for each channel.

        A single voxel has no pairs: no channel then.
        """
        weight = self.grid.axis_weights[axis]
        rows = [_pair_weight(weight, o[axis]) for o in self.pair_offsets.get(name, [(0, 0, 0)])]
        return torch.from_numpy(np.array(rows, np.float32).reshape(-1, len(weight)))

    def _weight(self, name: str, box: Box) -> Tensor:
        """(C or 1, *box) the sum of the weights of all windows: a product, as the grid is."""
        sums = []
        for axis, (low, high) in enumerate(box):
            rows = self._axis_weight(name, axis)
            size = self.grid.window[axis]
            total = torch.zeros((rows.shape[0], self.grid.shape[axis]))
            for start in self.grid.starts[axis]:
                total[:, start : start + size] += rows
            sums.append(total[:, low:high].to(self.device))
        weight = sums[0][:, :, None, None] * sums[1][:, None, :, None] * sums[2][:, None, None]
        # a pair that no window holds has no evidence: its output becomes 0
        return torch.where(weight > 0, weight, torch.inf)


def _pair_weight(weight: NDArray[np.float32], offset: int) -> NDArray[np.float32]:
    """Weights of the pairs (i, i + offset) along one axis; 0 where the pair leaves it."""
    pair = np.zeros_like(weight)
    size = len(weight)
    if abs(offset) < size:
        here = slice(max(0, -offset), min(size, size - offset))
        there = slice(here.start + offset, here.stop + offset)
        pair[here] = np.sqrt(weight[here] * weight[there])
    return pair
