"""Which voxels of a submission a person decided.

The machine's answer is compared with what comes back, voxel by voxel and by the names of the
segments: what is the same, nobody touched. It is shown and exported as before, and is no truth
for training, scoring and validation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.annotation.clicked import Clicked
from lib.annotation.segments import SubmissionTable
from lib.annotation.shown import Shown
from lib.labels.hierarchy import normalize_name
from lib.volumes.boxes import Box, Triple, box_origin, box_slices, intersect, minus, shift_box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_file


class Untouched:
    """Tells which submitted voxels are as the machine proposed them.

    Args:
        shown: what the annotator was given.
        clicked: names of segments that the annotator clicked: all of theirs is theirs.
        table: the submission's segments.
        shape: of the item; maps of another shape were shown of another image.
        asked: voxels that were clicked for, under whatever name.
    """

    def __init__(
        self,
        shown: Sequence[Shown],
        clicked: Collection[str],
        table: SubmissionTable,
        shape: Triple,
        asked: Sequence[Clicked] = (),
    ) -> None:
        self._table = table
        self._asked = asked
        known = {normalize_name(name) for name in clicked}
        positions = {
            normalize_name(s.name): n
            for n, s in enumerate(table.segments, 1)
            if normalize_name(s.name) not in known
        }
        self._maps = []
        for one in shown:
            try:
                source = open_file(one.file)
            except VolumeError:
                continue  # a damaged one says nothing; what comes back counts as a person's
            if source.shape == shape:
                self._maps.append((source, _positions_of(one.names, positions)))

    def __bool__(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self._maps)

    def read(self, layers: Sequence[NDArray[Any]], box: Box) -> NDArray[np.bool_]:
        """(x, y, z) of a box: every segment there is what some answer had there.

        Args:
            layers: of the submission, on the box.
            box: of the item.
        """
        own = [self._table.positions(n, layer) for n, layer in enumerate(layers)]
        same = [np.zeros(o.shape, np.bool_) for o in own]
        for source, lut in self._maps:
            values = source.read(box)
            there = lut[np.minimum(values, len(lut) - 1).astype(np.int64)]
            for s, o in zip(same, own, strict=True):
                s |= (there == o) & (o > 0)
        painted = np.zeros(own[0].shape, np.bool_)
        untouched = np.ones(own[0].shape, np.bool_)
        for s, o in zip(same, own, strict=True):
            painted |= o > 0
            untouched &= s | (o == 0)
        untouched &= painted
        for clicked in self._asked:
            common = intersect(clicked.box, box)
            if common is not None:
                own_part = clicked.mask[_place_in(common, clicked.box)]
                untouched[_place_in(common, box)] &= ~own_part
        return untouched


def _place_in(part: Box, whole: Box) -> tuple[slice, slice, slice]:
    return box_slices(shift_box(part, minus(box_origin(whole))))


def _positions_of(names: Mapping[str, int], positions: Mapping[str, int]) -> NDArray[np.int32]:
    """(N,) value of an answer -> position of the segment of its name, 0 none; the last is 0."""
    lut = np.zeros(max(names.values(), default=0) + 2, np.int32)
    for name, value in names.items():
        if value > 0:
            lut[value] = positions.get(normalize_name(name), 0)
    return lut
