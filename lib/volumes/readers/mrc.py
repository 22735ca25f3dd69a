"""MRC files (.mrc, .rec, .st, ...), of which only the header is read ahead."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from lib.volumes.errors import VolumeError, damaged
from lib.volumes.lengths import StatedSize, stated_size
from lib.volumes.plain import PlainSource, even_offsets
from lib.volumes.source import Permuted, Source, SourceInfo

MRC = (".mrc", ".mrcs", ".rec", ".st", ".ali", ".map")
HEADER_BYTES = 1024
_IMOD_STAMP, _SIGNED = 1146047817, 1
_AT_STAMP = 152


def open_mrc(path: Path) -> Source:
    """Open an MRC file; rows and sections come in the order of the file.

    Bytes are signed as the format says, and unsigned where IMOD says so. A voxel size of one
    angstrom is what programs write that know none.

    Raises:
        VolumeError: damaged, or voxels that are no numbers of one grey value.
    """
    try:
        with mrcfile.open(path, header_only=True) as file:
            header = file.header.copy()
        with path.open("rb") as raw:
            bare = raw.read(HEADER_BYTES)
    except (ValueError, OSError, EOFError) as error:
        raise damaged(str(path), error) from error
    stored = _stored_type(path, header, bare)
    shape = int(header.nx), int(header.ny), int(header.nz)
    if min(shape) < 1:
        raise VolumeError(path, f"shape {shape} holds no voxel")
    size = _voxel_size(header)
    info = SourceInfo(
        str(path), "", shape, stored.newbyteorder("="), size.nm, size_fault=size.fault
    )
    offset = HEADER_BYTES + int(header.nsymbt)
    source = PlainSource(info, path, even_offsets(offset, shape, stored.itemsize), stored)
    axes = _axes(path, header)
    return source if axes == (0, 1, 2) else Permuted(source, axes)


def _stored_type(path: Path, header: Any, bare: bytes) -> np.dtype[Any]:
    try:
        dtype = np.dtype(mrcfile.utils.dtype_from_mode(int(header.mode)))
    except ValueError as error:
        raise VolumeError(
            path, f"MRC mode {int(header.mode)}", "whole numbers (0, 1, 6)"
        ) from error
    if dtype.kind == "c":
        raise VolumeError(path, "complex voxels", "one grey value a voxel")
    order = header.mode.dtype.byteorder
    if dtype == np.int8:
        stamp, flags = struct.unpack_from((">" if order == ">" else "<") + "ii", bare, _AT_STAMP)
        if stamp == _IMOD_STAMP and not flags & _SIGNED:
            dtype = np.dtype(np.uint8)
    return dtype.newbyteorder(order)


def _axes(path: Path, header: Any) -> tuple[int, int, int]:
    """The stored axis (columns, rows, sections) that is x, y, z."""
    said = [int(header.mapc), int(header.mapr), int(header.maps)]
    if said == [0, 0, 0]:
        return 0, 1, 2
    if sorted(said) != [1, 2, 3]:
        raise VolumeError(path, f"axes {said} for columns, rows and sections", "1, 2 and 3")
    return said.index(1), said.index(2), said.index(3)


def _voxel_size(header: Any) -> StatedSize:
    counts = [int(header.mx), int(header.my), int(header.mz)]
    cell = [float(header.cella[a]) for a in "xyz"]
    if min(counts) < 1 or max(cell) == 0:
        return StatedSize()
    lengths: list[float | None] = [c / n for c, n in zip(cell, counts, strict=True)]
    if lengths == [1.0, 1.0, 1.0]:
        return StatedSize()
    if int(header.nz) == 1:
        lengths[2] = lengths[0]
    return stated_size(lengths, "angstrom")
