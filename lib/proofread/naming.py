"""Which object a name and some voxels mean, and what an object is called."""

from __future__ import annotations

from collections.abc import Mapping

import fastremap
import numpy as np

from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import keeps_number, object_name, parse_segment_name
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
) -> tuple[int, str]:
    """The object that a segment is, or a new one.

    Args:
        objects: as they stand.
        placed: the segment's voxels.
        name: of the segment: "axon 17" is object 17, "axon" an axon; "" nothing is said.
        mapping: names of the lab -> class or group names.
        likely: the object it must be where its name does not say which, NONE: not known.

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
        return likely or _mostly(objects, placed) or objects.new_id(), name
    found = likely or _mostly(objects, placed) or objects.new_id()
    if meaning is not None and meaning.kind in ("class", "group"):
        return found, object_name(meaning.class_set, found, hierarchy)
    return found, ""


def _mostly(objects: CurrentObjects, placed: Placed) -> int:
    """The object that has most of some voxels and is not called something else; or NONE."""
    ids, counts = fastremap.unique(objects.read(placed.box)[placed.mask], return_counts=True)
    best = int(np.argmax(counts)) if len(ids) else 0
    if not len(ids) or counts[best] <= MOSTLY * counts.sum():
        return NONE
    found = int(ids[best])
    return NONE if found in objects.standing().names else found
