"""Clicks as viewers send them: voxels of the volume as loaded, a name, a starting mask."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.clicks.points import clean_points
from lib.clicks.source import Kind
from lib.configs.settings import LabelSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import kind_named, parse_segment_name
from lib.server.errors import refuse
from lib.server.regions import is_coordinate
from lib.volumes.boxes import Triple
from lib.volumes.readers.opening import open_file

MOST_POINTS = 10_000
MOST_OBJECTS = 250
"""Of one request; 8 bits tell them apart."""


def viewer_points(value: Any, what: str) -> list[list[int]]:
    """A list of clicks, rounded to voxels; absent means none.

    Raises:
        HTTPException: 400 for what is no list of three finite numbers each.
    """
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MOST_POINTS:
        raise refuse(f"{what}: expected a list of at most {MOST_POINTS} points [i, j, k]")
    points = []
    for point in value:
        good = isinstance(point, list | tuple) and len(point) == 3
        if not good or not all(is_coordinate(v) for v in point):
            raise refuse(f"{what}: expected points [i, j, k] of numbers, found {point!r}")
        points.append([round(float(v)) for v in point])
    return points


def inside_image(
    points: list[list[int]], shape: Triple, what: str, warnings: list[str]
) -> list[list[int]]:
    """The points in the image, those just beside it moved onto its border; of others it is told.

    Raises:
        HTTPException: 400 where there are points on the object and none is in the image: the
            answer would be empty.
    """
    kind = "negative" if what == "background" else "positive"
    found, told = clean_points(points, shape, kind)
    if points and not len(found) and kind == "positive":
        raise refuse(
            f"{what}: {points[0]} lies outside the image, as do all of the {len(points)}; expected "
            f"voxels [0, 0, 0] to {[n - 1 for n in shape]} of the image as loaded"
        )
    warnings += told
    inner: list[list[int]] = found.tolist()
    return inner


def named_points(value: Any) -> dict[str, list[list[int]]]:
    """Points of several objects by their names: {"axon 3": [[i, j, k], ...], ...}.

    Raises:
        HTTPException: 400 for what is no such object, or holds an object without points.
    """
    if not isinstance(value, dict) or not 0 < len(value) <= MOST_OBJECTS:
        raise refuse(f'objects: expected {{"name": [[i, j, k], ...]}}, 1 to {MOST_OBJECTS} of them')
    found = {str(n): viewer_points(points, f"objects.{n}") for n, points in value.items()}
    if bare := [name for name, points in found.items() if not points]:
        raise refuse(f"objects.{bare[0]}: no points")
    return found


def clicked_class(name: Any, hierarchy: LabelHierarchy, labels: LabelSettings) -> int:
    """The fine class that a segment's name speaks of, -1 for none.

    "axon" and "axon 17" speak of a class; a group or a free name does not.
    """
    if not isinstance(name, str) or not name.strip():
        return -1
    meaning = parse_segment_name(name, hierarchy, labels.segment_names)
    members = hierarchy.members(meaning.class_set)
    return members[0] if len(members) == 1 and meaning.kind in ("class", "object") else -1


def clicked_kind(
    name: str, chosen: Kind, hierarchy: LabelHierarchy, labels: LabelSettings
) -> tuple[Kind, str]:
    """The kind of object that is meant, and what to tell where it is not the one chosen.

    The name of the segment decides where it speaks of one: an answer is what its segment says.
    """
    said = kind_named(name, hierarchy, labels.segment_names)
    if not said or chosen in (said, "auto", "cell"):
        return said or chosen, ""
    return said, f"{name!r} is a {said}, so kind={chosen} was not followed"


def starting_mask(request: dict[str, Any], shape: Triple) -> NDArray[np.generic] | None:
    """The mask that was sent along with the clicks, on the viewer's grid.

    Raises:
        HTTPException: 400 where it does not fit the image.
        VolumeError: it cannot be read.
    """
    path = request.get("starting_mask")
    if path is None:
        return None
    if request.get("starting_mask_raw"):  # OHIF sends the bytes of the map and nothing else
        flat = np.fromfile(path, np.uint8)
        if flat.size != math.prod(shape):
            raise refuse(f"label: {flat.size} bytes, the image has {math.prod(shape)} voxels")
        return flat.reshape(shape, order="F")
    source = open_file(Path(path))
    if source.shape != shape:  # before a voxel of it is unpacked
        raise refuse(f"label: the mask has shape {source.shape}, the image {shape}")
    return np.asarray(source)
