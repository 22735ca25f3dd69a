"""Volumes stored as plain sections of numbers, x fastest, in a file or a gzip stream."""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, box_shape
from lib.volumes.errors import VolumeError, damaged
from lib.volumes.source import Source, SourceInfo

DEFLATE_RATIO = 1032
"""The most bytes that one byte of a gzip stream can stand for."""

GZIP_SKIP = 1 << 22
"""Bytes decoded at a time to get ahead in a gzip stream."""


class PlainSource(Source):
    """Sections of raw numbers.

    Only the rows of a box are read, section by section: a memory map would count the whole
    file as this process's memory. A gzip stream stays open and is read on from where it is,
    so that one pass over a volume decodes it once; boxes beside each other share the rows that
    were decoded last.

    Args:
        data: the file that holds the numbers (it may differ from `info.path`).
        offsets: byte offset of each section; in a gzip file of the decoded stream.
        stored: type with byte order.
        packed: whether the numbers lie in a gzip stream.
        start: where the gzip stream begins in the file.
    """

    def __init__(
        self,
        info: SourceInfo,
        data: Path,
        offsets: Sequence[int],
        stored: np.dtype[Any],
        packed: bool = False,
        start: int = 0,
    ) -> None:
        super().__init__(info)
        assert len(offsets) == info.shape[2], (len(offsets), info.shape)
        self._data, self._offsets, self._stored = data, offsets, stored
        self._packed, self._start = packed, start
        self._lock = threading.Lock()
        self._open: tuple[int, BinaryIO, gzip.GzipFile | None] | None = None
        self._last: tuple[int, bytes] = 0, b""
        self._check_length()

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            if self._open is not None:
                self._open[1].close()
            self._open, self._last = None, (0, b"")

    def __getstate__(self) -> dict[str, Any]:
        """Sources travel to worker processes without their open file."""
        return {**self.__dict__, "_lock": None, "_open": None, "_last": (0, b"")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _check_length(self) -> None:
        x, y, _ = self.shape
        needed = max(self._offsets) + x * y * self._stored.itemsize
        found = self._data.stat().st_size
        if self._packed:
            needed = -(-needed // DEFLATE_RATIO)  # it cannot hold what it says in fewer
        if found < needed:
            raise VolumeError(
                self._data, f"truncated: {found} bytes", f"{needed} bytes",
                "fetch or write the file again",
            )  # fmt: skip

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        width, size = self.shape[0], self._stored.itemsize
        row = width * size
        out = np.empty((f - e, d - c, b - a), self._stored.newbyteorder("="))
        with self._lock:
            for i, section in enumerate(self._offsets[e:f]):
                data = self._bytes(section + c * row, (d - c) * row)
                rows = np.frombuffer(data, self._stored).reshape(d - c, width)
                out[i] = rows[:, a:b]
        voxels = out.transpose(2, 1, 0)
        assert voxels.shape == box_shape(box)
        return voxels

    def _bytes(self, offset: int, count: int) -> bytes:
        first, last = self._last
        if first <= offset and offset + count <= first + len(last):
            return last[offset - first : offset - first + count]
        file, stream = self._handles()
        if stream is not None and stream.tell() > offset:
            # A GzipFile rewinds to the start of the file, not to that of its stream.
            file.close()
            self._open = None
            file, stream = self._handles()
        if stream is None:
            data = os.pread(file.fileno(), count, offset)
        else:
            try:
                _skip_to(stream, offset)
                data = stream.read(count)
            except (zlib.error, EOFError, gzip.BadGzipFile) as error:
                self._open = None
                raise damaged(str(self._data), error) from error
        if len(data) != count:
            raise VolumeError(
                self._data, f"truncated: no {count} bytes at {offset}",
                remedy="fetch or write the file again",
            )  # fmt: skip
        if stream is not None:
            self._last = offset, data
        return data

    def _handles(self) -> tuple[BinaryIO, gzip.GzipFile | None]:
        """The open file of this process; a fork must not share its position."""
        if self._open is None or self._open[0] != os.getpid():
            file = self._data.open("rb")
            stream = None
            if self._packed:
                file.seek(self._start)
                stream = gzip.GzipFile(fileobj=file)
            self._open = os.getpid(), file, stream
        return self._open[1], self._open[2]


def even_offsets(start: int, shape: tuple[int, int, int], itemsize: int) -> range:
    """Offsets of sections that lie one behind the other."""
    section = shape[0] * shape[1] * itemsize
    return range(start, start + section * shape[2], section)


def _skip_to(stream: gzip.GzipFile, offset: int) -> None:
    """Decode up to an offset that lies ahead."""
    while stream.tell() < offset:
        if not stream.read(min(GZIP_SKIP, offset - stream.tell())):
            raise EOFError(f"the stream ends before byte {offset}")
