"""What an answer is, in words: a cell or an organelle, which one, and how to get the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.clicks.answer import ClickAnswer
from lib.clicks.viewer import ViewerRequest
from lib.labels.hierarchy import LabelHierarchy, normalize_name
from lib.proofread.answering import of_kind
from lib.proofread.current import CurrentObjects
from lib.proofread.naming import called, class_of, organelles_of
from lib.proofread.replay import NONE


def answered(
    objects: CurrentObjects | None,
    request: ViewerRequest,
    found: ClickAnswer,
    machine: NDArray[np.uint8],
    hierarchy: LabelHierarchy,
    mapping: Mapping[str, str],
) -> dict[str, Any]:
    """The object that an answer is, for a reply.

    Args:
        objects: of the item; None: there are none.
        request: that was answered.
        found: the answer.
        machine: (M + 1,) fine class + 1 of the machine's objects, by its own ids.
        hierarchy: the classes.
        mapping: names of the lab -> class or group names.

    Returns:
        `kind` ("cell", "organelle"), `class` ("" unknown), `object` (0: none that stands), of an
        organelle found now that of its `cell`, `name`, `accepted`, and `words`.
    """
    told: dict[str, Any] = {
        "kind": "cell", "class": "", "object": NONE, "name": "", "accepted": False
    }  # fmt: skip
    if found.organelle >= 0:
        told |= {"kind": "organelle", "class": hierarchy.class_names[found.organelle]}
    if objects is not None and len(request.positive):
        organelles, first = organelles_of(objects, hierarchy, mapping), request.positive[:1]
        cell, number = (
            of_kind(objects, first, kind, organelles).at(first)[0]
            for kind in ("cell", request.kind)
        )
        if number in organelles:
            told["kind"] = "organelle"
        elif told["kind"] == "organelle":  # found now: nothing of it stands
            number = NONE
        if told["kind"] == "organelle" and cell != number:
            told["cell"] = cell
        if number != NONE:
            class_set = class_of(objects, number, machine, hierarchy, mapping)
            known = class_set.bit_count() == 1 or class_set in hierarchy.group_sets
            told["class"] = hierarchy.describe(class_set) if known else told["class"]
            told["name"] = objects.standing().names.get(number, "")
        told |= {"object": number, "accepted": number in objects.standing().accepted}
    return {**told, "words": _words(told, hierarchy)}


def under_another_name(
    answer: Mapping[str, Any], name: str, hierarchy: LabelHierarchy, mapping: Mapping[str, str]
) -> str:
    """What to tell where an accepted object is answered that bears another name; or "".

    Args:
        answer: of `answered`.
        name: of the request's segment, "" none.
        hierarchy: the classes.
        mapping: names of the lab -> class or group names.
    """
    own = answer["name"] or f"object {answer['object']}"
    asked = called(name, answer["object"], hierarchy, mapping)
    if not answer["accepted"] or not asked or normalize_name(asked) == normalize_name(own):
        return ""
    return (
        f"the points lie in {own!r}, which is accepted, and not in {name!r}; do=name names it "
        "anew, do=accept with over=all takes its voxels"
    )


def _words(told: Mapping[str, Any], hierarchy: LabelHierarchy) -> str:
    inner = [c.name for c in hierarchy.classes if c.inside]
    outer = [c.name for c in hierarchy.classes if c.object and not c.inside]
    what = told["class"] or f"{told['kind']} of unknown class"
    if told["object"] != NONE:
        what = f"{what}, object {told['object']}" + (f" ({told['name']})" if told["name"] else "")
    elif told.get("cell", NONE) != NONE:
        what += f" in object {told['cell']}"
    what += ", accepted" if told["accepted"] else ""
    if told["kind"] == "organelle":
        return (
            f"an organelle: {what}. For the cell around it: kind=cell, or a segment named as one "
            f"({', '.join(outer[:2])})"
        )
    if not inner:
        return f"a cell: {what}"
    return (
        f"a cell: {what}. For an organelle in it: kind=organelle, or a segment named as one "
        f"({', '.join(inner)})"
    )
