"""Other ways of answering clicks, to measure the app's answer against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from lib.clicks.ridges import boundary_of
from lib.metrics.clicks import Click, Mask
from lib.prediction.evidence import Evidence

POSITIVE_BASIN, NEGATIVE_BASIN = 1, 2


class AutomaticPick:
    """The automatic instances under the positive clicks, less those under negative ones.

    Where an instance holds clicks of both signs, the one clicked last counts.

    Args:
        ids: (X, Y, Z) automatic instances, 0 none.
    """

    def __init__(self, ids: NDArray[np.integer[Any]]) -> None:
        self.ids = ids
        self.highest = int(ids.max())

    def __call__(self, clicks: Sequence[Click]) -> Mask:
        """(X, Y, Z) the union of the chosen instances."""
        chosen: dict[int, bool] = {}
        for click in clicks:
            chosen[int(self.ids[click.position])] = click.positive
        table = np.zeros(self.highest + 1, bool)
        table[[i for i, positive in chosen.items() if positive and i > 0]] = True
        mask: Mask = table[self.ids]
        return mask


class PointWatershed:
    """Plain watershed from the clicks on the predicted boundary map.

    Flooding stays below `level`, so that one positive click gives its basin; positive and
    negative clicks in one basin share it at the ridge between them.

    Args:
        boundary: (X, Y, Z) float in [0, 1], 1 at boundaries.
        level: height at which flooding stops.
    """

    def __init__(self, boundary: NDArray[np.float32], level: float = 0.5) -> None:
        self.boundary = boundary
        self.basins = cc3d.connected_components(boundary < level, connectivity=6)

    def __call__(self, clicks: Sequence[Click]) -> Mask:
        """(X, Y, Z) the voxels that the positive clicks flood."""
        wanted = {int(self.basins[c.position]) for c in clicks if c.positive} - {0}
        table = np.zeros(int(self.basins.max()) + 1, bool)
        table[list(wanted)] = True
        inside = table[self.basins]
        for click in clicks:
            inside[click.position] |= click.positive
        if not any(inside[c.position] for c in clicks if not c.positive):
            return inside
        low, high = _bounds(inside)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        markers = np.zeros(inside[box].shape, np.int32)
        for click in clicks:
            place = tuple(p - a for p, a in zip(click.position, low, strict=True))
            if all(0 <= p < n for p, n in zip(place, markers.shape, strict=True)):
                markers[place] = POSITIVE_BASIN if click.positive else NEGATIVE_BASIN
        flooded = watershed(  # type: ignore[no-untyped-call]
            self.boundary[box], markers, mask=inside[box]
        )
        out = np.zeros_like(inside)
        out[box] = flooded == POSITIVE_BASIN
        return out


def boundary_map(evidence: Evidence) -> NDArray[np.float32]:
    """Where the nearest affinities say that objects end.

    Returns:
        (X, Y, Z) float32 in [0, 1], see `boundary_of`; 1 outside the foreground.
    """
    boundary = boundary_of(evidence.affinities, evidence.offsets)
    boundary[~np.asarray(evidence.foreground)] = 1.0
    return boundary


def _bounds(mask: Mask) -> tuple[list[int], list[int]]:
    low, high = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(mask.any(axis=others))
        low.append(int(where[0]))
        high.append(int(where[-1]) + 1)
    return low, high
