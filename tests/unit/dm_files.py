"""A small writer of DM3 and DM4 files: just the tags that say where an image lies."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"u1": 6, "u2": 10, "i2": 1, "f4": 2}
CODES = {"u1": 8, "u2": 4, "i2": 2, "f4": 6}
Images = list[tuple[Any, tuple[float, ...], tuple[str, ...]]]


def write_dm(path: Path, images: Images, thumbnail: bool = True) -> None:
    """Write images, each (array with x first, sizes, units), behind a thumbnail in colour."""
    wide = path.suffix == ".dm4"
    word = ">Q" if wide else ">I"

    def n(value: int) -> bytes:
        return struct.pack(word, value)

    def entry(kind: int, name: str, body: bytes) -> bytes:
        size = n(len(body)) if wide else b""
        return struct.pack(">BH", kind, len(name)) + name.encode() + size + body

    def group(*entries: bytes) -> bytes:
        return b"\1\0" + n(len(entries)) + b"".join(entries)

    def number(name: str, value: float, code: int) -> bytes:
        packed = struct.pack("<f" if code == 6 else "<I", value)
        return entry(21, name, b"%%%%" + n(1) + n(code) + packed)

    def array(name: str, code: int, count: int, data: bytes) -> bytes:
        return entry(21, name, b"%%%%" + n(3) + n(20) + n(code) + n(count) + data)

    def image(values: Any, sizes: tuple[float, ...], units: tuple[str, ...], kind: int) -> bytes:
        kind_name = values.dtype.str[1:]
        scales = [
            entry(20, "", group(
                number("Origin", 0.0, 6), number("Scale", size, 6),
                array("Units", 4, len(unit), unit.encode("utf-16-le")),
            ))
            for size, unit in zip(sizes, units, strict=True)
        ]  # fmt: skip
        data = [
            entry(20, "Calibrations", group(entry(20, "Dimension", group(*scales)))),
            array("Data", CODES[kind_name], values.size, values.tobytes(order="F")),
            number("DataType", kind, 5),
            entry(20, "Dimensions", group(*(number("", v, 5) for v in values.shape))),
        ]
        return entry(20, "", group(entry(20, "ImageData", group(*data))))

    parts = [image(v, s, u, TYPES[v.dtype.str[1:]]) for v, s, u in images]
    if thumbnail:
        parts.insert(0, image(np.zeros((4, 4), np.float32), (1.0, 1.0), ("", ""), 23))
    body = group(entry(20, "ImageList", group(*parts)))
    path.write_bytes(
        struct.pack(">I", 4 if wide else 3) + n(len(body)) + struct.pack(">I", 1) + body
    )
