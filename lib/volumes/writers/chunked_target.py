"""Zarr and Precomputed, through tensorstore; chunks appear one by one."""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path
from typing import Any

import tensorstore as ts

from lib.volumes.atomic import write_json
from lib.volumes.boxes import box_origin, box_shape
from lib.volumes.errors import VolumeError, damaged_target
from lib.volumes.readers.chunked import read_json
from lib.volumes.writers.target import CHUNK, LabelTarget, ReadBox, TargetSpec
from lib.volumes.writing import Progress


class ZarrTarget(LabelTarget):
    """A Zarr 2 array with z, y, x axes, and `resolution` and `offset` in nm."""

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        self._folder = spec.path / spec.dataset
        self._groups: list[Path] = []
        self._created = _prepare(self._folder, self._folder / ".zarray", spec.replace)
        x, y, z = spec.shape
        self._store = _open(
            self._folder,
            {
                "driver": "zarr",
                "kvstore": _files(self._folder),
                "metadata": {
                    "shape": [z, y, x],
                    "chunks": [min(CHUNK, n) for n in (z, y, x)],
                    "dtype": spec.dtype.newbyteorder("<").str,
                    "fill_value": spec.outside,
                    "compressor": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1},
                },
            }
            if self._created
            else {"driver": "zarr", "kvstore": _files(self._folder)},
            self._created,
        )
        z, y, x = self._store.shape
        spec.check_same((x, y, z), self._store.dtype.numpy_dtype)
        if self._created:
            self._describe()
        self.attributes = (read_json(self._folder / ".zattrs") or {}).get("neuropil", {})

    def write(self, read: ReadBox, progress: Progress | None) -> None:
        """Write the item's voxels, slab by slab."""
        for own, there in self.spec.parts(CHUNK):
            (a, b), (c, d), (e, f) = there
            _write(self._folder, self._store[e:f, c:d, a:b], read(own).T)
            if progress is not None:
                progress(math.prod(box_shape(own)))

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Keep the table of class sets beside the data."""
        path = self._folder / ".zattrs"
        write_json(path, {**(read_json(path) or {}), "neuropil": attributes})

    def discard(self) -> None:
        """Remove an array that this export began."""
        if self._created:
            shutil.rmtree(self._folder, ignore_errors=True)
            for mark in self._groups:
                mark.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    mark.parent.rmdir()  # unless others have put something there

    def _describe(self) -> None:
        attributes = {
            "resolution": list(self.spec.voxel_size_nm)[::-1],
            "offset": self.spec.offset_nm,
            "units": ["nm"] * 3,
        }
        write_json(self._folder / ".zattrs", attributes)
        for parent in self._folder.parents:
            if not (parent / ".zgroup").exists():
                write_json(parent / ".zgroup", {"zarr_format": 2})
                self._groups.append(parent / ".zgroup")
            if parent == self.spec.path:
                break


class PrecomputedTarget(LabelTarget):
    """A Precomputed segmentation with one scale, at its place in the source's coordinates."""

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        self._created = _prepare(spec.path, spec.path / "info", spec.replace)
        wide = spec.dtype.itemsize == 4
        scale: dict[str, Any] = {
            "size": list(spec.shape),
            "voxel_offset": list(box_origin(spec.frame)),
            "resolution": list(spec.voxel_size_nm),
            "chunk_size": [CHUNK] * 3,
            "encoding": "compressed_segmentation" if wide else "raw",
        }
        if wide:
            scale["compressed_segmentation_block_size"] = [8, 8, 8]
        made = {
            "multiscale_metadata": {
                "type": "segmentation", "data_type": spec.dtype.name, "num_channels": 1,
            },
            "scale_metadata": scale,
        }  # fmt: skip
        base = {"driver": "neuroglancer_precomputed", "kvstore": _files(spec.path)}
        self._store = _open(spec.path, {**base, **(made if self._created else {})}, self._created)
        domain = self._store.domain
        x, y, z = (int(n) for n in self._store.shape[:3])
        spec.check_same((x, y, z), self._store.dtype.numpy_dtype)
        if tuple(domain.inclusive_min[:3]) != box_origin(spec.frame):
            raise VolumeError(
                spec.path, f"exists with first voxel {tuple(domain.inclusive_min[:3])}",
                f"{box_origin(spec.frame)} to fill it in", "use --replace or another target",
            )  # fmt: skip
        self.attributes = read_json(spec.path / "neuropil.json") or {}

    def write(self, read: ReadBox, progress: Progress | None) -> None:
        """Write the item's voxels, slab by slab."""
        x, y, z = box_origin(self.spec.frame)
        for own, ((a, b), (c, d), (e, f)) in self.spec.parts(CHUNK):
            part = self._store[a + x : b + x, c + y : d + y, e + z : f + z, 0]
            _write(self.spec.path, part, read(own))
            if progress is not None:
                progress(math.prod(box_shape(own)))

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Keep the table of class sets beside the data."""
        write_json(self.spec.path / "neuropil.json", attributes)

    def discard(self) -> None:
        """Remove a volume that this export began."""
        if self._created:
            shutil.rmtree(self.spec.path, ignore_errors=True)


def _prepare(folder: Path, mark: Path, replace: bool) -> bool:
    """Whether the array must be created; with `replace` an existing one is removed.

    Raises:
        VolumeError: the folder holds something else.
    """
    if mark.exists():
        if not replace:
            return False
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise VolumeError(
            folder, "exists and is no array of this kind", remedy="choose another target"
        )
    return True


def _files(folder: Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{folder.resolve()}/"}


def _open(folder: Path, spec: dict[str, Any], create: bool) -> Any:
    try:
        return ts.open(spec, create=create, open=not create).result()
    except (ValueError, OSError, RuntimeError) as error:
        raise damaged_target(folder, error) from error


def _write(folder: Path, part: Any, values: Any) -> None:
    try:
        part.write(values).result()
    except (ValueError, RuntimeError) as error:
        raise VolumeError(folder, f"cannot be written ({error})") from error
