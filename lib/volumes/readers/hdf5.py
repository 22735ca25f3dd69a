"""HDF5 files, CREMI-style or any other, with z, y, x axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.roles import Role, choose_dataset
from lib.volumes.source import Source, SourceInfo, damaged


class Hdf5Source(Source):
    """One dataset of an HDF5 file."""

    def __init__(self, info: SourceInfo, file: Any, dataset: Any) -> None:
        super().__init__(info)
        self._file, self._dataset = file, dataset

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        lead = (0,) * (self._dataset.ndim - 3)
        if self._dataset.ndim == 2:
            return np.asarray(self._dataset[c:d, a:b]).T[:, :, None]
        return np.asarray(self._dataset[(*lead, slice(e, f), slice(c, d), slice(a, b))]).T


def open_hdf5(path: Path, dataset: str, role: Role) -> Hdf5Source:
    """Open a dataset of an HDF5 file.

    Args:
        dataset: its path; "" takes the CREMI path of the role, or the only volume there is.

    Raises:
        VolumeError: no such dataset (the existing ones are listed), or a damaged file.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise damaged(str(path), error) from error
    try:
        name = choose_dataset(path, dataset, role, list_datasets(file))
        found = file[name]
        info = SourceInfo(
            str(path),
            name,
            _shape(f"{path}:{name}", found.shape),
            np.dtype(found.dtype),
            _voxel_size(found),
            offset_nm=_triple(found.attrs.get("offset")),
            chunk_depth=found.chunks[-3] if found.chunks and found.ndim >= 3 else 1,
            attributes=json.loads(str(found.attrs.get("neuropil", "{}"))),
        )
        return Hdf5Source(info, file, found)
    except BaseException:
        file.close()
        raise


def list_datasets(file: Any) -> dict[str, tuple[int, ...]]:
    """Every numeric dataset of a file with its shape."""
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "uifb" and node.ndim >= 1:
            found[name] = node.shape

    file.visititems(visit)
    return found


def _shape(where: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) < 2 or any(n != 1 for n in shape[:-3]):
        raise VolumeError(
            where, f"a dataset of shape {shape}", "three axes (z, y, x)",
            "split channels or time points into datasets of their own",
        )  # fmt: skip
    z, y, x = (1, *shape)[-3:]
    return int(x), int(y), int(z)


def _voxel_size(dataset: Any) -> tuple[float, float, float] | None:
    """From `resolution` (nm, CREMI) or `element_size_um` (ilastik), both z, y, x."""
    if "element_size_um" in dataset.attrs:
        return _triple(dataset.attrs["element_size_um"], 1e3)
    return _triple(dataset.attrs.get("resolution"))


def _triple(value: Any, factor: float = 1.0) -> tuple[float, float, float] | None:
    """(x, y, z) from a z, y, x attribute; None where there is none."""
    if value is None or np.size(value) != 3:
        return None
    z, y, x = (float(v) * factor for v in np.ravel(value))
    return x, y, z
