"""The image of a request, as voxels for the network and as a frame for the answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.infers.geometry import Affine, file_affine
from lib.volumes.nifti import NiftiSource
from lib.volumes.readers.opening import open_file
from lib.volumes.record import read_record, record_path
from lib.volumes.source import Source
from lib.volumes.study import IMAGE_SUFFIXES


@dataclass(frozen=True)
class RequestImage:
    """An image that a viewer has open.

    Args:
        path: the file.
        voxels: (X, Y, Z) in the order in which viewers index it, read lazily.
        affine: of the file, RAS, viewer units.
        voxel_size_nm: (x, y, z).
    """

    path: Path
    voxels: Any
    affine: Affine
    voxel_size_nm: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent in voxels."""
        x, y, z = (int(n) for n in self.voxels.shape)
        return x, y, z


def item_id(path: Path) -> str:
    """The name of an image without its extension."""
    for suffix in IMAGE_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def open_image(path: Path, spacing_unit: str) -> RequestImage:
    """Open an image of the study, of a session or of an upload.

    Raises:
        VolumeError: it cannot be read, or has other than one grey value a voxel.
    """
    source = open_file(path, spacing_unit)
    recorded = record_path(path.parent, item_id(path))
    if recorded.exists():
        size = read_record(recorded).voxel_size_nm
    else:
        size = source.info.voxel_size_nm or (1.0, 1.0, 1.0)
    return RequestImage(path, _voxels(source), file_affine(path), size)


def _voxels(source: Source) -> Any:
    """A memory map where the file allows it, else the whole volume.

    A compressed file is decoded from its start for each slice: once into memory is cheaper.
    """
    if isinstance(source, NiftiSource):
        mapped = source.memory_map()
        if mapped is not None:
            return mapped
    return np.asarray(source)
