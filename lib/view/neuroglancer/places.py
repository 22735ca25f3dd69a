"""Places that a person points at: the voxel under the mouse, the screen, what was drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lib.volumes.boxes import Box, Triple
from lib.volumes.frames import ViewerFrame

AXES = ("x", "y", "z")
ROUNDING = 1e-3
"""The client's places are 32-bit floats: what lies so close below a voxel's edge is in it."""
PANEL = 400
"""Screen points on each side of the middle that count as seen: the client does not tell."""
STROKE_STEP = 2.0
"""Voxels between points that stand for a drawn line."""


@dataclass(frozen=True)
class Drawn:
    """What a person drew by the annotation tools of a layer.

    Args:
        points: voxels along points and lines.
        boxes: bounding boxes, the last one drawn last.
    """

    points: tuple[Triple, ...]
    boxes: tuple[Box, ...]


def voxel_of(
    position: Sequence[float] | None, dimensions: Any, voxel_size_nm: Sequence[float]
) -> Triple | None:
    """The voxel that holds a place of the viewer's; None off the image's axes.

    Args:
        position: one number for each of the viewer's dimensions.
        dimensions: of the viewer, in any order and scale: a person may change both.
        voxel_size_nm: (x, y, z).
    """
    names = list(dimensions.names)
    if position is None or not set(AXES) <= set(names) or len(position) != len(names):
        return None
    steps = [
        float(position[n]) * float(dimensions.scales[n]) * 1e9 / size
        for n, size in zip((names.index(a) for a in AXES), voxel_size_nm, strict=True)
    ]
    x, y, z = (math.floor(step + ROUNDING) for step in steps)
    return x, y, z


def screen_extent(
    scale: float | None, voxel_size_nm: Sequence[float], most: Sequence[int], frame: ViewerFrame
) -> Triple:
    """How many voxels around the middle of the screen count as on it.

    Args:
        scale: of the cross-section, finest voxels to a screen point; None: 1.
        voxel_size_nm: (x, y, z).
        most: the largest extent, along the network's axes, sections last.
        frame: of the image.
    """
    finest = min(voxel_size_nm)
    seen = [2 * PANEL * float(scale or 1.0) * finest / v for v in voxel_size_nm]
    extent = [1, 1, 1]
    for axis, limit in zip(frame.order, most, strict=True):
        extent[axis] = int(max(1, min(limit, round(seen[axis]))))
    return extent[0], extent[1], extent[2]


def around(middle: Triple, extent: Triple, shape: Triple) -> Box:
    """A box of an extent around a voxel, moved and cut so that it lies in an image."""
    spans = []
    for m, e, n in zip(middle, extent, shape, strict=True):
        low = min(max(m - e // 2, 0), max(n - e, 0))
        spans.append((low, min(low + e, n)))
    return spans[0], spans[1], spans[2]


def drawn_in(layer: Any, own: Sequence[str]) -> Drawn:
    """What a person drew in an annotation layer.

    Args:
        layer: of the viewer's state.
        own: ids of annotations that were put there by us.
    """
    points: list[Triple] = []
    boxes: list[Box] = []
    for one in getattr(layer, "annotations", None) or []:
        if one.id in own:
            continue
        if one.type == "point":
            points += _between(one.point, one.point)
        elif one.type == "line":
            points += _between(one.point_a, one.point_b)
        elif one.type == "polyline":
            for a, b in pairwise(one.points):
                points += _between(a, b)
        elif one.type == "axis_aligned_bounding_box":
            low = np.floor(np.minimum(one.point_a, one.point_b) + ROUNDING).astype(int)
            high = np.ceil(np.maximum(one.point_a, one.point_b) - ROUNDING).astype(int)
            x, y, z = ((int(a), int(max(b, a + 1))) for a, b in zip(low, high, strict=True))
            boxes.append((x, y, z))
    return Drawn(tuple(dict.fromkeys(points)), tuple(boxes))


def _between(start: Any, end: Any) -> list[Triple]:
    """Voxels along a line, both ends included."""
    a, b = (np.asarray(p, np.float64)[:3] for p in (start, end))
    count = 1 + int(np.abs(b - a).max() / STROKE_STEP)
    steps = np.linspace(0.0, 1.0, count + 1) if count > 1 else np.array([0.0, 1.0])
    rows = np.floor(a + steps[:, None] * (b - a) + ROUNDING).astype(int)
    return [(int(x), int(y), int(z)) for x, y, z in rows]
