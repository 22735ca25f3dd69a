"""Which object a name and some voxels mean, and what an object is called."""

from __future__ import annotations

from collections.abc import Mapping

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import keeps_number, kind_named, object_name, parse_segment_name
from lib.proofread.current import LARGEST_ID, CurrentObjects, Placed
from lib.proofread.replay import NONE

MOSTLY = 0.5
"""Share of some voxels that one object must have for them to be that object, corrected."""


def identify(
    objects: CurrentObjects,
    placed: Placed,
    name: str,
    hierarchy: LabelHierarchy,
    mapping: Mapping[str, str],
    likely: int = NONE,
    organelle: int = -1,
) -> tuple[int, str]:
    """The object that a segment is, or a new one.

    Args:
        objects: as they stand.
        placed: the segment's voxels.
        name: of the segment: "axon 17" is object 17, "axon" an axon; "" nothing is said.
        mapping: names of the lab -> class or group names.
        likely: the object it must be where its name does not say which, NONE: not known.
        organelle: class of the organelle that it is, -1: it is none, and may be the object that
            has most of its voxels; an organelle is not the cell that it lies in.

    Returns:
        Its id, and the name to keep.
    """
    meaning = parse_segment_name(name, hierarchy, mapping) if name.strip() else None
    known = objects.named(name) if meaning else NONE
    if known != NONE:
        return known, name
    if meaning is not None and meaning.kind == "object":
        number = meaning.object_number or 0
        if keeps_number(name, meaning, hierarchy) and 0 < number <= LARGEST_ID:
            return number, name
    found = likely or (NONE if organelle >= 0 else _mostly(objects, placed)) or objects.new_id()
    if organelle >= 0 and not name.strip() and not likely:
        return found, object_name(1 << organelle, found, hierarchy)
    return found, called(name, found, hierarchy, mapping)


def called(name: str, object_id: int, hierarchy: LabelHierarchy, mapping: Mapping[str, str]) -> str:
    """The name that an object is to have: "axon" is "axon 17" for object 17.

    Args:
        name: as given; "" or one that says nothing ("uncertain", "background"): none.
    """
    if not name.strip():
        return ""
    meaning = parse_segment_name(name, hierarchy, mapping)
    if meaning.kind in ("class", "group"):
        return object_name(meaning.class_set, object_id, hierarchy)
    return name if meaning.kind == "object" else ""


def organelles_of(
    objects: CurrentObjects, hierarchy: LabelHierarchy, mapping: Mapping[str, str]
) -> frozenset[int]:
    """The objects that people named as what lies inside cells."""
    names = objects.standing().names.items()
    return frozenset(i for i, n in names if kind_named(n, hierarchy, mapping) == "organelle")


def class_of(
    objects: CurrentObjects,
    object_id: int,
    machine: NDArray[np.uint8],
    hierarchy: LabelHierarchy,
    mapping: Mapping[str, str],
) -> int:
    """The class set of one object: what its name says, or else the machine.

    Args:
        objects: as they stand.
        object_id: of them.
        machine: (M + 1,) fine class + 1 of the machine's objects, by its own ids.
        hierarchy: the classes.
        mapping: names of the lab -> class or group names.
    """
    name = objects.standing().names.get(object_id, "")
    meant = parse_segment_name(name, hierarchy, mapping).class_set if name else hierarchy.unknown
    if meant not in (hierarchy.unknown, hierarchy.object_set):
        return meant
    own = np.flatnonzero(objects.ids_here(len(machine) - 1) == object_id)
    fine = int(machine[own].max(initial=0)) if object_id != NONE else 0
    return 1 << fine - 1 if fine else meant


def current_classes(
    objects: CurrentObjects,
    machine: NDArray[np.uint8],
    hierarchy: LabelHierarchy,
    mapping: Mapping[str, str],
) -> NDArray[np.uint8]:
    """Classes of current objects: what their names say, or else the machine's.

    Args:
        objects: as they stand.
        machine: (M + 1,) fine class + 1 of the machine's objects, by its own ids.
        mapping: names of the lab -> class or group names.

    Returns:
        (N + 1,) fine class + 1 of each, 0 unknown; N is the largest id.
    """
    standing = objects.standing()
    here = objects.ids_here(len(machine) - 1)
    highest = max([objects.new_id() - 1, *here.tolist()])
    classes = np.zeros(highest + 1, np.uint8)
    for fine, number in zip(machine[1:].tolist(), here[1:].tolist(), strict=True):
        owner = standing.machine.get(number, number)
        if owner == number or not classes[owner]:
            classes[owner] = fine
    for number, name in standing.names.items():
        members = hierarchy.members(parse_segment_name(name, hierarchy, mapping).class_set)
        if len(members) == 1 and number <= highest:
            classes[number] = members[0] + 1
    classes[0] = 0
    return classes


def _mostly(objects: CurrentObjects, placed: Placed) -> int:
    """The object that has most of some voxels and is not called something else; or NONE."""
    ids, counts = fastremap.unique(objects.read(placed.box)[placed.mask], return_counts=True)
    best = int(np.argmax(counts)) if len(ids) else 0
    if not len(ids) or counts[best] <= MOSTLY * counts.sum():
        return NONE
    found = int(ids[best])
    return NONE if found in objects.standing().names else found
