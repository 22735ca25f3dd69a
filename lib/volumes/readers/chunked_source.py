"""An array of a chunked container, read through tensorstore."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple, intersect, whole_box
from lib.volumes.readers.axes import Axes
from lib.volumes.readers.precomputed_chunks import PrecomputedChunks
from lib.volumes.readers.remote import is_remote
from lib.volumes.readers.stored import stored_chunks
from lib.volumes.readers.stored_chunks import count_chunks, nothing_stored
from lib.volumes.source import Source, SourceInfo, Stored


class ChunkedSource(Source):
    """A tensorstore array.

    Args:
        store: the opened array.
        axes: the array's dimensions that are x, y, z; None for one it does not have.
        chunks: the chunks of a Precomputed volume, of which tensorstore tells nothing.
    """

    def __init__(
        self, info: SourceInfo, store: Any, axes: Axes, chunks: PrecomputedChunks | None = None
    ) -> None:
        super().__init__(info)
        self._store, self._axes, self._chunks = store, axes, chunks

    @property
    def chunk(self) -> Triple:
        """Voxels that are decoded together."""
        shape = self._store.chunk_layout.read_chunk.shape or self._store.shape
        x, y, z = (1 if a is None else int(shape[a]) for a in self._axes)
        return x, y, z

    def stored(self, box: Box) -> Stored:
        """How many of a box's chunks there are."""
        low, high = self._corners(box)
        if self._chunks is not None:
            return self._chunks.stored(low, high)
        return count_chunks(self._store, low, high)

    def holds(self, box: Box) -> bool:
        """Whether a chunk of a box is on the disk; True elsewhere, and of Precomputed."""
        if self._chunks is not None or is_remote(self.info.path):
            return True
        low, high = self._corners(box)
        return not nothing_stored(self._store[tuple(map(slice, low, high))])

    def _corners(self, box: Box) -> tuple[list[int], list[int]]:
        """A box in the array's own coordinates."""
        low = [int(m) for m in self._store.domain.inclusive_min]
        high = [m + 1 for m in low]
        for axis, (start, stop) in zip(self._axes, box, strict=True):
            if axis is not None:
                low[axis], high[axis] = low[axis] + start, low[axis] + stop
        return low, high

    def _read(self, box: Box) -> NDArray[Any]:
        low, high = self._corners(box)
        index = [
            slice(a, b) if i in self._axes else a
            for i, (a, b) in enumerate(zip(low, high, strict=True))
        ]
        packed = self._chunks is not None and self._chunks.packed
        store = self._chunks.unpack(low, high) if self._chunks and packed else self._store
        voxels = np.asarray(store[tuple(index)].read().result())
        kept = sorted(a for a in self._axes if a is not None)
        present = [kept.index(a) for a in self._axes if a is not None]
        voxels = voxels.transpose(present)
        missing = tuple(i for i, a in enumerate(self._axes) if a is None)
        return np.expand_dims(voxels, missing) if missing else voxels

    def stored_boxes(self, limit: int) -> list[Box]:
        """Boxes of the chunks (shards) that are stored."""
        chunks = stored_chunks(self._store)
        step = max(1, -(-len(chunks) // limit))
        boxes = []
        for chunk in chunks[::step]:
            spans = [(0, 1) if a is None else chunk[a] for a in self._axes]
            if box := intersect((spans[0], spans[1], spans[2]), whole_box(self.shape)):
                boxes.append(box)
        return boxes
