"""Precomputed segmentations, through tensorstore; chunks appear one by one."""

from __future__ import annotations

import math
from typing import Any

from lib.volumes.atomic import write_json
from lib.volumes.boxes import box_shape
from lib.volumes.errors import VolumeError
from lib.volumes.readers.chunked import read_json
from lib.volumes.writers.chunked_target import Place, files_of, open_array, write_part
from lib.volumes.writers.target import CHUNK, LabelTarget, ReadBox, TargetSpec
from lib.volumes.writing import Progress


class PrecomputedTarget(LabelTarget):
    """A Precomputed segmentation with one scale, at its place in the source's coordinates.

    It reads 0 where nothing is written.
    """

    empty = 0

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        self._place = Place(spec.path, (spec.path / "info").exists(), spec.replace)
        created = self._place.created
        wide = spec.dtype.itemsize == 4
        scale: dict[str, Any] = {
            "size": list(spec.shape),
            "voxel_offset": list(spec.voxel_origin),
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
        base = {"driver": "neuroglancer_precomputed", "kvstore": files_of(self._place.work)}
        self._store = open_array(self._place.work, {**base, **(made if created else {})}, created)
        domain = self._store.domain
        x, y, z = (int(n) for n in self._store.shape[:3])
        spec.check_same((x, y, z), self._store.dtype.numpy_dtype)
        if tuple(domain.inclusive_min[:3]) != spec.voxel_origin:
            raise VolumeError(
                spec.path, f"exists with first voxel {tuple(domain.inclusive_min[:3])}",
                f"{spec.voxel_origin} to fill it in", "use --replace or another target",
            )  # fmt: skip
        self.attributes = read_json(self._place.work / "neuropil.json") or {}

    def write(self, read: ReadBox, progress: Progress | None) -> None:
        """Write the item's voxels, slab by slab."""
        x, y, z = self.spec.voxel_origin
        for own, ((a, b), (c, d), (e, f)) in self.spec.parts(CHUNK):
            part = self._store[a + x : b + x, c + y : d + y, e + z : f + z, 0]
            write_part(self.spec.path, part, read(own))
            if progress is not None:
                progress(math.prod(box_shape(own)))

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Keep the table of class sets beside the data."""
        write_json(self._place.work / "neuropil.json", attributes)

    def finish(self) -> None:
        """Put a new volume in the place of the one that it replaces."""
        self._place.finish()

    def discard(self) -> None:
        """Remove a volume that this export began."""
        self._place.discard()
