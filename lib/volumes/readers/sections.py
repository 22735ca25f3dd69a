"""A folder of sections (.png, .tif), one file for each z, in the order of their numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lib.volumes.boxes import Box, Triple
from lib.volumes.errors import VolumeError
from lib.volumes.readers.tiff import open_tiff
from lib.volumes.source import Source, SourceInfo, damaged

PNG = ".png"
TIFF = (".tif", ".tiff")
LARGEST_SECTION = 1 << 32
"""Pixels; Pillow's own limit against decompression bombs is below real EM sections."""
_TYPES = {
    "L": np.uint8,
    "I;16": np.uint16,
    "I": np.int32,
    "I;16B": np.uint16,
    "1": np.bool_,
    "LA": np.uint8,
}


class PngSource(Source):
    """A single PNG section; decoded whole, because PNG cannot be entered in the middle."""

    def __init__(self, path: Path) -> None:
        with _open_png(path) as image:
            mode, (x, y) = image.mode, image.size
        if mode not in _TYPES:
            raise VolumeError(
                path, f"a colour image ({mode})", "grey values", "convert it to 8 or 16 bit grey"
            )
        super().__init__(SourceInfo(str(path), "", (x, y, 1), np.dtype(_TYPES[mode])))

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), _ = box
        with _open_png(Path(self.info.path)) as image:
            try:
                pixels = np.asarray(image)
            except (OSError, ValueError, SyntaxError) as error:
                raise damaged(self.info.path, error) from error
        if pixels.ndim == 3:
            if not (pixels[..., 1] == 255).all():
                raise VolumeError(
                    self.info.path, "an image with transparent pixels", "grey values",
                    "remove its alpha channel",
                )  # fmt: skip
            pixels = pixels[..., 0]
        return pixels.astype(self.dtype, copy=False)[c:d, a:b].T[:, :, None]


class SectionsSource(Source):
    """Sections of equal size and type, one file each."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        first = open_section(files[0])
        x, y, _ = first.shape
        size = first.info.voxel_size_nm
        info = SourceInfo(str(folder), "", (x, y, len(files)), first.dtype)
        super().__init__(info)
        self._files = files
        self._size_of_first = size
        first.close()

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        out = np.empty((f - e, d - c, b - a), self.dtype)
        for z in range(e, f):
            section = open_section(self._files[z])
            try:
                self._check_same(section, self._files[z])
                out[z - e] = section.read(((a, b), (c, d), (0, 1)))[:, :, 0].T
            finally:
                section.close()
        return out.transpose(2, 1, 0)

    def _check_same(self, section: Source, path: Path) -> None:
        x, y, _ = self.shape
        wanted: Triple = (x, y, 1)
        if section.shape != wanted or section.dtype != self.dtype:
            raise VolumeError(
                path, f"a section of {section.shape[0]} x {section.shape[1]}, {section.dtype}",
                f"{x} x {y}, {self.dtype} as the first of the folder",
                "sections of one folder must have one size and type",
            )  # fmt: skip


def open_section(path: Path) -> Source:
    """Open one section file.

    Raises:
        VolumeError: damaged, colour, or several sections in it.
    """
    source = PngSource(path) if path.suffix.lower() == PNG else open_tiff(path)
    if source.shape[2] != 1:
        source.close()
        raise VolumeError(path, f"{source.shape[2]} sections", "one, as part of a folder")
    return source


def section_files(folder: Path) -> list[Path]:
    """The section files of a folder, numbers compared as numbers ("z9" before "z10")."""
    files = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in (PNG, *TIFF) and not p.name.startswith(".") and p.is_file()
    ]
    return sorted(files, key=lambda p: _natural(p.name))


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(p)) if i % 2 else (1, p) for i, p in enumerate(parts)]


def _open_png(path: Path) -> Any:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST_SECTION
    try:
        return Image.open(path)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise damaged(str(path), error) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
