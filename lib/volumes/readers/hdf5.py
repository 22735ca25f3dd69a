"""HDF5 files, CREMI-style or any other; axes are z, y, x where no name says another order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box
from lib.volumes.errors import damaged
from lib.volumes.lengths import Size, StatedSize, stated_size
from lib.volumes.readers.axes import NAME_KEYS, Axes, along, axis_names, offset_nm, space_axes
from lib.volumes.readers.hdf5_stored import check_written, stored_chunks
from lib.volumes.readers.roles import Role, choose_dataset
from lib.volumes.source import Source, SourceInfo, Stored


class Hdf5Source(Source):
    """One dataset of an HDF5 file.

    Args:
        axes: the dataset's axes that are x, y, z.
    """

    def __init__(self, info: SourceInfo, file: Any, dataset: Any, axes: Axes) -> None:
        super().__init__(info)
        self._file, self._dataset, self._axes = file, dataset, axes

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def stored(self, box: Box) -> Stored:
        """How many of a box's chunks were written."""
        spans = [(0, 1)] * self._dataset.ndim
        for axis, span in zip(self._axes, box, strict=True):
            if axis is not None:
                spans[axis] = span
        return stored_chunks(self._dataset, spans)

    def _read(self, box: Box) -> NDArray[Any]:
        index: list[int | slice] = [0] * self._dataset.ndim
        for axis, (start, stop) in zip(self._axes, box, strict=True):
            if axis is not None:
                index[axis] = slice(start, stop)
        voxels = np.asarray(self._dataset[tuple(index)])
        present = sorted(a for a in self._axes if a is not None)
        voxels = voxels.transpose([present.index(a) for a in self._axes if a is not None])
        return np.expand_dims(voxels, 2) if self._axes[2] is None else voxels


def open_hdf5(path: Path, dataset: str, role: Role) -> Hdf5Source:
    """Open a dataset of an HDF5 file.

    Args:
        dataset: its path; "" takes the CREMI path of the role, or the only volume there is.

    Raises:
        VolumeError: no such dataset (the existing ones are listed), a file that its writer
            holds, a damaged one, or a dataset that holds nothing.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise damaged(str(path), error) from error
    try:
        name = choose_dataset(path, dataset, role, list_datasets(file))
        found = file[name]
        where = f"{path}:{name}"
        axes = space_axes(where, found.shape, _names(found))
        x, y, z = (1 if a is None else int(found.shape[a]) for a in axes)
        size = _voxel_size(found, axes)
        info = SourceInfo(
            str(path), name, (x, y, z), np.dtype(found.dtype), size.nm,
            offset_nm=_offset(found, axes), size_fault=size.fault,
            chunk_depth=found.chunks[axes[2]] if found.chunks and axes[2] is not None else 1,
            attributes=json.loads(str(found.attrs.get("neuropil", "{}"))),
        )  # fmt: skip
        check_written(where, path, found)
        return Hdf5Source(info, file, found, axes)
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


def _names(dataset: Any) -> list[str] | None:
    """Axis names: dimension labels and scales, or an attribute of another program (ilastik)."""
    labels = [dim.label for dim in dataset.dims]
    if any(labels):
        return axis_names({"axes": labels})
    attributes = {k: dataset.attrs[k] for k in NAME_KEYS if k in dataset.attrs}
    tags = attributes.get("axistags")
    if tags is not None:
        try:
            attributes["axistags"] = json.loads(tags)
        except ValueError:
            del attributes["axistags"]
    return axis_names(attributes)


def _voxel_size(dataset: Any, axes: Axes) -> StatedSize:
    """From `element_size_um` (ilastik, Fiji), or `resolution` (nm, CREMI) and its like."""
    attributes = dataset.attrs
    for key, unit in (("element_size_um", "um"), ("resolution", "nm"), ("voxel_size", "nm")):
        if key in attributes:
            lengths = along(np.ravel(attributes[key]).tolist(), axes, dataset.ndim)
            if lengths is None:
                continue
            return stated_size(lengths, unit if unit == "um" else _units(dataset, axes))
    return StatedSize()


def _units(dataset: Any, axes: Axes) -> Any:
    """`units` of the dataset for x, y, z; nm where it has none."""
    stated = dataset.attrs.get("units", dataset.attrs.get("unit"))
    if stated is None:
        return "nm"
    words = [w.decode() if isinstance(w, bytes) else str(w) for w in np.ravel(stated).tolist()]
    return words[0] if len(words) == 1 else along(words, axes, dataset.ndim) or "nm"


def _offset(dataset: Any, axes: Axes) -> Size | None:
    """`offset` along the dataset's axes, in the unit of its `resolution`, as x, y, z in nm."""
    if "offset" not in dataset.attrs:
        return None
    return offset_nm(
        np.ravel(dataset.attrs["offset"]).tolist(), _units(dataset, axes), axes, dataset.ndim
    )
