"""NRRD files (.nrrd, .nhdr): raw and gzip encodings, read lazily."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from lib.volumes.errors import VolumeError, damaged
from lib.volumes.lengths import StatedSize
from lib.volumes.nifti import viewer_size
from lib.volumes.plain import GZIP_SKIP, PlainSource, even_offsets
from lib.volumes.source import Permuted, Source, SourceInfo, check_affine

LONGEST_LINE = 1 << 20
"""Bytes; a longer one is no line of text that could be skipped."""

DETACHED = {"data file", "datafile"}
"""Keys of a header whose voxels lie in another file."""

SPACE_KINDS = {"domain", "space", "???", "none", ""}
"""Kinds of an axis along which one value lies beside the other in space."""


def open_nrrd(path: Path, spacing_unit: str = "nm", by_name: bool = False) -> Source:
    """Open an NRRD file.

    Args:
        spacing_unit: see `open_nifti`.
        by_name: obey the labels of axes in files without space directions. Viewers index
            voxels as they are stored, so what they have open is read as it is stored.

    Raises:
        VolumeError: damaged, with several values a voxel, or in another encoding.
    """
    header, position = read_nrrd_header(path)
    axes = _space_axes(path, header)
    if not by_name or "space directions" in header:
        axes.sort()
    x, y, z = (*(int(header["sizes"][a]) for a in sorted(axes)), 1)[:3]
    stored = nrrd_type(path, header)
    size = _spacing(header, sorted(axes), spacing_unit)
    info = SourceInfo(
        str(path), "", (x, y, z), stored.newbyteorder("="), size.nm, size_fault=size.fault
    )
    packed = header["encoding"].lower() in ("gzip", "gz")
    if not packed and header["encoding"].lower() != "raw":
        raise VolumeError(path, f"encoding {header['encoding']}", "raw or gzip")
    data, start = _data_file(path, header, position)
    first = _first_byte(data, header, start, packed, x * y * z * stored.itemsize)
    source: Source = PlainSource(
        info, data, even_offsets(first, info.shape, stored.itemsize), stored, packed, start
    )
    source.affine = nrrd_affine(header)
    if source.affine is not None:
        check_affine(str(path), source.affine)
    if axes != sorted(axes):
        source = _by_name(source, tuple(sorted(axes).index(a) for a in axes))
    return source


def _space_axes(path: Path, header: dict[str, Any]) -> list[int]:
    """The stored axes that are x, y (and z): those of space, in the order of their labels.

    Further axes are left out where they hold one value.
    """
    sizes = [int(n) for n in header["sizes"]]
    kinds = [str(k).lower() for k in header.get("kinds", [])] or [""] * len(sizes)
    names = [str(n).strip().lower() for n in header.get("labels", [])] or [""] * len(sizes)
    other = {"c", "t", "channel", "channels", "time"}
    axes = [
        i for i, kind in enumerate(kinds[: len(sizes)])
        if kind in SPACE_KINDS and names[i] not in other
    ]  # fmt: skip
    while len(axes) > 3 and sizes[axes[-1]] == 1:
        axes.pop()
    if len(axes) not in (2, 3) or any(n != 1 for i, n in enumerate(sizes) if i not in axes):
        raise VolumeError(
            path, f"sizes {sizes} and kinds {kinds if any(kinds) else 'not stated'}",
            "one grey value a voxel", "split it into single volumes",
        )  # fmt: skip
    named = {names[i]: i for i in axes}
    wanted = "xyz"[: len(axes)]
    return [named[n] for n in wanted] if set(wanted) == set(named) else axes


def _by_name(source: Source, axes: tuple[int, ...]) -> Source:
    """Axes in the order of their labels; size and affine go along."""
    x, y, z = (*axes, 2)[:3]
    info, affine = source.info, source.affine
    if info.voxel_size_nm is not None:
        size = info.voxel_size_nm
        source.info = replace(info, voxel_size_nm=(size[x], size[y], size[z]))
    turned = Permuted(source, (x, y, z))
    if affine is not None:
        turned.affine = affine[:, [x, y, z, 3]]
    return turned


def read_nrrd_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins.

    Raises:
        VolumeError: no NRRD file.
    """
    try:
        with path.open("rb") as file:
            header = dict(nrrd.read_header(file))
            position = file.tell()
        for key in ("sizes", "type", "encoding"):
            if key not in header:
                raise ValueError(f"its header has no {key}")
        if min(header["sizes"], default=0) < 1:
            raise ValueError(f"sizes {[int(n) for n in header['sizes']]}")
    except StopIteration as error:  # pynrrd's word for an empty file
        raise VolumeError(path, "an empty file", "an NRRD header and voxels") from error
    except (nrrd.NRRDError, OSError, ValueError, TypeError, OverflowError) as error:
        raise damaged(str(path), error) from error
    if not DETACHED.isdisjoint(header) and path.suffix.lower() != ".nhdr":
        # An upload must not make the server read its other files.
        raise VolumeError(path, "a header that names another data file", ".nhdr for such headers")
    return header, position


def read_nrrd_voxels(path: Path, header: dict[str, Any], position: int) -> NDArray[Any]:
    """All numbers of a file whose header was read; its sizes are the caller's to check.

    Returns:
        Array of the header's sizes, first axis fastest.

    Raises:
        VolumeError: truncated, damaged, or in an encoding that is not known.
    """
    sizes = [int(n) for n in header["sizes"]]
    encoding = str(header["encoding"]).lower()
    if encoding in ("raw", "gzip", "gz"):
        # Of a stream that holds more than the header says, only that much is unpacked.
        rows, z = (math.prod(sizes[:-1]), sizes[-1])
        stored, packed = nrrd_type(path, header), encoding != "raw"
        info = SourceInfo(str(path), "", (rows, 1, z), stored.newbyteorder("="))
        data, start = _data_file(path, header, position)
        first = _first_byte(data, header, start, packed, rows * z * stored.itemsize)
        offsets = even_offsets(first, info.shape, stored.itemsize)
        source = PlainSource(info, data, offsets, stored, packed, start)
        try:
            return np.asarray(source).reshape(sizes, order="F")
        finally:
            source.close()
    try:
        voxels, _ = nrrd.read(str(path))
    except (nrrd.NRRDError, OSError, ValueError, EOFError, zlib.error) as error:
        raise damaged(str(path), error) from error
    if list(voxels.shape) != sizes:
        raise VolumeError(path, f"voxels of shape {voxels.shape}", f"{tuple(sizes)} as it says")
    return np.asarray(voxels)


def nrrd_affine(header: dict[str, Any]) -> NDArray[np.float64] | None:
    """(4, 4) from voxel (x, y, z) to right-anterior-superior space; None where not stated."""
    directions = header.get("space directions")
    if directions is None:
        return None
    rows = np.asarray(
        [r for r in np.atleast_2d(np.asarray(directions, np.float64)) if np.isfinite(r).all()]
    )
    if rows.shape != (3, 3):
        return None
    affine = np.eye(4)
    affine[:3, :3] = rows.T
    origin = header.get("space origin")
    if origin is not None:
        affine[:3, 3] = np.asarray(origin, np.float64)
    return np.diag([*_to_ras(str(header.get("space", ""))), 1.0]) @ affine


def _to_ras(space: str) -> tuple[float, float, float]:
    words = space.lower().replace("_", "-")
    if words in ("left-posterior-superior", "lps"):
        return -1.0, -1.0, 1.0
    if words in ("left-anterior-superior", "las"):
        return -1.0, 1.0, 1.0
    return 1.0, 1.0, 1.0


def nrrd_type(path: Path, header: dict[str, Any]) -> np.dtype[Any]:
    """The type of the stored numbers, with their byte order.

    Raises:
        VolumeError: no type of numbers, or one whose byte order is not stated.
    """
    names = {
        "unsigned char": "u1", "uchar": "u1", "uint8": "u1", "uint8_t": "u1",
        "signed char": "i1", "int8": "i1", "int8_t": "i1",
        "short": "i2", "signed short": "i2", "int16": "i2", "int16_t": "i2",
        "unsigned short": "u2", "ushort": "u2", "uint16": "u2", "uint16_t": "u2",
        "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4",
        "unsigned int": "u4", "uint": "u4", "uint32": "u4", "uint32_t": "u4",
        "long long": "i8", "int64": "i8", "int64_t": "i8", "longlong": "i8",
        "unsigned long long": "u8", "uint64": "u8", "uint64_t": "u8", "ulonglong": "u8",
        "float": "f4", "double": "f8",
    }  # fmt: skip
    name = " ".join(str(header["type"]).split())
    if name not in names:
        raise VolumeError(path, f"type {name!r}", "an integer type of the NRRD format")
    if names[name][1] != "1" and "endian" not in header:
        raise VolumeError(path, f"type {name} without `endian`", "endian: little or big")
    order = ">" if str(header.get("endian", "little")).lower() == "big" else "<"
    return np.dtype(order + names[name])


def _spacing(header: dict[str, Any], axes: list[int], spacing_unit: str) -> StatedSize:
    """Lengths of the space directions, or the spacings, of the axes of space."""
    affine = nrrd_affine(header)
    if affine is not None:
        lengths = [float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)]
        words = [str(u) for u in header.get("space units", [])]
    elif "spacings" in header and all(np.isfinite(header["spacings"][a]) for a in axes):
        lengths = [float(header["spacings"][a]) for a in axes]
        units = [str(u) for u in header.get("units", [])] or [""] * (max(axes) + 1)
        words = [units[a] if a < len(units) else "" for a in axes]
    else:
        return StatedSize()
    lengths += lengths[:1] * (3 - len(lengths))
    words = words[:3] + (words[:1] or [""]) * (3 - len(words))
    return viewer_size(lengths, words, spacing_unit)


def _skip(header: dict[str, Any], what: str) -> int:
    """`line skip` or `byte skip`, in both spellings."""
    return int(header.get(f"{what} skip", header.get(f"{what}skip", 0)))


def _data_file(path: Path, header: dict[str, Any], position: int) -> tuple[Path, int]:
    """The file that holds the numbers, and where they or their gzip stream begin in it."""
    detached = header.get("data file", header.get("datafile"))
    data, start = path, position
    if detached is not None:
        words = str(detached).split()
        if not words or words[0].upper().startswith("LIST") or "%" in words[0]:
            raise VolumeError(
                path, f"a header of several data files ({detached})", "voxels in one file",
                "join them, for example by reading and writing it with pynrrd",
            )  # fmt: skip
        data, start = path.parent / str(detached), 0
        if not data.is_file():
            raise VolumeError(path, f"its data file {detached} is missing")
    lines = _skip(header, "line")
    if lines < 0:
        raise VolumeError(path, f"line skip: {lines}", "0 or more")
    with data.open("rb") as file:
        file.seek(start)
        for line in range(lines):
            if not file.readline(LONGEST_LINE).endswith(b"\n"):
                raise VolumeError(data, f"line skip: {lines}", f"at most {line}, the lines it has")
        return data, file.tell()


def _first_byte(data: Path, header: dict[str, Any], start: int, packed: bool, size: int) -> int:
    """Where the voxels begin: in the file, or in the decoded gzip stream.

    `byte skip: -1` says that they end where the data ends.
    """
    skip = _skip(header, "byte")
    if skip < -1:
        raise VolumeError(data, f"byte skip: {skip}", "-1 or more")
    if not packed:
        length = data.stat().st_size
        if skip > length:
            raise VolumeError(data, f"byte skip: {skip}", f"at most {length}, what it holds")
        return length - size if skip == -1 else start + skip
    return skip if skip >= 0 else max(0, _decoded_length(data, start) - size)


def _decoded_length(data: Path, start: int) -> int:
    length = 0
    try:
        with data.open("rb") as file:
            file.seek(start)
            with gzip.GzipFile(fileobj=file) as stream:
                while part := stream.read(GZIP_SKIP):
                    length += len(part)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise damaged(str(data), error) from error
    return length
