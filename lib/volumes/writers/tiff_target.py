"""OME-TIFF: a compressed stack of sections, written in one pass."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import Box
from lib.volumes.errors import VolumeError
from lib.volumes.writers.target import LabelTarget, ReadBox, TargetSpec
from lib.volumes.writing import Progress

BIGTIFF_BYTES = 2**31


class TiffTarget(LabelTarget):
    """A TIFF file; it cannot be filled in later, so an existing one is only replaced."""

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        if spec.path.exists() and not spec.replace:
            raise VolumeError(
                spec.path, "exists, and a TIFF cannot be filled in",
                remedy="use --replace or another target",
            )  # fmt: skip
        self._staged = StagedFiles()
        self._read: ReadBox | None = None
        self._progress: Progress | None = None
        self._table: dict[str, Any] = {}

    def write(self, read: ReadBox, progress: Progress | None) -> None:
        """Remember what to write: the table of class sets comes before the data."""
        self._read, self._progress = read, progress

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Put the table of class sets into the file's description."""
        self._table = attributes

    def finish(self) -> None:
        """Write the file aside and rename it into place."""
        with self._staged as staged:
            self._write_all(staged.create(self.spec.path))
            staged.commit()

    def discard(self) -> None:
        """Nothing has been written yet."""

    def _write_all(self, file: Any) -> None:
        spec = self.spec
        x, y, z = spec.voxel_size_nm
        shape = spec.shape[::-1]
        size = math.prod(shape) * spec.dtype.itemsize
        tifffile.imwrite(
            file,
            self._sections(),
            shape=shape,
            dtype=spec.dtype,
            bigtiff=size > BIGTIFF_BYTES,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1},
            metadata={
                "axes": "ZYX",
                "PhysicalSizeX": x, "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": y, "PhysicalSizeYUnit": "nm",
                "PhysicalSizeZ": z, "PhysicalSizeZUnit": "nm",
                "Description": json.dumps({"neuropil": self._table}),
            },
        )  # fmt: skip

    def _sections(self) -> Iterator[NDArray[Any]]:
        """Every section of the frame, (Y, X)."""
        assert self._read is not None
        x, y, z = self.spec.inner_place()
        width, height, depth = self.spec.shape
        for section in range(depth):
            page = np.full((height, width), self.spec.outside, self.spec.dtype)
            if z[0] <= section < z[1]:
                low = section - z[0]
                own: Box = ((0, x[1] - x[0]), (0, y[1] - y[0]), (low, low + 1))
                part = self._read(own)[:, :, 0].T
                page[y[0] : y[1], x[0] : x[1]] = part
                if self._progress is not None:
                    self._progress(part.size)
            yield page
