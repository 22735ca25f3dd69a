"""DM3 and DM4 files (Gatan DigitalMicrograph); of their voxels only what is asked for is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ncempy.io.dm import fileDM

from lib.volumes.errors import VolumeError, damaged
from lib.volumes.lengths import StatedSize, stated_size
from lib.volumes.plain import PlainSource, even_offsets
from lib.volumes.source import Source, SourceInfo

DM = (".dm3", ".dm4")
_TYPES = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8"}
_COLOURS = (8, 23)
"""Data types of packed colours; thumbnails have them."""
_DIMENSION = re.compile(r"\.ImageList\.(\d+)\.ImageData\.Dimensions\.1")


def open_dm(path: Path) -> Source:
    """Open the one image or stack of a DM3 or DM4 file; its thumbnail is left out.

    Raises:
        VolumeError: damaged, several images, colours, or more than three axes.
    """
    try:
        with fileDM(path, on_memory=False) as file:
            tags = dict(file.allTags)
    except (OSError, ValueError, IndexError, KeyError, AssertionError, TypeError) as error:
        raise damaged(str(path), error) from error
    numbers = [int(m[1]) for key in tags if (m := _DIMENSION.fullmatch(key))]
    images = [n for n in numbers if _tag(tags, n, "DataType") not in _COLOURS]
    if len(images) != 1:
        shapes = "; ".join(" x ".join(str(v) for v in _extent(tags, n)) for n in images) or "none"
        raise VolumeError(
            path, f"{len(images)} grey images ({shapes}) of {len(numbers)} in all",
            "one image or stack", "save the one you need as a file of its own",
        )  # fmt: skip
    number = images[0]
    kind = _TYPES.get(int(_tag(tags, number, "DataType") or 0))
    extent = _extent(tags, number)
    if kind is None or len(extent) > 3:
        raise VolumeError(
            path, f"data type {_tag(tags, number, 'DataType')} and extent {extent}",
            "grey values of two or three axes",
        )  # fmt: skip
    x, y, z = (*extent, 1, 1)[:3]
    stored = np.dtype("<" + kind)
    size = _voxel_size(tags, number, len(extent))
    info = SourceInfo(
        str(path), "", (x, y, z), stored.newbyteorder("="), size.nm, size_fault=size.fault
    )
    offset = int(_tag(tags, number, "Data.arrayOffset"))
    return PlainSource(info, path, even_offsets(offset, (x, y, z), stored.itemsize), stored)


def _tag(tags: Mapping[str, Any], number: int, name: str) -> Any:
    return tags.get(f".ImageList.{number}.ImageData.{name}")


def _extent(tags: Mapping[str, Any], number: int) -> list[int]:
    """Extent along x, y, z, without further axes of one value."""
    extent: list[int] = []
    while (length := _tag(tags, number, f"Dimensions.{len(extent) + 1}")) is not None:
        extent.append(int(length))
    while len(extent) > 3 and extent[-1] == 1:
        extent.pop()
    return extent


def _voxel_size(tags: Mapping[str, Any], number: int, axes: int) -> StatedSize:
    names = [f"Calibrations.Dimension.{i + 1}" for i in range(axes)]
    lengths = [_tag(tags, number, f"{n}.Scale") for n in names]
    units = [_tag(tags, number, f"{n}.Units") or "" for n in names]
    if axes == 2:
        lengths, units = [*lengths, lengths[0]], [*units, units[0]]
    if len(lengths) != 3:
        return StatedSize()
    return stated_size(lengths, units)
