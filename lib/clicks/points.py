"""Points as annotators set them: inside the volume, each once, none of both signs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple

Points = NDArray[np.int64]
"""(N, 3) voxels."""

NEAR_MISS = 2
"""A point this many voxels outside the volume is moved onto its border."""


def clean_points(
    points: Sequence[Sequence[int]], shape: Triple, kind: str
) -> tuple[Points, list[str]]:
    """Distinct points inside the volume, in the given order.

    Viewers send points outside the volume: near its border they are moved onto it, farther
    away left out; either with a warning.

    Args:
        points: voxels, whole or not.
        shape: of the volume.
        kind: of the points, for the warnings.

    Returns:
        (N, 3) int64, and warnings.
    """
    rows = np.rint(np.asarray(points, np.float64).reshape(-1, 3)).astype(np.int64)
    inside = rows.clip(0, np.asarray(shape) - 1)
    missed = np.abs(rows - inside).max(1, initial=0)
    warnings = []
    if (missed > NEAR_MISS).any():
        count = int((missed > NEAR_MISS).sum())
        warnings.append(f"{count} {kind} point(s) outside the image were left out")
    if ((missed > 0) & (missed <= NEAR_MISS)).any():
        warnings.append(f"{kind} point(s) just outside the image were moved onto its border")
    kept = dict.fromkeys(tuple(row) for row in inside[missed <= NEAR_MISS].tolist())
    return np.array(list(kept), np.int64).reshape(-1, 3), warnings


def without(points: Points, others: Points) -> Points:
    """The points (N, 3) that are none of the others."""
    taken = {tuple(p) for p in others.tolist()}
    kept = [p for p in points.tolist() if tuple(p) not in taken]
    return np.array(kept, np.int64).reshape(-1, 3)


def inside(points: Points, box: Box) -> Points:
    """The points (N, 3) in a box, relative to its first voxel."""
    low, high = np.array(box).T
    local: Points = points[((points >= low) & (points < high)).all(1)] - low
    return local
