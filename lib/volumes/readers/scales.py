"""The coarser copies that lie beside a chunked volume, and what of it is decoded at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.volumes.boxes import Triple
from lib.volumes.errors import VolumeError
from lib.volumes.readers.chunked import (
    is_array,
    level_names,
    open_precomputed,
    open_zarr,
    read_json,
)
from lib.volumes.readers.chunked_source import ChunkedSource
from lib.volumes.readers.remote import Folder, RemoteFolder, is_remote
from lib.volumes.source import Cropped, Source

logger = logging.getLogger("neuropil.volumes")

Factor = tuple[float, float, float]
LEAST = 1.001
"""A copy is coarser along an axis from this factor on: stated sizes are rounded."""
UNIT: Triple = (64, 64, 16)
"""What is read at once of volumes whose files do not tell in which parts they are decoded."""


@dataclass(frozen=True)
class Copy:
    """A volume, or a coarser copy of it.

    Args:
        source: its voxels.
        factor: voxels of the volume in one of the copy's, along x, y, z.
        start: where the volume's first voxel begins, in the copy's voxels.
    """

    source: Source
    factor: Factor = (1.0, 1.0, 1.0)
    start: Factor = (0.0, 0.0, 0.0)

    @property
    def unit(self) -> Triple:
        """Voxels that are decoded together."""
        return unit_of(self.source)


def unit_of(source: Source) -> Triple:
    """Voxels of a volume that are decoded together, as far as is known."""
    inner = source.inner if isinstance(source, Cropped) else source
    parts = inner.chunk if isinstance(inner, ChunkedSource) else UNIT
    x, y, z = (min(p, n) for p, n in zip(parts, source.shape, strict=True))
    return x, y, z


def coarser_copies(source: Source) -> list[Copy]:
    """The coarser copies of a chunked volume, finest first.

    Levels of OME-Zarr, scales of Precomputed, and, on a disk, arrays in one folder with it (N5,
    magnifications of WEBKNOSSOS) count where their shape is the volume's, divided as their voxel
    sizes say. One that cannot be opened is left out, and logged.
    """
    found = []
    for other in _others(source):
        copy = _copy(source, other)
        if copy is None:
            other.close()
        else:
            found.append(copy)
    return sorted(found, key=lambda copy: math.prod(copy.factor))


def _others(source: Source) -> Iterator[Source]:
    """What lies beside a volume and may be a copy of it."""
    if not isinstance(source, ChunkedSource | Cropped):
        return
    info = source.info
    group: Folder = RemoteFolder(info.path) if is_remote(info.path) else Path(info.path)
    scales = (read_json(group / "info") or {}).get("scales")
    if scales:
        names = [str(n) for n in range(len(scales))]
    else:
        array = group / info.dataset if info.dataset else group
        group = array.parent
        names = level_names(group)
        if not names and info.dataset and info.voxel_size_nm and isinstance(group, Path):
            names = [folder.name for folder in group.iterdir() if is_array(folder)]
    for name in sorted(names):
        try:
            yield open_precomputed(group, name) if scales else open_zarr(group, name, "image")
        except VolumeError as error:
            logger.warning("a coarser copy is left out: %s", error)


def _copy(source: Source, other: Source) -> Copy | None:
    """Another array as a copy of a volume; None where it is none, or not coarser."""
    one, two = source.info, other.info
    if one.dtype != two.dtype:
        return None
    if one.voxel_size_nm is not None and two.voxel_size_nm is not None:
        x, y, z = (b / a for a, b in zip(one.voxel_size_nm, two.voxel_size_nm, strict=True))
    elif one.voxel_size_nm is None and two.voxel_size_nm is None:
        x, y, z = (float(round(a / b)) for a, b in zip(one.shape, two.shape, strict=True))
    else:
        return None
    factor = (x, y, z)
    expected = (n / f for n, f in zip(one.shape, factor, strict=True) if f)
    fits = min(factor) > 1 / LEAST and max(factor) > LEAST
    if not fits or any(abs(e - n) > 1 for e, n in zip(expected, two.shape, strict=True)):
        return None
    start = (0.0, 0.0, 0.0)
    if one.placed and two.placed:
        a, b, c = (p / f - q for p, f, q in zip(one.origin, factor, two.origin, strict=True))
        start = (a, b, c)
    return Copy(other, factor, start)
