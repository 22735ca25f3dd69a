"""Parts of one TIFF page, without decoding the rest of it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_page(page: Any, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
    """Decode a rectangle of a page.

    Args:
        page: a tifffile page or frame of one sample a pixel.
        rows, columns: half-open ranges.

    Returns:
        (rows, columns) array of the page's type.

    Raises:
        ValueError: the file ends before the data does.
    """
    frame = page.keyframe
    out = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), frame.dtype)
    if frame.is_tiled:
        tall, wide = frame.tilelength, frame.tilewidth
    else:
        tall, wide = min(frame.rowsperstrip, frame.imagelength), frame.imagewidth
    across = -(-frame.imagewidth // wide)
    for i in range(rows[0] // tall, -(-rows[1] // tall)):
        for j in range(columns[0] // wide, -(-columns[1] // wide)):
            segment = i * across + j
            top, left = i * tall, j * wide
            height = min(tall, frame.imagelength - top)
            width = min(wide, frame.imagewidth - left)
            low = max(rows[0], top), max(columns[0], left)
            high = min(rows[1], top + height), min(columns[1], left + width)
            target = out[
                low[0] - rows[0] : high[0] - rows[0],
                low[1] - columns[0] : high[1] - columns[0],
            ]
            if _is_plain(frame) and not frame.is_tiled:
                target[:] = _plain_rows(page, segment, low[0] - top, high[0] - top)[
                    :, low[1] : high[1]
                ]
            else:
                data = _decode(page, segment)
                if data is not None:
                    target[:] = data[low[0] - top : high[0] - top, low[1] - left : high[1] - left]
    return out


def _is_plain(frame: Any) -> bool:
    """Uncompressed whole numbers of 8 bits and more: rows can be read without the rest."""
    return bool(
        frame.compression == 1
        and frame.predictor == 1
        and frame.fillorder == 1
        and frame.bitspersample == frame.dtype.itemsize * 8
    )


def _plain_rows(page: Any, segment: int, first: int, last: int) -> NDArray[Any]:
    frame = page.keyframe
    stored = np.dtype(frame.parent.byteorder + frame.dtype.char)
    row = frame.imagewidth * stored.itemsize
    data = _bytes(page, page.dataoffsets[segment] + first * row, (last - first) * row)
    return np.frombuffer(data, stored).reshape(last - first, frame.imagewidth)


def _decode(page: Any, segment: int) -> NDArray[Any] | None:
    """One strip or tile, (rows, columns); None for one that was never written (sparse)."""
    frame = page.keyframe
    count = page.databytecounts[segment]
    if count == 0:
        return None
    data = _bytes(page, page.dataoffsets[segment], count)
    decoded = frame.decode(data, segment, jpegtables=frame.jpegtables)[0]
    if decoded is None:
        return None
    return np.asarray(decoded).reshape(decoded.shape[-3], decoded.shape[-2])


def _bytes(page: Any, offset: int, count: int) -> bytes:
    data = os.pread(page.parent.filehandle.fileno(), count, offset)
    if len(data) != count:
        raise ValueError(f"the file ends before byte {offset + count}")
    return data
