"""Voxels that a person clicked for: theirs, whatever the segment is called that they come back in.

A viewer's segment can be renamed, or what was clicked copied into another one, and the name under
which it was asked for is gone. So the answers to clicks are kept with their voxels.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.annotation.segments import SubmissionTable
from lib.volumes.boxes import Box, Triple, box_shape, box_slices, contains, whole_box
from lib.volumes.errors import DAMAGED_ARRAYS

logger = logging.getLogger("neuropil.annotation")

MOSTLY = 0.8
"""Share of a clicked object that one segment must hold to be it, perhaps corrected since: of an
answer that was thrown away, what the machine showed before comes back in several, or in part."""


@dataclass(frozen=True)
class Clicked:
    """An answer to clicks.

    Args:
        mask: (x, y, z) bool on `box`.
        box: voxels of the item.
    """

    mask: NDArray[np.bool_]
    box: Box

    def to_bytes(self) -> bytes:
        """The form in which it is kept."""
        content = io.BytesIO()
        np.savez_compressed(content, bits=np.packbits(self.mask), box=np.array(self.box))
        return content.getvalue()

    @staticmethod
    def read(path: Path) -> Clicked | None:
        """Read that form; None, with a warning in the log, where it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                x, y, z = ((int(a), int(b)) for a, b in kept["box"])
                bits = kept["bits"]
        except DAMAGED_ARRAYS as error:
            logger.warning("%s: what was clicked is left out, it cannot be read: %s", path, error)
            return None
        box: Box = (x, y, z)
        count = int(np.prod(box_shape(box), dtype=np.int64))
        if len(bits) != (count + 7) // 8:
            logger.warning("%s: what was clicked is left out, it is of another size", path)
            return None
        mask = np.unpackbits(bits, count=count).astype(np.bool_).reshape(box_shape(box))
        return Clicked(mask, box)


def come_back(
    kept: Sequence[Path], layers: Sequence[NDArray[Any]], table: SubmissionTable, shape: Triple
) -> Iterator[Clicked]:
    """What of clicked objects a submission holds, each in the segment that has most of it.

    Args:
        kept: files of `Clicked.to_bytes`.
        layers: (X, Y, Z) of the submission.
        table: its segments.
        shape: of the item; what was clicked on another image says nothing.
    """
    for path in kept:
        clicked = Clicked.read(path)
        if clicked is None or not contains(whole_box(shape), clicked.box):
            continue
        least = MOSTLY * np.count_nonzero(clicked.mask)
        for n, layer in enumerate(layers):
            there = table.positions(n, layer[box_slices(clicked.box)]) * clicked.mask
            counts = np.bincount(there.ravel())
            counts[0] = 0
            if counts.max() >= max(least, 1):
                yield Clicked(there == counts.argmax(), clicked.box)
