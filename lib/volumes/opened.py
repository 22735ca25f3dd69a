"""Images that viewers work on: voxels for the network, and a frame for the answer; kept open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.contrast import LazyImage
from lib.volumes.errors import VolumeError
from lib.volumes.listing import split_name
from lib.volumes.nifti import NiftiSource
from lib.volumes.readers.opening import open_file
from lib.volumes.readers.region import RegionSource
from lib.volumes.record import ItemRecord, read_record, record_path
from lib.volumes.seen import as_seen
from lib.volumes.source import Source

MOST_DECODED = 8 * 2**30
"""A compressed image up to this size is decoded whole into memory."""

MOST_KEPT = 16
MOST_IDENTITIES = 1024

BRIGHT = "|bright membranes"
"""What the identity of an image with bright membranes ends with."""

Affine = NDArray[np.float64]
"""(4, 4): voxel [i, j, k, 1] of an image as loaded -> RAS coordinates, viewer units."""


@dataclass(frozen=True)
class RequestImage:
    """An image that a viewer has open.

    Args:
        path: the file.
        voxels: (X, Y, Z) in the order in which viewers index it, read lazily.
        affine: of the file, RAS, viewer units.
        voxel_size_nm: (x, y, z).
        key: identity of the image, see `ImageStore.identity`.
        warnings: what every reply about it tells.
        bright_membranes: whether its membranes are brighter than what they enclose.
    """

    path: Path
    voxels: Any
    affine: Affine
    voxel_size_nm: tuple[float, float, float]
    key: str
    warnings: tuple[str, ...] = ()
    bright_membranes: bool = False

    @property
    def seen(self) -> LazyImage:
        """The voxels with the contrast that the network sees."""
        return as_seen(self.voxels, self.bright_membranes)

    def seen_with(self, bright_membranes: bool) -> RequestImage:
        """The image as if its membranes were as said; what is computed of it is kept apart."""
        if bright_membranes == self.bright_membranes:
            return self
        key = self.key.removesuffix(BRIGHT) + (BRIGHT if bright_membranes else "")
        return replace(self, bright_membranes=bright_membranes, key=key)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent in voxels."""
        x, y, z = (int(n) for n in self.voxels.shape)
        return x, y, z


def item_id(path: Path) -> str:
    """The name of an image without its extension."""
    name, ending = split_name(path.name)
    return name if ending else path.stem


class ImageStore:
    """Images opened for requests, kept while they stay the same file.

    A click must not decode a compressed volume again.

    Args:
        spacing_unit: of files without a record.
        budget: most bytes of decoded voxels kept; memory maps are free.
        bright_membranes: of images whose record does not say.
    """

    def __init__(
        self, spacing_unit: str, budget: int = MOST_DECODED, bright_membranes: bool = False
    ) -> None:
        self.spacing_unit = spacing_unit
        self.budget = budget
        self.bright_membranes = bright_membranes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, RequestImage] = OrderedDict()
        self._identities: OrderedDict[str, str] = OrderedDict()

    def identity(self, path: Path) -> str:
        """What identifies an image: its file, its voxel size, and whether its membranes are bright.

        A submission writes into the record; what was computed of the image stays good.

        Raises:
            VolumeError: no such file, or it or its record cannot be read.
        """
        state = file_state(path)
        with self._lock:
            if state in self._identities:
                return self._identities[state]
        source = open_file(path, self.spacing_unit)
        try:
            record = _record(path, source)
        finally:
            source.close()
        made = f"{_state(path)}|{record.voxel_size_nm}|{record.size_assumed}"
        made += BRIGHT if record.membranes_are_bright(self.bright_membranes) else ""
        with self._lock:
            self._identities[state] = made
            while len(self._identities) > MOST_IDENTITIES:
                self._identities.popitem(last=False)
        return made

    def open(self, path: Path) -> RequestImage:
        """Open an image of the study, of a session or of an upload.

        Raises:
            VolumeError: it cannot be read, or has other than one grey value a voxel.
        """
        key = self.identity(path)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        image = self._read(path, key)
        with self._lock:
            self._kept[key] = image
            while len(self._kept) > MOST_KEPT or self._bytes() > self.budget:
                if len(self._kept) == 1:
                    break
                self._kept.popitem(last=False)
        return image

    def _bytes(self) -> int:
        arrays = (image.voxels for image in self._kept.values())
        return sum(
            a.nbytes for a in arrays if isinstance(a, np.ndarray) and not isinstance(a, np.memmap)
        )

    def _read(self, path: Path, key: str) -> RequestImage:
        source = open_file(path, self.spacing_unit)
        record = _record(path, source)
        affine = np.eye(4) if source.affine is None else source.affine
        warnings = (record.warning(),) if record.size_assumed else ()
        return RequestImage(
            path, _voxels(source), affine, record.voxel_size_nm, key, warnings,
            record.membranes_are_bright(self.bright_membranes),
        )  # fmt: skip


def file_state(path: Path) -> str:
    """Changes whenever an image's file or its record does, without reading either.

    Raises:
        VolumeError: no such file.
    """
    recorded = record_path(path.parent, item_id(path))
    return f"{_state(path)}|{_state(recorded) if recorded.exists() else ''}"


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise VolumeError(path, "no such file or folder") from error
    return f"{path}|{found.st_mtime_ns}|{found.st_size}|{found.st_ino}"


def _record(path: Path, source: Source) -> ItemRecord:
    name = item_id(path)
    return read_record(record_path(path.parent, name), name, source.info.voxel_size_nm)


def _voxels(source: Source) -> Any:
    """A memory map where the file allows it, else the whole volume.

    A compressed file is decoded from its start for each slice: once into memory is cheaper.
    """
    if isinstance(source, NiftiSource):
        mapped = source.memory_map()
        if mapped is not None:
            return mapped
    if isinstance(source, RegionSource):  # chunks are read as they are needed, with what is around
        return source
    x, y, z = source.shape
    return np.asarray(source) if x * y * z * source.dtype.itemsize <= MOST_DECODED else source
