"""Names, classes and states of segments for Neuroglancer's list, as Precomputed metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.labels.encodings import GROUP_BASE, UNCERTAIN
from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import object_name
from lib.proofread.current import CurrentObjects
from lib.proofread.replay import NONE

ACCEPTED, CORRECTED, FOUND = "accepted", "corrected", "found"
"""Tags that say what people did to an object."""


def class_properties(hierarchy: LabelHierarchy) -> dict[str, Any]:
    """Names of the values of a `final` map."""
    return _inline(class_names(hierarchy), {}, [])


def class_names(hierarchy: LabelHierarchy) -> dict[int, str]:
    """Value of a `final` map -> its name."""
    names = {i + 1: name for i, name in enumerate(hierarchy.class_names)}
    names |= {GROUP_BASE + k: f"{name} (group)" for k, name in enumerate(hierarchy.group_names)}
    return {**names, UNCERTAIN: "uncertain"}


def class_colors(hierarchy: LabelHierarchy) -> dict[int, str]:
    """Value of a `final` map -> its colour, #rrggbb."""
    colors = {i + 1: np.array(c.color, float) for i, c in enumerate(hierarchy.classes)}
    for k, name in enumerate(hierarchy.group_names):
        members = hierarchy.members(hierarchy.set_named(name))
        colors[GROUP_BASE + k] = np.mean([hierarchy.classes[i].color for i in members], axis=0)
    colors[UNCERTAIN] = np.array([128.0, 128.0, 128.0])
    return {value: "#" + bytes(round(float(c)) for c in rgb).hex() for value, rgb in colors.items()}


def object_properties(
    objects: CurrentObjects | None, classes: NDArray[np.uint8], hierarchy: LabelHierarchy
) -> dict[str, Any]:
    """Name, class, cell and state of the current objects; no voxel is read.

    The cells are the objects that are no organelles; which cell an organelle lies in is in the
    table of `main.py measure`.

    Args:
        objects: as they stand; None: there are none.
        classes: (N + 1,) fine class + 1 of each, 0 unknown.
    """
    if objects is None:
        return _inline({}, {}, [])
    standing = objects.standing()
    machine = objects.machine.highest if objects.machine else 0
    here = objects.ids_here(machine)[1:].tolist()
    present = {standing.machine.get(i, i) for i in here} | {d.object for d in standing.drawn}
    names: dict[int, str] = {}
    tags: dict[int, list[str]] = {}
    for number in sorted(present - {NONE}):
        fine = int(classes[number]) if number < len(classes) else 0
        one = 1 << fine - 1 if fine else hierarchy.unknown
        names[number] = standing.names.get(number) or object_name(one, number, hierarchy)
        tags[number] = [hierarchy.class_names[fine - 1]] if fine else ["no class"]
        inside = bool(fine) and hierarchy.classes[fine - 1].inside
        tags[number].append("organelle" if inside else "cell")
        done = number in standing.accepted
        touched = number in standing.touched
        tags[number].append(ACCEPTED if done else CORRECTED if touched else FOUND)
    kinds = [*hierarchy.class_names, "no class", "cell", "organelle", ACCEPTED, CORRECTED, FOUND]
    return _inline(names, tags, kinds)


def found_properties(
    ids: Sequence[int], classes: Sequence[int], hierarchy: LabelHierarchy
) -> dict[str, Any]:
    """Name and class of objects that were found, and that nobody has touched.

    Args:
        ids: of the objects.
        classes: fine class + 1 of each, 0 unknown.
    """
    names, tags = {}, {}
    for number, fine in zip(ids, classes, strict=True):
        one = 1 << fine - 1 if fine else hierarchy.unknown
        names[number] = object_name(one, number, hierarchy)
        tags[number] = [hierarchy.class_names[fine - 1] if fine else "no class"]
    return _inline(names, tags, [*hierarchy.class_names, "no class"])


def _inline(
    names: Mapping[int, str], tags: Mapping[int, Sequence[str]], kinds: Sequence[str]
) -> dict[str, Any]:
    """The metadata: https://github.com/google/neuroglancer, segment_properties.md."""
    if not names:  # the client looks for ever for an id in an empty table
        names, tags = {0: "no object"}, {}
    ids = sorted(names)
    properties: list[dict[str, Any]] = [
        {"id": "label", "type": "label", "values": [names[i] for i in ids]}
    ]
    if tags:
        place = {kind: n for n, kind in enumerate(kinds)}
        rows = [sorted(place[t] for t in tags[i]) for i in ids]
        properties.append(
            {
                "id": "tags",
                "type": "tags",
                "tags": [k.replace(" ", "-") for k in kinds],
                "values": rows,
            }
        )
    return {
        "@type": "neuroglancer_segment_properties",
        "inline": {"ids": [str(i) for i in ids], "properties": properties},
    }
