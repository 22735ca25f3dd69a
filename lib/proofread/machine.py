"""What the machine found in an item: its map of objects, read lazily."""

from __future__ import annotations

from functools import cached_property

import cc3d
import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple, box_origin, box_slices, slabs, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.disk_ids import UNKNOWN_ID
from lib.volumes.writing import SLAB_BYTES

Ids = NDArray[np.uint32]


class MachineObjects:
    """A map of objects that nobody changes.

    Args:
        ids: (X, Y, Z) integers, 0 no object, sliced and never read whole.
        version: identity of its content.
    """

    def __init__(self, ids: LazyImage, version: str) -> None:
        self.ids = ids
        self.version = version

    @property
    def shape(self) -> Triple:
        """Extent in voxels."""
        x, y, z = (int(n) for n in self.ids.shape)
        return x, y, z

    def read(self, box: Box) -> Ids:
        """Ids of a box; unknown counts as no object. The caller may change them."""
        ids = np.array(self.ids[box_slices(box)], np.uint32, order="F")
        ids[ids == UNKNOWN_ID] = 0
        return ids

    @property
    def highest(self) -> int:
        """The largest id, 0 where there is no object."""
        known = self._extents[0]
        return int(known[-1]) if len(known) else 0

    def extent(self, object_id: int) -> Box | None:
        """The smallest box around an object; None where there is no such object."""
        known, bounds, _ = self._extents
        at = int(np.searchsorted(known, object_id))
        if at == len(known) or known[at] != object_id:
            return None
        x, y, z = ((int(a), int(b)) for a, b in bounds[at])
        return x, y, z

    @property
    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids (N,) ascending, and the voxels of each."""
        return self._extents[0], self._extents[2]

    @cached_property
    def _extents(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Ids (N,) ascending, (N, 3, 2) first voxel and the one after the last, (N,) voxels."""
        rows = []
        for slab in slabs(whole_box(self.shape), 12, SLAB_BYTES):
            compact, names = fastremap.renumber(self.read(slab), in_place=True)
            found = cc3d.statistics(compact, no_slice_conversion=True)
            bounds = np.asarray(found["bounding_boxes"], np.int64).reshape(-1, 3, 2)
            bounds[:, :, 1] += 1
            bounds += np.array(box_origin(slab))[:, None]
            given = [(int(old), int(new)) for old, new in names.items() if old]
            here = [new for _, new in given]
            counts = np.asarray(found["voxel_counts"], np.int64)[here]
            rows.append((np.array([old for old, _ in given], np.int64), bounds[here], counts))
        ids, boxes, voxels = (np.concatenate(column) for column in zip(*rows, strict=True))
        known, where = np.unique(ids, return_inverse=True)
        merged = np.empty((len(known), 3, 2), np.int64)
        merged[:, :, 0], merged[:, :, 1] = np.iinfo(np.int64).max, 0
        np.minimum.at(merged[:, :, 0], where, boxes[:, :, 0])
        np.maximum.at(merged[:, :, 1], where, boxes[:, :, 1])
        sizes = np.zeros(len(known), np.int64)
        np.add.at(sizes, where, voxels)
        return known, merged, sizes
