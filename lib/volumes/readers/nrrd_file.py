"""NRRD files (.nrrd, .nhdr): raw and gzip encodings, read lazily."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from lib.volumes.errors import VolumeError
from lib.volumes.nifti import UNIT_NM
from lib.volumes.plain import PlainSource, even_offsets
from lib.volumes.source import SourceInfo, damaged

UNITS = {
    "nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "micron": 1e3, "micrometer": 1e3,
    "microns": 1e3,
}  # fmt: skip
"""Units that mean what they say; "mm" is how viewers' nanometres are written."""

DETACHED = {"data file", "datafile"}
"""Keys of a header whose voxels lie in another file."""

SKIPS = {"line skip", "lineskip", "byte skip", "byteskip"}
"""Keys that say how much lies before the voxels."""

VECTOR_KINDS = {"vector", "rgb-color", "rgba-color", "list", "covariant-vector", "4-vector"}


def open_nrrd(path: Path, spacing_unit: str = "nm") -> PlainSource:
    """Open an NRRD file.

    Raises:
        VolumeError: damaged, with several values a voxel, or in another encoding.
    """
    header, position = read_nrrd_header(path)
    sizes = [int(n) for n in header["sizes"]]
    kinds = [str(k).lower() for k in header.get("kinds", [])]
    if VECTOR_KINDS & set(kinds) or len(sizes) not in (2, 3):
        raise VolumeError(
            path, f"sizes {sizes} and kinds {kinds or 'not stated'}", "one grey value a voxel",
            "split it into single volumes",
        )  # fmt: skip
    x, y, z = (*sizes, 1)[:3]
    stored = nrrd_type(path, header)
    info = SourceInfo(
        str(path), "", (x, y, z), stored.newbyteorder("="), _spacing(header, spacing_unit)
    )
    data, start = _data_file(path, header, position)
    packed = header["encoding"].lower() in ("gzip", "gz")
    if not packed and header["encoding"].lower() != "raw":
        raise VolumeError(path, f"encoding {header['encoding']}", "raw or gzip")
    if not packed and int(header.get("byte skip", 0)) == -1:
        start = data.stat().st_size - x * y * z * stored.itemsize
    offset = 0 if packed else start
    source = PlainSource(
        info, data, even_offsets(offset, info.shape, stored.itemsize), stored, packed, start
    )
    source.affine = nrrd_affine(header)
    return source


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
        for key in SKIPS & set(header):
            if int(header[key]) > path.stat().st_size and DETACHED.isdisjoint(header):
                raise ValueError(f"{key} {header[key]} is more than the file holds")
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
    plain = not SKIPS & set(header) and DETACHED.isdisjoint(header)
    if plain and encoding in ("raw", "gzip", "gz"):
        # Of a stream that holds more than the header says, only that much is unpacked.
        rows, z = (math.prod(sizes[:-1]), sizes[-1])
        stored = nrrd_type(path, header)
        info = SourceInfo(str(path), "", (rows, 1, z), stored.newbyteorder("="))
        packed = encoding != "raw"
        offsets = even_offsets(0 if packed else position, info.shape, stored.itemsize)
        source = PlainSource(info, path, offsets, stored, packed, position)
        try:
            return np.asarray(source).reshape(sizes, order="F")
        finally:
            source.close()
    try:
        data, _ = nrrd.read(str(path))
    except (nrrd.NRRDError, OSError, ValueError, EOFError, zlib.error) as error:
        raise damaged(str(path), error) from error
    if list(data.shape) != sizes:
        raise VolumeError(path, f"voxels of shape {data.shape}", f"{tuple(sizes)} as it says")
    return np.asarray(data)


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
        VolumeError: no type of numbers.
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
    order = ">" if str(header.get("endian", "little")).lower() == "big" else "<"
    return np.dtype(order + names[name])


def _spacing(header: dict[str, Any], spacing_unit: str) -> tuple[float, float, float] | None:
    affine = nrrd_affine(header)
    if affine is not None:
        lengths = [float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)]
    elif "spacings" in header and np.isfinite(header["spacings"]).all():
        lengths = [float(v) for v in header["spacings"]]
        lengths += [lengths[0]] * (3 - len(lengths))
    else:
        return None
    units = {str(u).strip('"').lower() for u in header.get("space units", header.get("units", []))}
    named = [UNITS[u] for u in units if u in UNITS]
    if not named and spacing_unit == "nm" and lengths == [1.0, 1.0, 1.0]:
        return None
    factor = named[0] if len(units) == 1 and named else UNIT_NM[spacing_unit]
    x, y, z = (round(v * factor, 6) for v in lengths[:3])
    return x, y, z


def _data_file(path: Path, header: dict[str, Any], position: int) -> tuple[Path, int]:
    """The file that holds the numbers, and where they begin in it."""
    skip = max(0, int(header.get("byte skip", 0)))
    detached = header.get("data file", header.get("datafile"))
    if detached is None:
        return path, position + skip
    data = path.parent / str(detached)
    if not data.is_file():
        raise VolumeError(path, f"its data file {detached} is missing")
    return data, skip
