"""Which pages of a TIFF file are its sections: all of them, or those that the user names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lib.volumes.errors import VolumeError
from lib.volumes.readers.roles import Role

REDUCED = 1
"""Bit of NewSubfileType that marks a thumbnail."""
_SINGLE_PAGES = ("shaped", "generic", "uniform")
"""Kinds of series that tifffile makes of pages which nothing ties together."""


COLOUR_REMEDY = (
    "convert it to 8 or 16 bit grey; write three or four sections that a program took for colours "
    "anew as grey pages (tifffile: photometric='minisblack')"
)


def choose_series(path: Path, file: Any, wanted: str) -> list[Any]:
    """The series that together are the stack.

    Args:
        wanted: number of the series; "" for the only one, or for single pages of one size.

    Raises:
        VolumeError: no such series, or pages that are no one stack; they are listed.
    """
    try:
        _ = file.series
    except RuntimeError:  # pages that do not fit together
        _refuse_odd_pages(path)
        raise
    series = [s for s in file.series if not _is_reduced(s)] or list(file.series)
    _refuse_lost_pages(path, file)
    if any(s.kind == "uniform" for s in series):
        _refuse_odd_pages(path)
    if wanted:
        if not wanted.isdigit() or int(wanted) >= len(file.series):
            raise VolumeError(path, f"no series {wanted!r}", f"one of: {_listed(file.series)}")
        return [file.series[int(wanted)]]
    if len(series) == 1:
        return series
    pages = {(s.shape, np.dtype(s.dtype).str, s.kind) for s in series}
    if len(pages) == 1 and all(s.kind in _SINGLE_PAGES and s.axes == "YX" for s in series):
        return series  # pages that were appended one by one
    count = sum(len(s.pages) for s in series)
    raise VolumeError(
        path, f"{count} pages that are {len(series)} images: {_listed(file.series)}",
        "sections of one size and type",
        f"name one as {path.name}:NUMBER, or save the sections alone",
    )  # fmt: skip


def refuse_colour(path: Path, series: Any, role: Role) -> None:
    """Refuse pages without one grey value, or one index of a label, a pixel.

    Raises:
        VolumeError: colours, channels, or a grey scale whose meaning is not clear.
    """
    page = series.keyframe
    photometric = page.photometric
    kind = getattr(photometric, "name", str(photometric))
    if photometric == tifffile.PHOTOMETRIC.PALETTE and role == "image":
        raise VolumeError(
            path, "an indexed-colour image, whose values are no brightness", "grey values",
            "import it as --semantic or --instance if it is a label, else convert it to grey",
        )  # fmt: skip
    grey = (
        tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE,
        tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MASK,
    )  # fmt: skip
    if page.samplesperpixel > 1 or photometric not in grey:
        raise VolumeError(
            path, f"a colour image ({kind}, {page.samplesperpixel} samples a pixel)",
            "grey values", COLOUR_REMEDY,
        )  # fmt: skip
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE and role != "image":
        raise VolumeError(
            path, "a label whose 0 is white (photometric interpretation WhiteIsZero): programs "
            "differ in what its values are", "BlackIsZero or a palette", "save the label again",
        )  # fmt: skip
    turned = page.tags.get("Orientation")
    if turned is not None and int(turned.value) > 1:
        raise VolumeError(
            path, f"pages to be turned for display (Orientation {int(turned.value)}), which "
            "programs do or leave", "Orientation 1", "save them as they are to be seen",
        )  # fmt: skip
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if sizes.get("C", 1) > 1 or sizes.get("S", 1) > 1:
        raise VolumeError(
            path, f"{sizes.get('C', sizes.get('S'))} channels", "one channel of grey values",
            "save the channel you need as a file of its own",
        )  # fmt: skip


def stack_shape(path: Path, series: Any) -> tuple[int, int, int]:
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


def _refuse_lost_pages(path: Path, file: Any) -> None:
    """Pages behind those that the metadata speaks of (appended later) must not be lost."""
    spoken_of = sum(len(level.pages) for s in file.series for level in s.levels)
    if len(file.pages) > spoken_of:
        raise VolumeError(
            path, f"{len(file.pages)} pages, of which its metadata describes {spoken_of}",
            "metadata for all pages", "save the stack again, for example with Fiji",
        )  # fmt: skip


def _refuse_odd_pages(path: Path) -> None:
    """tifffile calls a file uniform by a look at a few pages: look at the tags of all."""
    with tifffile.TiffFile(path) as file:
        file.pages.useframes = False
        pages: list[Any] = list(file.pages)
        first, count = pages[0], len(pages)
        for number, page in enumerate(pages):
            if (page.shape, page.dtype) != (first.shape, first.dtype):
                raise VolumeError(
                    path, f"{count} pages, of which page {number} is one of "
                    f"{page.imagewidth} x {page.imagelength}, {page.dtype}",
                    f"{first.imagewidth} x {first.imagelength}, {first.dtype} as page 0",
                    "save the sections in one size and type",
                )  # fmt: skip


def _is_reduced(series: Any) -> bool:
    tag = series.keyframe.tags.get("NewSubfileType")
    return tag is not None and bool(int(tag.value) & REDUCED)


def _listed(series: Sequence[Any]) -> str:
    parts = []
    for i, s in enumerate(series[:20]):
        sizes = dict(zip(s.axes, s.shape, strict=True))
        pages = math.prod(s.shape) // max(1, sizes.get("X", 1) * sizes.get("Y", 1))
        parts.append(f"{i}: {pages} of {sizes.get('X')} x {sizes.get('Y')}, {np.dtype(s.dtype)}")
    return "; ".join(parts) + ("; ..." if len(series) > 20 else "")
