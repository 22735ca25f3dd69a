"""TIFF stacks with ImageJ or OME metadata, and single TIFF sections."""

from __future__ import annotations

import json
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lib.volumes.boxes import Box
from lib.volumes.errors import VolumeError
from lib.volumes.plain import PlainSource
from lib.volumes.readers.tiff_pages import read_page
from lib.volumes.source import Source, SourceInfo, damaged

LENGTHS_NM = {
    "nm": 1.0, "nanometer": 1.0, "nanometers": 1.0, "nanometre": 1.0,
    "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "microns": 1e3,
    "micrometer": 1e3, "micrometers": 1e3, "mm": 1e6, "å": 0.1, "angstrom": 0.1, "pm": 1e-3,
    "cm": 1e7, "m": 1e9,
}  # fmt: skip
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

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        out = np.empty((f - e, d - c, b - a), self.dtype)
        for z in range(e, f):
            try:
                out[z - e] = read_page(self._pages[z], (c, d), (a, b))
            except TIFF_ERRORS as error:
                raise damaged(f"{self.info.where} section {z}", error) from error
        return out.transpose(2, 1, 0)


def open_tiff(path: Path) -> Source:
    """Open a TIFF file as one volume.

    Raises:
        VolumeError: damaged, colour, or several channels.
    """
    with _complaints() as complaints:
        try:
            file = tifffile.TiffFile(path)
        except TIFF_ERRORS as error:
            raise damaged(str(path), error) from error
        try:
            sections = len(file.pages)  # walks to the end of the file
            source = _open(path, file)
        except VolumeError:
            file.close()
            raise
        except TIFF_ERRORS as error:
            file.close()
            raise damaged(str(path), error) from error
    if complaints:
        file.close()
        raise damaged(f"{path} after {sections} sections", ValueError(complaints[0]))
    if isinstance(source, PlainSource):
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


def _open(path: Path, file: Any) -> Source:
    series = file.series[0]
    page = series.keyframe
    _refuse_colour(path, series, page)
    depth, height, width = _stack_shape(path, series)
    _check_complete(path, file, depth)
    dtype = np.dtype(series.dtype)
    info = SourceInfo(
        str(path), "", (width, height, depth), dtype, _voxel_size(file, depth),
        attributes=_attributes(file),
    )  # fmt: skip
    pages = list(series.pages)
    if series.dataoffset is not None:
        section = width * height * dtype.itemsize
        offsets = range(series.dataoffset, series.dataoffset + depth * section, section)
        return PlainSource(info, path, offsets, np.dtype(file.byteorder + dtype.char))
    if len(pages) != depth or any(p is None for p in pages):
        raise VolumeError(
            path, f"truncated: {sum(p is not None for p in pages)} sections", f"{depth}",
            "fetch or write the file again",
        )  # fmt: skip
    return TiffSource(info, file, pages)


def _refuse_colour(path: Path, series: Any, page: Any) -> None:
    if page.samplesperpixel > 1 or page.photometric in (
        tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE,
    ):  # fmt: skip
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        raise VolumeError(
            path, f"a colour image ({kind}, {page.samplesperpixel} samples a pixel)",
            "grey values", "convert it to 8 or 16 bit grey",
        )  # fmt: skip
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if sizes.get("C", 1) > 1 or sizes.get("S", 1) > 1:
        raise VolumeError(
            path, f"{sizes.get('C', sizes.get('S'))} channels", "one channel of grey values",
            "save the channel you need as a file of its own",
        )  # fmt: skip


def _stack_shape(path: Path, series: Any) -> tuple[int, int, int]:
    """(Z, Y, X): the axis before Y, X is the stack, whatever the writer called it."""
    axes = series.axes
    long = [n for a, n in zip(axes, series.shape, strict=True) if a not in "YX" and n > 1]
    if not axes.endswith(("YX", "YXS")) or len(long) > 1:
        raise VolumeError(
            path, f"axes {axes} of shape {tuple(series.shape)}", "a stack (z, y, x)",
            "save one channel and time point as a file of its own",
        )  # fmt: skip
    sizes = dict(zip(axes, series.shape, strict=True))
    return (long[0] if long else 1), int(sizes["Y"]), int(sizes["X"])


def _check_complete(path: Path, file: Any, depth: int) -> None:
    """ImageJ and OME metadata say how many sections there should be."""
    stated = depth
    if file.is_imagej:
        stated = int(file.imagej_metadata.get("images", depth))
    elif (pixels := _ome_pixels(file)) is not None:
        stated = int(pixels.get("SizeZ", 1)) * int(pixels.get("SizeT", 1))
    if depth < stated:
        raise VolumeError(
            path, f"truncated: {depth} sections", f"{stated} as its metadata says",
            "fetch or write the file again",
        )  # fmt: skip


def _voxel_size(file: Any, depth: int) -> tuple[float, float, float] | None:
    size = _ome_size(file) if file.is_ome else _imagej_size(file)
    if size is None:
        return None
    x, y, z = size
    if z is None and depth == 1:
        z = x  # a single section has no depth of its own
    return None if z is None else (round(x, 6), round(y, 6), round(z, 6))


def _ome_pixels(file: Any) -> Any:
    """The first Pixels element of OME-XML."""
    if not file.is_ome:
        return None
    for element in ElementTree.fromstring(file.ome_metadata).iter():
        if element.tag.rpartition("}")[2] == "Pixels":
            return element
    return None


def _ome_size(file: Any) -> tuple[float, float, float | None] | None:
    pixels = _ome_pixels(file)
    if pixels is None:
        return None
    lengths: list[float | None] = []
    for axis in "XYZ":
        value = pixels.get(f"PhysicalSize{axis}")
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm").lower()
        known = value is not None and unit in LENGTHS_NM
        lengths.append(float(value) * LENGTHS_NM[unit] if known else None)
    x, y, z = lengths
    return None if x is None or y is None else (x, y, z)


def _imagej_size(file: Any) -> tuple[float, float, float | None] | None:
    """ImageJ keeps pixels for each unit in the resolution tags and z in its own metadata."""
    metadata = file.imagej_metadata or {}
    unit = LENGTHS_NM.get(str(metadata.get("unit", "")).strip().lower())
    tags = file.pages[0].tags
    if unit is None or "XResolution" not in tags or "YResolution" not in tags:
        return None
    (x_count, x_units), (y_count, y_units) = tags["XResolution"].value, tags["YResolution"].value
    if not x_count or not y_count:
        return None
    spacing = metadata.get("spacing")
    depth = abs(float(spacing)) * unit if spacing else None
    return x_units / x_count * unit, y_units / y_count * unit, depth


def _attributes(file: Any) -> dict[str, Any]:
    """What our own export wrote into the description."""
    if not file.is_ome:
        return {}
    for element in ElementTree.fromstring(file.ome_metadata).iter():
        if (element.text or "").startswith('{"neuropil"'):
            return dict(json.loads(element.text or "")["neuropil"])
    return {}
