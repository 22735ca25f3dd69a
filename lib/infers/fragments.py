"""The automatic objects of an image, as clicks start from them."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.infers.image import RequestImage, item_id
from lib.infers.instances import STORED_TAG
from lib.volumes.boxes import box_slices, slabs, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.nifti import NiftiSource
from lib.volumes.readers.opening import open_file
from lib.volumes.writing import label_file

MOST_KEPT = 4
IN_MEMORY = 2**28
"""Bytes up to which a decoded map stays in memory; a larger one lies in a file that vanishes."""
SLAB_BYTES = 2**25


class FragmentStore:
    """Maps that `instances` left in the datastore, opened once while they stay the same file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, int, int], NDArray[Any]] = OrderedDict()

    def open(self, image: RequestImage) -> tuple[NDArray[Any] | None, list[str]]:
        """The map of an image of a study.

        Returns:
            (X, Y, Z) ids, viewer order, 0 none; None where there is no map that fits. Warnings
            say why a map that is there cannot be used.
        """
        path = label_file(image.path.parent, STORED_TAG, item_id(image.path))
        if not path.exists():
            return None, []
        try:
            ids = self._opened(path)
        except VolumeError as error:
            return None, [f"the objects found before cannot be read and are left out: {error}"]
        if tuple(ids.shape) != image.shape or ids.dtype.kind not in "ui":
            return None, [
                f"the objects found before are left out: shape {tuple(ids.shape)} of "
                f"{ids.dtype}, expected whole numbers on the image's {image.shape}; run instances"
            ]
        return ids, []

    def _opened(self, path: Path) -> NDArray[Any]:
        found = path.stat()
        key = (str(path), found.st_mtime_ns, found.st_size, found.st_ino)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        ids = _decoded(path)
        with self._lock:
            for old in [k for k in self._kept if k[0] == key[0]]:
                del self._kept[old]
            self._kept[key] = ids
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return ids


def _decoded(path: Path) -> NDArray[Any]:
    """All voxels, mapped from the file itself or decoded once.

    Raises:
        VolumeError: it cannot be read.
    """
    source = open_file(path)
    mapped = source.memory_map() if isinstance(source, NiftiSource) else None
    if mapped is not None:
        return mapped
    shape, itemsize = source.shape, source.dtype.itemsize
    out: NDArray[Any]
    if np.prod(shape, dtype=np.int64) * itemsize <= IN_MEMORY:
        out = np.empty(shape, source.dtype, order="F")
    else:  # unlinked already; the mapping keeps it
        with tempfile.TemporaryFile(prefix="neuropil-") as file:
            out = np.memmap(file, source.dtype, "w+", shape=shape, order="F")
    try:
        for slab in slabs(whole_box(shape), itemsize, SLAB_BYTES):
            out[box_slices(slab)] = source.read(slab)
    finally:
        source.close()
    return out
