"""How the objects of a volume are shown: named segments, or few values with neighbours apart."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from lib.infers.writer import NamedSegment
from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import object_name

SHOWN_BY_UINT8 = 255
GOLDEN = 0.618034


def object_names(
    classes: NDArray[np.uint8],
    hierarchy: LabelHierarchy,
    named: Mapping[int, str] | None = None,
) -> list[str]:
    """Names of objects 1..N, as an annotator would write them: "axon 17".

    Args:
        classes: (N + 1,) fine class + 1 of each object; index 0 is no object.
        named: id -> name, of those that people named.
    """
    own = named or {}
    return [
        own.get(i) or object_name(1 << int(c) - 1 if c else hierarchy.unknown, i, hierarchy)
        for i, c in enumerate(classes.tolist())
        if i > 0
    ]


def object_color(fine: int, number: int, hierarchy: LabelHierarchy) -> tuple[int, int, int]:
    """The class's colour, varied so that neighbouring numbers can be told apart."""
    red, green, blue = (c / 255 for c in hierarchy.classes[fine].color)
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    turn = (number * GOLDEN) % 1.0
    hue = (hue + 0.16 * (turn - 0.5)) % 1.0
    light = min(max(light + 0.3 * ((number * GOLDEN * GOLDEN) % 1.0 - 0.5), 0.25), 0.85)
    varied = colorsys.hls_to_rgb(hue, light, max(saturation, 0.35))
    r, g, b = (round(255 * c) for c in varied)
    return r, g, b


def named_segments(
    ids: NDArray[Any],
    classes: NDArray[np.uint8],
    hierarchy: LabelHierarchy,
    limit: int,
    named: Mapping[int, str] | None = None,
) -> tuple[list[NamedSegment], NDArray[np.uint32]]:
    """Segments for the largest objects, and the map that holds only them.

    Args:
        ids: (X, Y, Z) 0 none, objects 1..N.
        classes: (N + 1,) fine class + 1.
        limit: most segments.
        named: id -> name, of those that people named.

    Returns:
        segments in the order of their values, and the map: values 1..len(segments).
    """
    found = cc3d.statistics(np.ascontiguousarray(ids, np.uint32))
    counts = np.asarray(found["voxel_counts"], np.int64)
    counts[0] = 0
    names = object_names(classes, hierarchy, named)
    largest = np.argsort(-counts, kind="stable")[:limit]
    kept = np.sort(largest[counts[largest] > 0])
    lut = np.zeros(max(len(counts), len(classes)), np.uint32)
    lut[kept] = np.arange(1, len(kept) + 1)
    segments = []
    for value, number in enumerate(kept.tolist(), 1):
        x, y, z = found["bounding_boxes"][number]
        extent = (x.start, x.stop - 1, y.start, y.stop - 1, z.start, z.stop - 1)
        color = object_color(max(int(classes[number]) - 1, 0), number, hierarchy)
        segments.append(NamedSegment(value, names[number - 1], color, extent))
    return segments, lut[ids]


def spread_values(ids: NDArray[Any], limit: int = SHOWN_BY_UINT8) -> tuple[NDArray[np.uint8], int]:
    """Few values for many objects: objects that touch get different ones.

    Args:
        ids: (X, Y, Z) 0 none, objects 1..N.
        limit: highest value allowed.

    Returns:
        the map with values 1..limit, and how many touching pairs still share a value (0 but
        for an object that touches `limit` others).
    """
    ids = np.ascontiguousarray(ids, np.uint32)
    highest = int(ids.max())
    touching: list[list[int]] = [[] for _ in range(highest + 1)]
    for one, other in cc3d.region_graph(ids, connectivity=26):
        touching[one].append(other)
        touching[other].append(one)
    values = np.zeros(highest + 1, np.uint8)
    clashes = 0
    # Objects with many neighbours choose first, while there is much to choose from.
    for number in sorted(range(1, highest + 1), key=lambda n: -len(touching[n])):
        taken = {int(values[n]) for n in touching[number]}
        wanted = (number - 1) % limit
        free = next(
            (v + 1 for i in range(limit) if (v := (wanted + i) % limit) + 1 not in taken), 0
        )
        if not free:
            free = wanted + 1
            clashes += sum(int(values[n]) == free for n in touching[number])
        values[number] = free
    return values[ids], clashes
