"""Zarr, OME-Zarr and N5, through tensorstore; chunks appear one by one."""

from __future__ import annotations

import contextlib
import math
import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorstore as ts

from lib.volumes.atomic import aside_of, remove_leftovers, swap_folder, write_json
from lib.volumes.boxes import box_shape
from lib.volumes.errors import VolumeError, damaged_target
from lib.volumes.readers.chunked import read_json
from lib.volumes.writers.target import CHUNK, LabelTarget, ReadBox, TargetSpec
from lib.volumes.writing import Progress


class ChunkedTarget(LabelTarget):
    """An array of a container, with `resolution` and `offset` in nm along its axes."""

    driver: ClassVar[str]
    mark: ClassVar[str]
    """The file that makes a folder an array."""

    described: ClassVar[str]
    """The file of its attributes."""

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        self._place = Place(self._array(), self._is_array(self._array()), spec.replace)
        self._groups: list[Path] = []
        made = {"driver": self.driver, "kvstore": files_of(self._place.work)}
        if self._place.created:
            made["metadata"] = self._metadata()
        self._store = open_array(self._place.work, made, self._place.created)
        shape = self._along_axes(self._store.shape)
        spec.check_same((shape[0], shape[1], shape[2]), self._store.dtype.numpy_dtype)
        if self._place.created:
            self._describe(self._place.work / self.described)
            if not self._place.replaces:
                self._announce()
        attributes = read_json(self._place.work / self.described) or {}
        self.attributes = attributes.get("neuropil", {})

    def write(self, read: ReadBox, progress: Progress | None) -> None:
        """Write the item's voxels, slab by slab."""
        for own, there in self.spec.parts(CHUNK):
            part = self._store[tuple(slice(a, b) for a, b in self._along_axes(there))]
            write_part(self._place.folder, part, read(own).transpose(self._along_axes((0, 1, 2))))
            if progress is not None:
                progress(math.prod(box_shape(own)))

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Keep the table of class sets beside the data."""
        path = self._place.work / self.described
        write_json(path, {**(read_json(path) or {}), "neuropil": attributes})

    def finish(self) -> None:
        """Put a new array in the place of the one that it replaces."""
        if self._place.replaces:
            self._place.finish()
            self._announce()

    def discard(self) -> None:
        """Remove an array that this export began."""
        if self._place.created:
            self._place.discard()
            for mark in self._groups:
                mark.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    mark.parent.rmdir()  # unless others have put something there

    def _array(self) -> Path:
        """The array's folder."""
        return self.spec.path / self.spec.dataset

    def _is_array(self, folder: Path) -> bool:
        return (folder / self.mark).exists()

    def _along_axes(self, values: Sequence[Any]) -> list[Any]:
        """x, y, z in the order of the array's axes, and back."""
        return list(values)[::-1]

    @abstractmethod
    def _metadata(self) -> dict[str, Any]:
        """What tensorstore needs to make the array."""

    @abstractmethod
    def _describe(self, path: Path) -> None:
        """Write the array's attributes."""

    @abstractmethod
    def _announce(self) -> None:
        """Write what lies around the array: it is a part of groups."""

    def _lengths(self) -> dict[str, Any]:
        return {
            "resolution": self._along_axes(self.spec.voxel_size_nm),
            "offset": self._along_axes(self.spec.offset_nm),
            "units": ["nm"] * 3,
        }

    def _mark_groups(self, name: str, content: dict[str, Any]) -> None:
        """Make the folders above the array groups, up to the container."""
        for parent in self._place.folder.parents:
            if not (parent / name).exists():
                write_json(parent / name, content)
                self._groups.append(parent / name)
            if parent == self.spec.path:
                break


class ZarrTarget(ChunkedTarget):
    """A Zarr 2 array with axes z, y, x."""

    driver, mark, described = "zarr", ".zarray", ".zattrs"

    def _metadata(self) -> dict[str, Any]:
        shape = self._along_axes(self.spec.shape)
        return {
            "shape": shape,
            "chunks": [min(CHUNK, n) for n in shape],
            "dtype": self.spec.dtype.newbyteorder("<").str,
            "fill_value": self.spec.outside,
            "dimension_separator": ".",
            "compressor": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1},
        }

    def _describe(self, path: Path) -> None:
        write_json(path, {"_ARRAY_DIMENSIONS": ["z", "y", "x"], **self._lengths()})

    def _announce(self) -> None:
        self._mark_groups(".zgroup", {"zarr_format": 2})


class OmeZarrTarget(ZarrTarget):
    """An OME-Zarr 0.4 image of one resolution; its place is a `translation`."""

    def __init__(self, spec: TargetSpec) -> None:
        group = spec.path / spec.dataset
        check_place(group, self._is_array(group / "0"))
        super().__init__(spec)

    def _array(self) -> Path:
        return super()._array() / "0"

    def _announce(self) -> None:
        super()._announce()
        axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
        places = [
            {"type": "scale", "scale": self._along_axes(self.spec.voxel_size_nm)},
            {"type": "translation", "translation": self._along_axes(self.spec.offset_nm)},
        ]
        datasets = [{"path": "0", "coordinateTransformations": places}]
        image = {"version": "0.4", "name": self._array().parent.name, "axes": axes,
                 "datasets": datasets}  # fmt: skip
        label = {"image-label": {"version": "0.4"}}
        path = self._array().parent / ".zattrs"
        write_json(path, {"multiscales": [image], **label})
        self._groups.append(path)


class N5Target(ChunkedTarget):
    """An N5 dataset with axes x, y, z; it reads 0 where nothing is written."""

    driver, mark, described = "n5", "attributes.json", "attributes.json"
    empty = 0

    def _along_axes(self, values: Sequence[Any]) -> list[Any]:
        return list(values)

    def _metadata(self) -> dict[str, Any]:
        return {
            "dimensions": list(self.spec.shape),
            "blockSize": [min(CHUNK, n) for n in self.spec.shape],
            "dataType": self.spec.dtype.name,
            "compression": {"type": "gzip", "level": 1},
        }

    def _is_array(self, folder: Path) -> bool:
        return "dimensions" in (read_json(folder / self.mark) or {})

    def _describe(self, path: Path) -> None:
        size = {"unit": "nm", "dimensions": list(self.spec.voxel_size_nm)}
        more = {"axes": ["x", "y", "z"], "pixelResolution": size, **self._lengths()}
        write_json(path, {**(read_json(path) or {}), **more})

    def _announce(self) -> None:
        self._mark_groups("attributes.json", {"n5": "2.5.0"})


class Place:
    """Where an array goes: a new folder, one that is there, or one that takes its place.

    What replaces an array is written beside it: until it is whole the old one stays as it was.

    Args:
        folder: of the array.
        exists: whether it holds one.
        replace: whether that one is to go.

    Raises:
        VolumeError: the folder holds something else.
    """

    def __init__(self, folder: Path, exists: bool, replace: bool) -> None:
        check_place(folder, exists)
        self.folder = folder
        self.replaces = exists and replace
        self.created = replace or not exists
        if self.replaces:
            remove_leftovers([folder.parent])
        self.work = aside_of(folder) if self.replaces else folder

    def finish(self) -> None:
        """Put what was written in its place."""
        if self.replaces:
            swap_folder(self.work, self.folder)

    def discard(self) -> None:
        """Remove what was begun."""
        if self.created:
            shutil.rmtree(self.work, ignore_errors=True)


def check_place(folder: Path, exists: bool) -> None:
    """Refuse a folder of something else.

    Raises:
        VolumeError: it is not empty, and holds no array of the kind.
    """
    if not exists and folder.exists() and any(folder.iterdir()):
        raise VolumeError(
            folder, "exists and is no array of this kind", remedy="choose another target"
        )


def files_of(folder: Path) -> dict[str, str]:
    """A folder as a tensorstore key-value store."""
    return {"driver": "file", "path": f"{folder.resolve()}/"}


def open_array(folder: Path, spec: dict[str, Any], create: bool) -> Any:
    """Make or open an array; chunks are stored whatever they hold, so that none is missed.

    Raises:
        VolumeError: it cannot be made or opened.
    """
    spec = {**spec, "store_data_equal_to_fill_value": True}
    try:
        return ts.open(spec, create=create, open=not create).result()
    except (ValueError, OSError, RuntimeError) as error:
        raise damaged_target(folder, error) from error


def write_part(folder: Path, part: Any, values: Any) -> None:
    """Write a part of an array.

    Raises:
        VolumeError: the disk is full, or fails.
    """
    try:
        part.write(values).result()
    except (ValueError, RuntimeError) as error:
        raise VolumeError(folder, f"cannot be written ({error})") from error
