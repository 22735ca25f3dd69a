"""A submission's objects that a person made: each is accepted, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lib.proofread.answering import Over
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.machine import MachineObjects
from lib.volumes.boxes import Box
from lib.volumes.readers.opening import open_file
from lib.volumes.study import StudyItem


@dataclass(frozen=True)
class Accepted:
    """What a submission did to the current objects.

    Args:
        names: of the objects that stand accepted as they were submitted.
        notes: what the annotator should know.
    """

    names: list[str]
    notes: list[str]


def accept_submitted(
    objects: CurrentObjects,
    item: StudyItem,
    made: Mapping[int, str],
    by: str = "",
    over: Over = "free",
) -> Accepted:
    """Accept objects of an item's `instance` label as they are there.

    Args:
        objects: of the item.
        item: with the label that a submission has just made.
        made: id -> name of the objects that a person made.
        by: who submitted.
        over: "free" leaves voxels of other accepted objects to them.
    """
    names: list[str] = []
    notes: list[str] = []
    if not made:
        return Accepted(names, notes)
    source = open_file(item.label_path("instance"), item.study.spacing_unit)
    try:
        submitted = MachineObjects(source, "")
        for object_id, name in made.items():
            box = submitted.extent(object_id)
            if box is None:  # painted over by what lies inside it
                continue
            placed = Placed(submitted.read(box) == object_id, box)
            if _accept(objects, object_id, name, placed, by, over, notes):
                names.append(name)
    finally:
        source.close()
    return Accepted(names, notes)


def done_in(objects: CurrentObjects, box: Box | None) -> dict[str, int]:
    """How many objects of a region (the item, by default) there are and are accepted."""
    present = objects.ids(box)
    return {
        "objects": len(present),
        "accepted": len(objects.standing().accepted.intersection(present)),
    }


def _accept(
    objects: CurrentObjects,
    object_id: int,
    name: str,
    placed: Placed,
    by: str,
    over: Over,
    notes: list[str],
) -> bool:
    """Accept one object; whether it stands as it was submitted."""
    if _stands(objects, object_id, placed):
        return True
    if over == "free":
        locked = objects.locked(placed.box, [object_id]) & placed.mask
        if left := int(np.count_nonzero(locked)):
            placed = Placed(placed.mask & ~locked, placed.box)
            notes.append(
                f"{name}: {left} voxels of accepted objects were left to them; "
                "over=all takes them as well"
            )
    if not placed.mask.any():
        return False
    objects.accept(placed, object_id, name, by)
    return True


def _stands(objects: CurrentObjects, object_id: int, placed: Placed) -> bool:
    """Whether an object is accepted with just these voxels already."""
    if object_id not in objects.standing().accepted:
        return False
    before = objects.voxels(object_id)
    same_place = before is not None and before.box == placed.box
    return before is not None and same_place and bool((before.mask == placed.mask).all())
