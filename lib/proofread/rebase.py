"""New objects of the machine under old edits: by overlap, and what no longer fits is told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from lib.metrics.object_scores import contingency
from lib.proofread.current import CurrentObjects
from lib.proofread.edits import Edit
from lib.proofread.machine import MachineObjects
from lib.volumes.boxes import slabs, whole_box
from lib.volumes.writing import SLAB_BYTES

MOSTLY = 0.5
"""Share of a new object that must lie in an old one to take its place in an edit."""


def rebase(old: CurrentObjects, new: MachineObjects) -> list[str]:
    """Bring the edits of an item to terms with new objects of the machine.

    Voxels that people drew or accepted stay as they are. Where an edit speaks of objects of the
    machine (merge, split, delete, name), those take their place that lie mostly in them. It is
    entered in the log under the new objects' version; edits on the old ones stay readable.

    Args:
        old: the objects before.
        new: what the machine found now, on the same grid.

    Returns:
        For each edit that no longer fits, a sentence.
    """
    with old.log.writing():
        standing = old.standing()
        if not standing.highest or new.version in standing.rebases:
            return []
        spoken = _spoken_of([*standing.active, *standing.undone])
        table, found = _ids_here(old, new, spoken)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        payload = old.log.payloads.keep_ids(table)
        old.log.append(Edit("rebase", ids=payload, time=now, on=new.version))
    return _misfits(standing.active, spoken - found)


def _spoken_of(edits: Iterable[Edit]) -> set[int]:
    """Ids that edits speak of without saying which voxels they have."""
    parts: dict[int, set[int]] = {}
    spoken: set[int] = set()
    for edit in edits:
        if edit.op in ("accept", "redraw"):
            spoken -= parts.pop(edit.object, {edit.object})
        elif edit.op == "merge":
            whole = {edit.object, *edit.others}
            whole = whole.union(*(parts.pop(i, set()) for i in whole))
            parts[edit.object] = whole
            spoken |= whole
        elif edit.op == "split":
            spoken |= set(edit.others)
        elif edit.op in ("delete", "name"):
            spoken.add(edit.object)
    return spoken


def _ids_here(
    old: CurrentObjects, new: MachineObjects, spoken: set[int]
) -> tuple[NDArray[np.uint32], set[int]]:
    """The ids by which new objects go, and the old ones whose place some of them take."""
    sizes = np.zeros(new.highest + 1, np.int64)
    shared: dict[tuple[int, int], int] = {}
    old_ids = np.array(sorted(spoken), np.int64)
    for slab in slabs(whole_box(new.shape), 24, SLAB_BYTES):
        pairs = contingency(new.read(slab), old.machine_ids(slab))
        np.add.at(sizes, pairs.truth, pairs.counts)
        asked = np.isin(pairs.guess, old_ids)
        columns = (c[asked].tolist() for c in (pairs.truth, pairs.guess, pairs.counts))
        for mine, before, count in zip(*columns, strict=True):
            shared[mine, before] = shared.get((mine, before), 0) + count
    highest = old.standing().highest
    table = np.arange(new.highest + 1, dtype=np.uint32)
    used = table[1 : highest + 1]  # ids that edits may mean something else by
    used += np.uint32(max(highest, new.highest))
    found = set()
    for (mine, before), count in shared.items():
        if mine and count > MOSTLY * sizes[mine]:
            table[mine] = before
            found.add(before)
    return table, found


def _misfits(active: Iterable[Edit], missing: set[int]) -> list[str]:
    """Edits that speak of objects which nothing has taken the place of."""
    told = []
    for edit in active:
        about = {edit.object, *edit.others} if edit.op in ("merge", "delete", "name") else set()
        if edit.op == "split":
            about = set(edit.others)
        if lost := sorted(about & missing):
            which = ", ".join(str(i) for i in lost)
            told.append(f"{edit.described()}: no new object lies where {which} was")
    return told
