"""CREMI-style HDF5: a dataset with z, y, x axes, `resolution` and `offset`."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

import h5py
import numpy as np

from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import box_shape
from lib.volumes.errors import VolumeError, damaged_target
from lib.volumes.writers.target import CHUNK, LabelTarget, ReadBox, TargetSpec
from lib.volumes.writing import Progress


class Hdf5Target(LabelTarget):
    """A dataset of an HDF5 file.

    HDF5 files break when their writer is killed: the file is copied aside, changed there and
    renamed into place.
    """

    def __init__(self, spec: TargetSpec) -> None:
        super().__init__(spec)
        self._staged = StagedFiles()
        self._file: h5py.File | None = None
        try:
            self._dataset = self._open()
        except BaseException:
            self.discard()
            raise

    def write(self, read: ReadBox, progress: Progress | None) -> None:
        """Write the item's voxels, slab by slab."""
        for own, there in self.spec.parts(CHUNK):
            (a, b), (c, d), (e, f) = there
            self._dataset[e:f, c:d, a:b] = read(own).T
            if progress is not None:
                progress(math.prod(box_shape(own)))

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Keep the table of class sets beside the data."""
        self._dataset.attrs["neuropil"] = json.dumps(attributes)

    def finish(self) -> None:
        """Rename the file into place."""
        if self._file is not None:
            self._file.close()
        self._staged.commit()

    def discard(self) -> None:
        """Remove the copy."""
        try:
            if self._file is not None:
                self._file.close()
        finally:
            self._staged.discard()

    def _open(self) -> Any:
        spec = self.spec
        aside = self._staged.name(spec.path)
        if spec.path.exists():
            shutil.copyfile(spec.path, aside)
        try:
            file = self._file = h5py.File(aside, "a")
        except OSError as error:
            raise damaged_target(spec.path, error) from error
        if spec.dataset in file:
            dataset = file[spec.dataset]
            if not isinstance(dataset, h5py.Dataset):
                raise VolumeError(
                    spec.where, "exists and is no dataset", remedy="choose another target"
                )
            if not spec.replace:
                spec.check_same(dataset.shape[::-1], dataset.dtype)
                self.attributes = json.loads(str(dataset.attrs.get("neuropil", "{}")))
                return dataset
            del file[spec.dataset]
        shape = spec.shape[::-1]
        dataset = file.create_dataset(
            spec.dataset,
            shape,
            spec.dtype,
            chunks=tuple(min(CHUNK, n) for n in shape),
            compression="gzip",
            compression_opts=1,
            fillvalue=spec.outside,
        )
        dataset.attrs["resolution"] = np.array(spec.voxel_size_nm[::-1], np.float64)
        dataset.attrs["offset"] = np.array(spec.offset_nm[::-1], np.float64)
        return dataset
