"""The objects of an item as they stand: the machine's ids through a table, and what edits drew."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import normalize_name
from lib.proofread.log import EditLog
from lib.proofread.machine import Ids, MachineObjects
from lib.proofread.replay import NONE, Drawn, Standing, replay
from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    box_slices,
    hull,
    intersect,
    minus,
    shift_box,
    slabs,
    whole_box,
)
from lib.volumes.writing import SLAB_BYTES

Mask = NDArray[np.bool_]

KEPT_MASK_BYTES = 2**28
"""Most bytes of drawn masks that one item keeps decoded."""


@dataclass(frozen=True)
class Placed:
    """Voxels of one object.

    Args:
        mask: (x, y, z) bool on `box`.
        box: voxels of the item.
    """

    mask: Mask
    box: Box

    def cut(self) -> Placed | None:
        """The same on the smallest box; None where no voxel is set."""
        if not self.mask.any():
            return None
        lines = (self.mask.any((1, 2)), self.mask.any((0, 2)), self.mask.any((0, 1)))
        where = (np.flatnonzero(line) for line in lines)
        x, y, z = ((int(w[0]), int(w[-1]) + 1) for w in where)
        tight: Box = (x, y, z)
        return Placed(self.mask[box_slices(tight)], shift_box(tight, box_origin(self.box)))


class StandingObjects:
    """The objects of one item as they stand; slices like an (X, Y, Z) uint32 array.

    Args:
        log: its edits.
        shape: of the item.
        machine: what `instances` found; None: nothing yet.
        min_voxels: what a redraw leaves over is an object from this size on.
    """

    def __init__(
        self,
        log: EditLog,
        shape: Triple,
        machine: MachineObjects | None = None,
        min_voxels: int = 50,
    ) -> None:
        assert machine is None or machine.shape == shape, (machine and machine.shape, shape)
        self.log, self.machine, self.min_voxels = log, machine, min_voxels
        self._shape = shape
        self._lock = threading.RLock()
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._counted = -1
        self._standing = Standing()
        self._here: Ids | None = None
        self._without: frozenset[int] = frozenset()

    def without(self, object_ids: Collection[int]) -> Self:
        """The same objects where what edits drew of some is not there: what lies beneath is."""
        if not object_ids:
            return self
        view = copy.copy(self)
        view._without = frozenset(object_ids)
        return view

    @property
    def shape(self) -> Triple:
        """Extent in voxels."""
        return self._shape

    @property
    def version(self) -> str:
        """Identity of what is read: changes with every edit, and with the machine's map."""
        self.standing()
        return f"{self.machine.version if self.machine else ''}|{self._counted}"

    def standing(self) -> Standing:
        """What the edits add up to now, those of other processes included."""
        with self._lock:
            edits = self.log.edits()
            if len(edits) != self._counted:
                self._standing, self._counted = replay(edits), len(edits)
                self._here = self._table()
            return self._standing

    def __getitem__(self, index: Any) -> Ids:
        x, y, z = (s.indices(n)[:2] for s, n in zip(index, self._shape, strict=True))
        return self.read((x, y, z))

    def read(self, box: Box) -> Ids:
        """Ids of a box: 0 no object."""
        standing = self.standing()
        ids = self.machine_ids(box)
        if standing.machine:
            ids = fastremap.remap(ids, standing.machine, preserve_missing_labels=True)
        for drawn in standing.drawn:
            common = intersect(drawn.box, box)
            if common is not None and drawn.object not in self._without:
                mask = self._mask(drawn.mask, box_shape(drawn.box))
                part = ids[box_slices(shift_box(common, minus(box_origin(box))))]
                part[mask[box_slices(shift_box(common, minus(box_origin(drawn.box))))]] = (
                    drawn.object
                )
        return ids

    def machine_ids(self, box: Box) -> Ids:
        """What the machine found in a box, before anybody's edits, by the ids that edits use."""
        self.standing()
        if self.machine is None:
            return np.zeros(box_shape(box), np.uint32, order="F")
        ids = self.machine.read(box)
        return ids if self._here is None else self._here[ids]

    def ids_here(self, highest: int) -> Ids:
        """The ids by which the machine's objects 0..highest go here, before anybody's edits."""
        self.standing()
        if self._here is None:
            return np.arange(highest + 1, dtype=np.uint32)
        return self._here[: highest + 1]

    def mask_of(self, drawn: Drawn) -> Mask:
        """The voxels that an edit drew, on its box."""
        return self._mask(drawn.mask, box_shape(drawn.box))

    def at(self, points: Sequence[Sequence[int]]) -> list[int]:
        """The object at each voxel; 0 none, also outside the item."""
        found = []
        for i, j, k in points:
            inside = all(0 <= v < n for v, n in zip((i, j, k), self._shape, strict=True))
            box: Box = ((i, i + 1), (j, j + 1), (k, k + 1))
            found.append(int(self.read(box)[0, 0, 0]) if inside else NONE)
        return found

    def extent(self, object_id: int) -> Box | None:
        """A box that holds all of an object; None where there is no such object."""
        standing = self.standing()
        boxes = [d.box for d in standing.drawn if d.object == object_id]
        if self.machine is not None:
            origins = [m for m, owner in standing.machine.items() if owner == object_id]
            if object_id not in standing.machine:
                origins.append(object_id)
            found = (self.machine.extent(i) for m in origins for i in self._machine_ids(m))
            boxes += [box for box in found if box is not None]
        return hull(boxes) if boxes else None

    def voxels(self, object_id: int) -> Placed | None:
        """An object's voxels; None where it has none."""
        box = self.extent(object_id) if object_id != NONE else None
        return None if box is None else Placed(self.read(box) == object_id, box).cut()

    def locked(self, box: Box, but: Sequence[int] = ()) -> Mask:
        """Where accepted objects lie, other than some."""
        wanted = self.standing().accepted - set(but)
        if not wanted:
            return np.zeros(box_shape(box), np.bool_)
        kept: Mask = fastremap.mask_except(self.read(box), sorted(wanted)) != 0
        return kept

    def ids(self, box: Box | None = None) -> list[int]:
        """The objects of a box (of the item by default), ascending."""
        found: set[int] = set()
        for slab in slabs(box or whole_box(self._shape), 12, SLAB_BYTES):
            found.update(int(i) for i in fastremap.unique(self.read(slab)))
        return sorted(found - {NONE})

    def named(self, name: str) -> int:
        """The object that people gave a name, however it is written; 0 none."""
        key = normalize_name(name)
        names = self.standing().names.items()
        return next((i for i, n in names if normalize_name(n) == key), NONE)

    @property
    def empty(self) -> bool:
        """Whether neither the machine nor anybody has made an object."""
        return self.machine is None and not self.standing().active

    def new_id(self) -> int:
        """An id that no object has or ever had."""
        standing = self.standing()
        machine = self.machine.highest if self.machine else 0
        if self._here is not None and len(self._here):
            machine = int(self._here.max())
        return max(standing.highest, machine) + 1

    def _mask(self, name: str, shape: Triple) -> Mask:
        with self._lock:
            if name in self._masks and self._masks[name].shape == shape:
                self._masks.move_to_end(name)
                return self._masks[name]
        mask = self.log.payloads.mask(name, shape)
        with self._lock:
            self._masks[name] = mask
            while sum(m.nbytes for m in self._masks.values()) > KEPT_MASK_BYTES:
                if len(self._masks) == 1:
                    break
                self._masks.popitem(last=False)
        return mask

    def _table(self) -> Ids | None:
        """Ids of the machine's map -> the ids by which they go here; None: as they are.

        Objects that no edit was made on, and that were not brought to terms with the edits
        (lib/proofread/rebase.py), get ids that no edit speaks of.
        """
        if self.machine is None:
            return None
        version, standing = self.machine.version, self._standing
        if version in standing.rebases:
            return self.log.payloads.ids(standing.rebases[version])
        if version in standing.versions or not standing.highest:
            return None
        shifted = np.arange(self.machine.highest + 1, dtype=np.uint32) + np.uint32(standing.highest)
        shifted[0] = NONE
        return shifted

    def _machine_ids(self, here: int) -> list[int]:
        """The machine's ids that go by an id here."""
        if self._here is None:
            return [here]
        return [int(i) for i in np.flatnonzero(self._here == here)]
