"""TIFF stacks with ImageJ or OME metadata, and single TIFF sections."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lib.volumes.boxes import Box
from lib.volumes.errors import VolumeError, damaged
from lib.volumes.plain import PlainSource
from lib.volumes.readers.roles import Role
from lib.volumes.readers.tiff_pages import read_page
from lib.volumes.readers.tiff_series import choose_series, refuse_colour, stack_shape
from lib.volumes.readers.tiff_sizes import own_attributes, stated_sections, voxel_size
from lib.volumes.source import Source, SourceInfo, Stored

TIFF_ERRORS = (
    tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, RuntimeError, TypeError,
    AttributeError, ZeroDivisionError, EOFError,
)  # fmt: skip
"""tifffile meets damaged files with all of these."""


class TiffSource(Source):
    """A TIFF stack whose pages are decoded strip by strip or tile by tile.

    Args:
        pages: one TIFF page for each z.
    """

    def __init__(self, info: SourceInfo, file: Any, pages: list[Any]) -> None:
        super().__init__(info)
        self._file, self._pages = file, pages

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def stored(self, box: Box) -> Stored:
        """How many strips and tiles of a box's sections were written (sparse files)."""
        counts = [n for page in self._pages[slice(*box[2])] for n in page.databytecounts]
        return Stored(sum(n > 0 for n in counts), len(counts), "strips or tiles")

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        out = np.empty((f - e, d - c, b - a), self.dtype)
        for z in range(e, f):
            try:
                out[z - e] = read_page(self._pages[z], (c, d), (a, b))
            except TIFF_ERRORS as error:
                raise damaged(f"{self.info.where} section {z}", error) from error
        return out.transpose(2, 1, 0)


class Inverted(Source):
    """Grey values of which 0 is white, as every viewer shows them: 0 is black.

    Args:
        white: the stored value that becomes 0.
    """

    def __init__(self, inner: Source, white: int) -> None:
        super().__init__(inner.info)
        self._inner, self._white = inner, white

    def close(self) -> None:
        """Close the stored source."""
        self._inner.close()

    def stored(self, box: Box) -> Stored:
        """As the stored source says."""
        return self._inner.stored(box)

    def _read(self, box: Box) -> NDArray[Any]:
        voxels = self._inner.read(box)
        return ~voxels if voxels.dtype.kind == "b" else self._white - voxels


def open_tiff(path: Path, wanted: str = "", role: Role = "image") -> Source:
    """Open a TIFF file as one volume.

    Args:
        wanted: number of the series, where a file holds several images.
        role: labels may be indexed colours.

    Raises:
        VolumeError: damaged, colour, several channels, or pages that are no one stack.
    """
    with _complaints() as complaints:
        try:
            file = tifffile.TiffFile(path)
        except TIFF_ERRORS as error:
            raise damaged(str(path), error) from error
        try:
            sections = len(file.pages)  # walks to the end of the file
            source = _open(path, file, wanted, role)
        except VolumeError:
            file.close()
            raise
        except TIFF_ERRORS as error:
            file.close()
            raise damaged(str(path), error) from error
    if complaints:
        file.close()
        raise damaged(f"{path} after {sections} sections", ValueError(complaints[0]))
    if not isinstance(source, TiffSource | Inverted):
        file.close()
    return source


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile says of parts that lie beyond the end of the file.

    It logs such things and goes on with what is left, which would lose sections silently.
    """
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if "invalid page offset" in text or "invalid value offset" in text:
                found.append(text)

    listener, logger = Listener(logging.WARNING), tifffile.logger()
    propagate = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.propagate = propagate
        logger.removeHandler(listener)


def _open(path: Path, file: Any, wanted: str, role: Role) -> Source:
    parts = choose_series(path, file, wanted)
    for part in parts:
        refuse_colour(path, part, role)
    depth, height, width = stack_shape(path, parts[0])
    _check_complete(path, file, depth)
    depth *= len(parts)
    dtype = np.dtype(parts[0].dtype)
    size = voxel_size(file, depth)
    info = SourceInfo(
        str(path), wanted, (width, height, depth), dtype, size.nm, size_fault=size.fault,
        attributes=own_attributes(file),
    )  # fmt: skip
    source = _stack(info, path, file, parts)
    if parts[0].keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        if dtype.kind not in "ub":
            raise VolumeError(
                path, f"{dtype} values of which 0 is white", "BlackIsZero for such values",
                "save it again",
            )  # fmt: skip
        return Inverted(source, 2 ** int(parts[0].keyframe.bitspersample) - 1)
    return source


def _stack(info: SourceInfo, path: Path, file: Any, parts: list[Any]) -> Source:
    """Sections that lie bare in the file, or pages to decode."""
    width, height, depth = info.shape
    if all(part.dataoffset is not None for part in parts):
        section = width * height * info.dtype.itemsize
        each = depth // len(parts)
        offsets = [part.dataoffset + i * section for part in parts for i in range(each)]
        return PlainSource(info, path, offsets, np.dtype(file.byteorder + info.dtype.char))
    pages = [page for part in parts for page in part.pages]
    if len(pages) != depth or any(p is None for p in pages):
        raise VolumeError(
            path, f"truncated: {sum(p is not None for p in pages)} sections", f"{depth}",
            "fetch or write the file again",
        )  # fmt: skip
    return TiffSource(info, file, pages)


def _check_complete(path: Path, file: Any, depth: int) -> None:
    """ImageJ and OME metadata say how many sections there should be."""
    stated = stated_sections(file)
    if stated is not None and len(file.series) == 1 and depth < stated:
        raise VolumeError(
            path, f"truncated: {depth} sections", f"{stated} as its metadata says",
            "fetch or write the file again",
        )  # fmt: skip
