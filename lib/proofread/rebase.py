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
    machine (merge, split, delete, name), those take their place that lie mostly in them; of the
    others each keeps the id that it had as far as it is the same object. It is entered in the log
    under the new objects' version; edits on the old ones stay readable.

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
        edits = [*standing.active, *standing.undone]
        spoken = _spoken_of(edits)
        others = {i for e in edits for i in (e.object, *e.others, e.rest)} - spoken
        table, found = _ids_here(old, new, spoken, others)
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
    old: CurrentObjects, new: MachineObjects, spoken: set[int], drawn: set[int]
) -> tuple[NDArray[np.uint32], set[int]]:
    """The ids by which new objects go, and the old ones that edits speak of and are still there.

    An object of no edit keeps its id where one of the new ones is mostly in it and it mostly in
    the new one; all other new objects get ids that nothing had.

    Args:
        spoken: ids that edits speak of without saying which voxels they have.
        drawn: those whose voxels edits say, which takes them from the machine's of that id.
    """
    parts = [
        contingency(new.read(slab), old.machine_ids(slab))
        for slab in slabs(whole_box(new.shape), 24, SLAB_BYTES)
    ]
    pairs, index = np.unique(
        np.concatenate([np.stack([p.truth, p.guess]) for p in parts], 1),
        axis=1, return_inverse=True,
    )  # fmt: skip
    counts = np.bincount(index.ravel(), np.concatenate([p.counts for p in parts]))
    (_, own), (_, theirs) = (np.unique(side, return_inverse=True) for side in pairs)
    mine, before = pairs
    inside = counts > MOSTLY * np.bincount(own, counts)[own]
    around = counts > MOSTLY * np.bincount(theirs, counts)[theirs]
    about, taken = (np.isin(before, np.array(sorted(i), np.int64)) for i in (spoken, drawn))
    keeps = (mine > 0) & (before > 0) & inside & (about | (around & ~taken))
    first = max(old.new_id(), new.highest + 1)
    table = np.arange(first - 1, first + new.highest, dtype=np.uint32)
    table[0] = 0
    table[mine[keeps]] = before[keeps]
    return table, set(before[keeps & about].tolist())


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
