"""The current objects of the items of a study, opened once while their files stay the same."""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.proofread.current import CurrentObjects
from lib.proofread.drafts import Drafts
from lib.proofread.joins import Joins, ends_of_map, joins_of_map, load_joins
from lib.proofread.log import EditLog
from lib.proofread.machine import MachineObjects
from lib.proofread.rebase import rebase
from lib.volumes.atomic import write_bytes
from lib.volumes.boxes import Triple, box_slices, slabs, whole_box
from lib.volumes.errors import DAMAGED_ARRAYS, VolumeError
from lib.volumes.nifti import NiftiSource
from lib.volumes.readers.opening import open_file
from lib.volumes.writing import label_file

logger = logging.getLogger("neuropil.proofread")

MACHINE_TAG = "instance_predicted"
"""What the machine said; `instance` holds what annotators said."""
MOST_KEPT = 4
IN_MEMORY = 2**28
"""Bytes up to which a decoded map stays in memory; a larger one lies in a file that vanishes."""
SLAB_BYTES = 2**25
READ_BYTES = 2**20


class ObjectStore:
    """Opens the current objects of items, and keeps what clients were shown of them.

    Args:
        root: the study's folder.
        min_voxels: see `CurrentObjects`.
    """

    def __init__(self, root: Path, min_voxels: int) -> None:
        self.root = root
        self.drafts = Drafts()
        self._min_voxels = min_voxels
        self._lock = threading.Lock()
        self._machine: OrderedDict[tuple[str, int, int, int], MachineObjects] = OrderedDict()
        self._opened: OrderedDict[tuple[str, str, Triple], CurrentObjects] = OrderedDict()

    def open(self, item_id: str, shape: Triple) -> tuple[CurrentObjects, list[str]]:
        """The objects of an item as they stand.

        Returns:
            The objects. Warnings say why a map of the machine that is there cannot be used.
        """
        machine, warnings = self._found(item_id, shape)
        key = (item_id, machine.version if machine else "", shape)
        with self._lock:
            if key not in self._opened:
                log = EditLog(self.root, item_id)
                self._opened[key] = CurrentObjects(log, shape, machine, self._min_voxels)
            self._opened.move_to_end(key)
            while len(self._opened) > MOST_KEPT:
                self._opened.popitem(last=False)
            return self._opened[key], warnings

    def machine_files(self) -> list[Path]:
        """The maps of the machine that the study has."""
        return sorted(label_file(self.root, MACHINE_TAG, "").parent.glob("[!.]*.nii.gz"))

    def holds(self, image: Path) -> bool:
        """Whether an image lies in the study."""
        return image.parent.resolve() == self.root.resolve()

    def renew(
        self,
        item_id: str,
        shape: Triple,
        ids: NDArray[np.uint32],
        classes: NDArray[np.uint8],
        file: Path,
        joins: Joins | None = None,
    ) -> tuple[CurrentObjects, list[str]]:
        """Bring the edits of an item to terms with new objects, before these are stored.

        Args:
            ids: (X, Y, Z) what the machine found now.
            classes: (N + 1,) fine class + 1 of each.
            file: as it will be stored.
            joins: what is known of their contacts.

        Returns:
            The objects as they will stand, and a sentence for each edit that no longer fits.
        """
        old, _ = self.open(item_id, shape)
        new = MachineObjects(ids, file_version(file))
        lost = rebase(old, new)
        self._keep_known(item_id, new.version, classes, joins)
        return CurrentObjects(old.log, shape, new, self._min_voxels), lost

    def classes(self, item_id: str, objects: CurrentObjects) -> NDArray[np.uint8]:
        """(N + 1,) fine class + 1 of the machine's objects of an item; 0 where not known."""
        if objects.machine is None:
            return np.zeros(1, np.uint8)
        path = self._known(item_id, "classes", objects.machine.version, ".npy")
        unknown = np.zeros(objects.machine.highest + 1, np.uint8)
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except FileNotFoundError:
            return unknown
        except DAMAGED_ARRAYS as error:
            logger.warning("%s: classes of objects are not known, it is damaged: %s", path, error)
            return unknown

    def joins(
        self, item_id: str, objects: CurrentObjects, voxel_size_nm: Sequence[float]
    ) -> Joins | None:
        """What is known of the contacts of an item's objects; None where there are no objects."""
        if objects.machine is None:
            return None
        path = self._known(item_id, "joins", objects.machine.version, ".npz")
        if not path.exists():
            ids = objects.machine.read(whole_box(objects.shape))
            joins_of_map(ids).and_also(ends_of_map(ids, voxel_size_nm)).save(path)
        return load_joins(path)

    def _keep_known(
        self, item_id: str, version: str, classes: NDArray[np.uint8], joins: Joins | None
    ) -> None:
        path = self._known(item_id, "classes", version, ".npy")
        for old in (*path.parent.glob("classes-*.npy"), *path.parent.glob("joins-*.npz")):
            old.unlink(missing_ok=True)
        content = io.BytesIO()
        np.save(content, classes, allow_pickle=False)
        write_bytes(path, content.getvalue())
        if joins is not None:
            joins.save(self._known(item_id, "joins", version, ".npz"))

    def _known(self, item_id: str, what: str, version: str, suffix: str) -> Path:
        return EditLog(self.root, item_id).folder / f"{what}-{version}{suffix}"

    def _found(self, item_id: str, shape: Triple) -> tuple[MachineObjects | None, list[str]]:
        path = label_file(self.root, MACHINE_TAG, item_id)
        if not path.exists():
            return None, []
        try:
            machine = self._read(path)
        except VolumeError as error:
            return None, [f"the objects found before cannot be read and are left out: {error}"]
        ids = machine.ids
        if machine.shape != shape or getattr(ids, "dtype", np.dtype(np.uint32)).kind not in "ui":
            return None, [
                f"the objects found before are left out: shape {machine.shape} of "
                f"{getattr(ids, 'dtype', '')}, expected whole numbers on the image's {shape}; "
                "run instances"
            ]
        return machine, []

    def _read(self, path: Path) -> MachineObjects:
        found = path.stat()
        key = (str(path), found.st_mtime_ns, found.st_size, found.st_ino)
        with self._lock:
            if key in self._machine:
                self._machine.move_to_end(key)
                return self._machine[key]
        machine = MachineObjects(_decoded(path), file_version(path))
        with self._lock:
            for old in [k for k in self._machine if k[0] == key[0]]:
                del self._machine[old]
            self._machine[key] = machine
            while len(self._machine) > MOST_KEPT:
                self._machine.popitem(last=False)
        return machine


def file_version(path: Path) -> str:
    """Identity of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()[:16]


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
