"""Objects that came back from a viewer as they were shown, right beside some that were corrected.

A person who corrects a few objects and submits has marked the machine's mistakes alone: judged by
them every change looks like a gain (VNC: 0.25 -> 0.10 on 15 corrected objects, and the error on
the other sections rose from 0.04 to 0.10). So objects that nobody touched in a section with
corrections count as marked there, where they have no fewer voxels in it than what was corrected. An
object that a person cut is not one of them: what they left of it is what they did not look at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lib.adaptation.came_back import looked_at
from lib.metrics.object_scores import contingency

SAME = 0.95
"""Share of a shown object in a section, and of the machine's there, that they have in common."""


def with_left_objects(
    ids: NDArray[np.int64], shown: NDArray[np.int64], machine: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Marked objects, and those left as they were beside them.

    Args:
        ids: (X, Y, Z) objects that people decided, 0 none, -1 unknown; sections along the last
            axis.
        shown: (X, Y, Z) the same, and those that came back as the machine said.
        machine: (X, Y, Z) the machine's objects, 0 none.

    Returns:
        (X, Y, Z) ids; those left have numbers above all others, one for each of the machine's.
        The same where corrections outweigh them.
    """
    found, first = ids.copy(), int(ids.max(initial=0)) + 1
    for z in np.flatnonzero((ids > 0).any((0, 1))):
        decided = ids[..., z] > 0
        near = looked_at(decided)
        back = np.where(decided, 0, np.maximum(shown[..., z], 0))
        same = _same(machine[..., z], back)
        left = np.isin(machine[..., z], same) & (back > 0)
        left &= np.isin(machine[..., z], np.unique(machine[..., z][left & near]))
        if np.count_nonzero(left) >= np.count_nonzero(decided):
            found[..., z][left] = first + machine[..., z][left]
    return found if bool((found >= first).any()) else ids


def _same(machine: NDArray[np.int64], back: NDArray[np.int64]) -> NDArray[np.int64]:
    """The machine's objects of a section that are one of those which came back, and no more."""
    table = contingency(machine, back)
    (_, own), (_, theirs) = (
        np.unique(side, return_inverse=True) for side in (table.truth, table.guess)
    )
    size = np.maximum(
        np.bincount(own, table.counts)[own], np.bincount(theirs, table.counts)[theirs]
    )
    same = (table.truth > 0) & (table.guess > 0) & (table.counts >= SAME * size)
    return table.truth[same]
