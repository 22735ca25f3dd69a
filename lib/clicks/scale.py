"""How much a click speaks of: people click in the middle of what they want changed.

A click deep in an object, as its parts go, means the object, or the part of it that a cut takes
off. One at its border means the border: a membrane a few voxels off shall not cost the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from lib.clicks.masks import Mask
from lib.volumes.boxes import Triple

CENTRAL = 0.6
"""A click at this share of the greatest depth around it, or deeper, lies in the middle."""
DEEP = 3.0
"""So many voxels of the finest axis from any border no click on a cell speaks of it; organelles
are smaller, and wrong by such slivers more often than by parts."""
REACH = 40
"""Voxels of the finest axis up to which depth is looked at."""
BEYOND = 1.0
"""A click at a border changes a ball that reaches so many voxels beyond the border."""


@dataclass(frozen=True)
class Depth:
    """Where a point lies in an object.

    Args:
        own: distance to the object's end, in voxels of the finest axis.
        around: the greatest such distance within 2 * own + 2 voxels of the point.
    """

    own: float
    around: float

    @property
    def middle(self) -> bool:
        """Whether the point lies in the middle of the object, as it goes there."""
        return self.own >= CENTRAL * self.around

    @property
    def central(self) -> bool:
        """Whether the point speaks of a cell, and not of its border."""
        return self.middle or self.own > DEEP


def depth_at(
    objects: NDArray[Any],
    point: Sequence[int],
    voxel_size_nm: Sequence[float],
    reach: float = REACH,
) -> Depth:
    """Where a point lies in its object; the array's ends are no end of the object.

    Args:
        objects: (x, y, z) ids, or a mask.
        point: voxel.
        voxel_size_nm: (x, y, z).
        reach: voxels of the finest axis up to which depth is looked at.
    """
    spacing = [v / min(voxel_size_nm) for v in voxel_size_nm]
    spans, at = around(point, reach, spacing, objects.shape)
    part = np.ascontiguousarray(objects[spans] == objects[spans][at])
    if part.all():
        return Depth(reach, reach)
    depth = edt.edt(part, anisotropy=tuple(spacing), black_border=False)
    own = float(depth[at])
    return Depth(own, float(depth[_within(part.shape, at, 2 * own + 2, spacing)].max()))


def ball(
    shape: Triple, point: Sequence[int], radius: float, voxel_size_nm: Sequence[float]
) -> Mask:
    """Voxels of an array within a distance of a point.

    Args:
        shape: of the array.
        point: voxel of it.
        radius: in voxels of the finest axis.
        voxel_size_nm: (x, y, z).
    """
    spacing = [v / min(voxel_size_nm) for v in voxel_size_nm]
    out = np.zeros(shape, np.bool_)
    spans, at = around(point, radius, spacing, shape)
    part = out[spans]
    part[_within(part.shape, at, radius, spacing)] = True
    return out


def around(
    point: Sequence[int], radius: float, spacing: Sequence[float], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """The part of an array around a point, and the point in it."""
    steps = [int(radius / s) + 1 for s in spacing]
    spans = tuple(
        slice(max(0, int(p) - k), min(n, int(p) + k + 1))
        for p, k, n in zip(point, steps, shape, strict=True)
    )
    return spans, tuple(int(p) - s.start for p, s in zip(point, spans, strict=True))


def _within(
    shape: Sequence[int], at: Sequence[int], radius: float, spacing: Sequence[float]
) -> Mask:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    squares = [((axis - a) * s) ** 2 for axis, a, s in zip(axes, at, spacing, strict=True)]
    near: Mask = squares[0] + squares[1] + squares[2] <= radius * radius
    return near
