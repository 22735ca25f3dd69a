"""The current objects of an item: the machine's, and what people did to them.

Every change is an edit in the item's log, on the disk before it is answered. Reading gives the
map as it stands: the machine's ids through a table, and on them what edits drew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lib.proofread.edits import Edit
from lib.proofread.replay import NONE, Standing
from lib.proofread.standing import Placed as Placed
from lib.proofread.standing import StandingObjects

LARGEST_ID = 2**32 - 2


class CurrentObjects(StandingObjects):
    """The objects of an item, and what people do to them."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Edits made inside are on the disk when it ends, flushed at once.

        An exception enters none of them.
        """
        try:
            with self.log.together():
                yield
        finally:
            self.standing()

    def accept(
        self,
        placed: Placed,
        object_id: int,
        name: str = "",
        by: str = "",
        above: Collection[int] = (),
    ) -> Edit:
        """These voxels are the object, and right: it is locked from now on.

        Args:
            above: objects that keep those of the voxels which people drew for them: a cell's
                organelles.
        """
        return self._draw("accept", placed, object_id, name, by, above)

    def redraw(self, placed: Placed, object_id: int, name: str = "", by: str = "") -> Edit:
        """These voxels are the object; what it had besides becomes an object of its own."""
        return self._draw("redraw", placed, object_id, name, by)

    def split(
        self,
        placed: Placed,
        object_id: int,
        by: str = "",
        called: Callable[[int], str] = lambda _: "",
    ) -> Edit:
        """The part of an object that lies in some voxels becomes an object.

        Args:
            called: its name, by its id.

        Raises:
            ValueError: the object has no voxel there, or no other.
        """

        def made() -> Edit:
            self._must_exist(object_id)
            inside = replace(placed, mask=placed.mask & (self.read(placed.box) == object_id)).cut()
            if inside is None or not self._rest(object_id, inside):
                raise ValueError(f"object {object_id}: a split needs a part of it, and a rest")
            part = self.new_id()
            return Edit(
                "split", part, (object_id,), mask=self._keep(inside), box=inside.box,
                name=called(part), by=by,
            )  # fmt: skip

        return self._act(made)

    def merge(self, object_ids: Sequence[int], by: str = "", name: str = "") -> Edit:
        """Several objects are one, which keeps the id of the first, and its name if none is given.

        Raises:
            ValueError: fewer than two objects.
        """
        distinct = list(dict.fromkeys(i for i in object_ids if i != NONE))

        def made() -> Edit:
            if len(distinct) < 2:
                raise ValueError("a merge needs two objects or more; click into each of them")
            for object_id in distinct:
                self._must_exist(object_id)
            return Edit("merge", distinct[0], tuple(distinct[1:]), name=name, by=by)

        return self._act(made)

    def delete(self, object_id: int, by: str = "") -> Edit:
        """There is no such object.

        Raises:
            ValueError: it does not exist.
        """

        def made() -> Edit:
            self._must_exist(object_id)
            name = self.standing().names.get(object_id, "")
            return Edit("delete", object_id, name=name, by=by)

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

    def _draw(
        self,
        op: Any,
        placed: Placed,
        object_id: int,
        name: str,
        by: str,
        above: Collection[int] = (),
    ) -> Edit:
        assert 0 < object_id <= LARGEST_ID, object_id

        def made() -> Edit:
            tight = placed.cut()
            if tight is None:
                raise ValueError(f"object {name or object_id}: no voxel that is free to take")
            left = self._rest(object_id, tight)
            rest = max(self.new_id(), object_id + 1) if left >= self.min_voxels else NONE
            return Edit(
                op, object_id, tuple(sorted(above)), rest, self._keep(tight), tight.box, name, by=by
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
        with self.log.writing(), self._lock:
            self._settle()
            edit = made()
            now = datetime.now(UTC).isoformat(timespec="seconds")
            edit = replace(edit, time=now, on=self.machine.version if self.machine else "")
            self.log.append(edit)
            self.standing()
            return edit

    def _step(self, op: Any, which: Callable[[Standing], Sequence[Edit]], by: str) -> Edit | None:
        with self.log.writing(), self._lock:
            edits = which(self.standing())
            if not edits:
                return None
            last = edits[-1]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.log.append(Edit(op, by=by, time=now))
            self.standing()
            return last

    def _settle(self) -> None:
        """Write down by which ids the machine's objects go, before an edit speaks of them."""
        standing = self.standing()
        if self.machine is None or self._here is None:
            return
        if self.machine.version not in standing.rebases:
            ids = self.log.payloads.keep_ids(self._here)
            self.log.append(Edit("rebase", ids=ids, on=self.machine.version))
            self.standing()
