"""OME-Zarr 0.5 label images: Zarr 3, sharded, several resolutions, written block by block.

Axes are z, y, x on the disk and x, y, z here. Two blocks never share a shard, so that blocks
can be written by several processes at once: writing parts of one shard from two of them loses
data in some libraries and is slow in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from lib.volumes.atomic import make_folder, write_json
from lib.volumes.boxes import Box, Triple, box_shape
from lib.volumes.errors import VolumeError, damaged_target

ISOTROPY = 1.5
"""Axes whose voxels are this much longer than the shortest are not made coarser with it."""
AXES = tuple({"name": name, "type": "space", "unit": "nanometer"} for name in "zyx")


@dataclass(frozen=True)
class Level:
    """One resolution.

    Args:
        factors: full-resolution voxels in one of its voxels, (x, y, z).
        shape: its extent.
    """

    factors: Triple
    shape: Triple


@dataclass(frozen=True)
class LabelImage:
    """A multiscale label image.

    Args:
        folder: its group.
        shape: (x, y, z) of the finest resolution.
        dtype: of its values.
        chunk: what is read at once.
        shard: what is one file; whole chunks.
        voxel_size_nm: (x, y, z).
        offset_nm: place of the first voxel's corner in the source's space.
        name: for viewers.
        coarser: whether there are coarser resolutions.
    """

    folder: Path
    shape: Triple
    dtype: np.dtype[Any]
    chunk: Triple
    shard: Triple
    voxel_size_nm: tuple[float, float, float]
    offset_nm: tuple[float, float, float]
    name: str
    coarser: bool = True

    @property
    def levels(self) -> list[Level]:
        """From the finest on, each half of the one before, down to one shard."""
        found = [Level((1, 1, 1), self.shape)]
        while self.coarser and any(n > s for n, s in zip(found[-1].shape, self.shard, strict=True)):
            step = _step(found[-1], self.voxel_size_nm)
            if step == (1, 1, 1):
                break
            x, y, z = (f * s for f, s in zip(found[-1].factors, step, strict=True))
            a, b, c = (-(-n // f) for n, f in zip(self.shape, (x, y, z), strict=True))
            found.append(Level((x, y, z), (a, b, c)))
        return found

    def create(self, attributes: Mapping[str, Any] | None = None) -> None:
        """Make the group and its arrays, empty.

        Args:
            attributes: more `ome` metadata, for instance `image-label`.

        Raises:
            VolumeError: they cannot be made.
        """
        make_folder(self.folder)
        for number, level in enumerate(self.levels):
            spec = {
                **self._spec(number),
                "metadata": {
                    "shape": list(level.shape)[::-1],
                    "data_type": self.dtype.name,
                    "dimension_names": ["z", "y", "x"],
                    "fill_value": 0,
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": list(self.shard)[::-1]},
                    },
                    "codecs": [_sharding(self.chunk)],
                },
            }
            _opened(self.folder, spec, create=True)
        write_json(self.folder / "zarr.json", self._group(attributes or {}))

    def open(self, level: int = 0) -> Any:
        """A resolution as a tensorstore array, z, y, x.

        Raises:
            VolumeError: it is not there.
        """
        return _opened(self.folder, self._spec(level), create=False)

    def blocks(self, level: int) -> list[Triple]:
        """Indices of the shards of a resolution."""
        shape = self.levels[level].shape
        x, y, z = (range(math.ceil(n / s)) for n, s in zip(shape, self.shard, strict=True))
        return list(product(x, y, z))

    def block_box(self, level: int, index: Triple) -> Box:
        """The voxels of a shard, in those of its resolution."""
        shape = self.levels[level].shape
        x, y, z = (
            (i * s, min((i + 1) * s, n)) for i, s, n in zip(index, self.shard, shape, strict=True)
        )
        return x, y, z

    def write(self, index: Triple, values: NDArray[Any]) -> None:
        """Write a whole shard of the finest resolution; it is on the disk when this returns.

        Args:
            index: of the shard.
            values: (x, y, z) of its box.

        Raises:
            VolumeError: the disk is full, or fails.
        """
        box = self.block_box(0, index)
        assert values.shape == box_shape(box), (values.shape, box)
        self._put(0, box, values.astype(self.dtype, copy=False).T)

    def read(self, box: Box, level: int = 0) -> NDArray[Any]:
        """The values of a box, (x, y, z)."""
        (a, b), (c, d), (e, f) = box
        values: NDArray[Any] = np.asarray(self.open(level)[e:f, c:d, a:b].read().result()).T
        return values

    def coarsen(self, level: int, index: Triple) -> None:
        """Make one shard of a resolution from the one before: the commonest value wins."""
        before, here = self.levels[level - 1], self.levels[level]
        step = [b // a for a, b in zip(before.factors, here.factors, strict=True)]
        box = self.block_box(level, index)
        (a, b), (c, d), (e, f) = box
        fine = ts.downsample(self.open(level - 1), step[::-1], "mode")
        self._put(level, box, np.asarray(fine[e:f, c:d, a:b].read().result()))

    def _put(self, level: int, box: Box, values: NDArray[Any]) -> None:
        (a, b), (c, d), (e, f) = box
        try:
            self.open(level)[e:f, c:d, a:b].write(values).result()
        except (ValueError, RuntimeError, OSError) as error:
            raise VolumeError(self.folder, f"cannot be written ({error})") from error

    def _spec(self, level: int) -> dict[str, Any]:
        path = f"{(self.folder / str(level)).resolve()}/"
        return {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}

    def _group(self, more: Mapping[str, Any]) -> dict[str, Any]:
        datasets = []
        for number, level in enumerate(self.levels):
            scale = [v * f for v, f in zip(self.voxel_size_nm, level.factors, strict=True)]
            # A place is that of a voxel's middle, which moves as voxels grow.
            middle = [
                o + v * (f - 1) / 2
                for o, v, f in zip(self.offset_nm, self.voxel_size_nm, level.factors, strict=True)
            ]
            places = [
                {"type": "scale", "scale": scale[::-1]},
                {"type": "translation", "translation": middle[::-1]},
            ]
            datasets.append({"path": str(number), "coordinateTransformations": places})
        image = {"name": self.name, "axes": list(AXES), "datasets": datasets}
        ome = {"version": "0.5", "multiscales": [image], **more}
        return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}


def make_group(folder: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """A Zarr 3 group that holds images."""
    make_folder(folder)
    group = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}
    write_json(folder / "zarr.json", group)


def _step(level: Level, voxel_size_nm: Sequence[float]) -> Triple:
    sizes = [v * f for v, f in zip(voxel_size_nm, level.factors, strict=True)]
    shortest = min(s for s, n in zip(sizes, level.shape, strict=True) if n > 1)
    x, y, z = (
        2 if n > 1 and s < ISOTROPY * shortest else 1
        for s, n in zip(sizes, level.shape, strict=True)
    )
    return x, y, z


def _sharding(chunk: Triple) -> dict[str, Any]:
    packed = {"name": "zstd", "configuration": {"level": 3}}
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(chunk)[::-1],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, packed],
        },
    }


def _opened(folder: Path, spec: dict[str, Any], create: bool) -> Any:
    try:
        return ts.open(spec, create=create, open=True, read=True, write=True).result()
    except (ValueError, OSError, RuntimeError) as error:
        raise damaged_target(folder, error) from error
