"""The current objects of an item: the machine's, and what people did to them.

Every change is an edit in the item's log, on the disk before it is answered. Reading gives the
map as it stands: the machine's ids through a table, and on them what edits drew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import normalize_name
from lib.proofread.edits import Edit
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
LARGEST_ID = 2**32 - 2


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


class CurrentObjects:
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
            if common is not None:
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

    # what people do

    def accept(self, placed: Placed, object_id: int, name: str = "", by: str = "") -> Edit:
        """These voxels are the object, and right: it is locked from now on."""
        return self._draw("accept", placed, object_id, name, by)

    def redraw(self, placed: Placed, object_id: int, name: str = "", by: str = "") -> Edit:
        """These voxels are the object; what it had besides becomes an object of its own."""
        return self._draw("redraw", placed, object_id, name, by)

    def split(self, placed: Placed, object_id: int, by: str = "") -> Edit:
        """The part of an object that lies in some voxels becomes an object.

        Raises:
            ValueError: the object has no voxel there, or no other.
        """

        def made() -> Edit:
            self._must_exist(object_id)
            inside = replace(placed, mask=placed.mask & (self.read(placed.box) == object_id)).cut()
            if inside is None or not self._rest(object_id, inside):
                raise ValueError(f"object {object_id}: a split needs a part of it, and a rest")
            return Edit(
                "split", self.new_id(), (object_id,), mask=self._keep(inside), box=inside.box, by=by
            )

        return self._act(made)

    def merge(self, object_ids: Sequence[int], by: str = "") -> Edit:
        """Several objects are one, which keeps the id of the first.

        Raises:
            ValueError: fewer than two objects.
        """
        distinct = list(dict.fromkeys(i for i in object_ids if i != NONE))

        def made() -> Edit:
            if len(distinct) < 2:
                raise ValueError("a merge needs two objects or more; click into each of them")
            for object_id in distinct:
                self._must_exist(object_id)
            return Edit("merge", distinct[0], tuple(distinct[1:]), by=by)

        return self._act(made)

    def delete(self, object_id: int, by: str = "") -> Edit:
        """There is no such object.

        Raises:
            ValueError: it does not exist.
        """

        def made() -> Edit:
            self._must_exist(object_id)
            return Edit("delete", object_id, by=by)

        return self._act(made)

    def name(self, object_id: int, name: str, by: str = "") -> Edit:
        """What an object is called, its class included: "axon 17".

        Raises:
            ValueError: it does not exist.
        """

        def made() -> Edit:
            self._must_exist(object_id)
            return Edit("name", object_id, name=name, by=by)

        return self._act(made)

    def undo(self, by: str = "") -> Edit | None:
        """Take the last edit back; it, or None where none stands."""
        return self._step("undo", lambda s: s.active, by)

    def redo(self, by: str = "") -> Edit | None:
        """Bring back what the last undo took; it, or None where there is nothing."""
        return self._step("redo", lambda s: s.undone, by)

    def new_id(self) -> int:
        """An id that no object has or ever had."""
        standing = self.standing()
        machine = self.machine.highest if self.machine else 0
        if self._here is not None and len(self._here):
            machine = int(self._here.max())
        return max(standing.highest, machine) + 1

    def _draw(self, op: Any, placed: Placed, object_id: int, name: str, by: str) -> Edit:
        assert 0 < object_id <= LARGEST_ID, object_id

        def made() -> Edit:
            tight = placed.cut()
            if tight is None:
                raise ValueError(f"object {name or object_id}: no voxel that is free to take")
            left = self._rest(object_id, tight)
            rest = max(self.new_id(), object_id + 1) if left >= self.min_voxels else NONE
            return Edit(
                op, object_id, rest=rest, mask=self._keep(tight), box=tight.box, name=name, by=by
            )

        return self._act(made)

    def _rest(self, object_id: int, placed: Placed) -> int:
        """How many voxels an object has outside of some."""
        box = self.extent(object_id)
        if box is None:
            return 0
        count = int(np.count_nonzero(self.read(box) == object_id))
        inside = placed.mask & (self.read(placed.box) == object_id)
        return count - int(np.count_nonzero(inside))

    def _must_exist(self, object_id: int) -> None:
        box = self.extent(object_id)
        if object_id == NONE or box is None or not (self.read(box) == object_id).any():
            raise ValueError(f"object {object_id}: there is none of this number")

    def _keep(self, placed: Placed) -> str:
        return self.log.payloads.keep_mask(placed.mask)

    def _act(self, made: Callable[[], Edit]) -> Edit:
        """Make an edit from what stands, and enter it, while nobody else can."""
        with self._lock, self.log.writing():
            self._settle()
            edit = made()
            now = datetime.now(UTC).isoformat(timespec="seconds")
            edit = replace(edit, time=now, on=self.machine.version if self.machine else "")
            self.log.append(edit)
            self.standing()
            return edit

    def _step(self, op: Any, which: Callable[[Standing], Sequence[Edit]], by: str) -> Edit | None:
        with self._lock, self.log.writing():
            edits = which(self.standing())
            if not edits:
                return None
            last = edits[-1]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.log.append(Edit(op, by=by, time=now))
            self.standing()
            return last

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

    def _settle(self) -> None:
        """Write down by which ids the machine's objects go, before an edit speaks of them."""
        standing = self.standing()
        if self.machine is None or self._here is None:
            return
        if self.machine.version not in standing.rebases:
            ids = self.log.payloads.keep_ids(self._here)
            self.log.append(Edit("rebase", ids=ids, on=self.machine.version))
            self.standing()

    def _machine_ids(self, here: int) -> list[int]:
        """The machine's ids that go by an id here."""
        if self._here is None:
            return [here]
        return [int(i) for i in np.flatnonzero(self._here == here)]
