"""A folder of sections (.png, .tif), one file for each z, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lib.volumes.boxes import Box, Triple
from lib.volumes.errors import VolumeError, damaged
from lib.volumes.readers.roles import Role
from lib.volumes.readers.section_names import Gaps, order_sections
from lib.volumes.readers.tiff import open_tiff
from lib.volumes.source import Source, SourceInfo

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
    "P": np.uint8,
}
"""What Pillow's modes hold; "P" the indices of a palette, which are a label's values."""


class PngSource(Source):
    """A single PNG section; decoded whole, because PNG cannot be entered in the middle."""

    def __init__(self, path: Path, role: Role = "image") -> None:
        with _open_png(path) as image:
            mode, (x, y) = image.mode, image.size
            frames = getattr(image, "n_frames", 1)
        if frames != 1:
            raise VolumeError(path, f"{frames} pictures (animated PNG)", "one section")
        if mode == "P" and role == "image":
            raise VolumeError(
                path, "an indexed-colour image, whose values are no brightness", "grey values",
                "import it as --semantic or --instance if it is a label, else convert it to grey",
            )  # fmt: skip
        if mode not in _TYPES:
            raise VolumeError(
                path, f"a colour image ({mode})", "grey values, or indices of a label",
                "save one channel as 8 or 16 bit grey",
            )  # fmt: skip
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
    """Sections of equal size and type, one file each.

    Args:
        files: in order; None for a section that is missing, which reads as 0.
    """

    def __init__(
        self, folder: Path, files: Sequence[Path | None], role: Role = "image",
        warnings: tuple[str, ...] = (), pattern: str = "",
    ) -> None:  # fmt: skip
        first = open_section(next(p for p in files if p is not None), role)
        x, y, _ = first.shape
        missing = tuple(z for z, path in enumerate(files) if path is None)
        info = SourceInfo(
            str(folder), pattern, (x, y, len(files)), first.dtype, warnings=warnings,
            missing_sections=missing,
        )  # fmt: skip
        super().__init__(info)
        self._files, self._role = files, role
        first.close()

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        out = np.zeros((f - e, d - c, b - a), self.dtype)
        for z in range(e, f):
            path = self._files[z]
            if path is None:
                continue
            section = open_section(path, self._role)
            try:
                self._check_same(section, path)
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


def open_section(path: Path, role: Role = "image") -> Source:
    """Open one section file.

    Raises:
        VolumeError: damaged, colour, or several sections in it.
    """
    source = PngSource(path, role) if path.suffix.lower() == PNG else open_tiff(path, "", role)
    if source.shape[2] != 1:
        source.close()
        raise VolumeError(path, f"{source.shape[2]} sections", "one, as part of a folder")
    return source


def open_sections(
    folder: Path, pattern: str = "", role: Role = "image", gaps: Gaps = "refuse"
) -> SectionsSource | None:
    """Open a folder of section files; None where it has none.

    Args:
        pattern: of the names to take; "" for all.
        gaps: what becomes of missing numbers.

    Raises:
        VolumeError: several stacks, or missing numbers that are not allowed.
    """
    found = order_sections(folder, (PNG, *TIFF), pattern, gaps)
    if not found.files:
        return None
    return SectionsSource(folder, found.files, role, found.warnings, pattern)


def _open_png(path: Path) -> Any:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = LARGEST_SECTION
    try:
        return Image.open(path)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise damaged(str(path), error) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
