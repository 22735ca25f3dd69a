"""What people do to objects by clicks: the option `do` of `proofread`, keys of Neuroglancer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lib.clicks.answer import ClickAnswer
from lib.configs.settings import LabelSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.proofread.answering import shown
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.edits import Edit
from lib.proofread.naming import identify
from lib.proofread.replay import NONE

ACTIONS = ("answer", "accept", "split", "merge", "delete", "name", "undo", "redo")
"""Without an edit, or with one: the first is the default."""


@dataclass(frozen=True)
class EditRequest:
    """An edit that a viewer asks for.

    Args:
        action: one of ACTIONS.
        positive: points on the objects that it is about, viewer voxels.
        name: of the viewer's segment, "" none.
        client: who asks.
    """

    action: str
    positive: Sequence[Sequence[int]]
    name: str
    client: str


class Editor:
    """Makes edits and says what they did.

    Args:
        hierarchy: the classes.
        labels: what a lab calls them.
    """

    def __init__(self, hierarchy: LabelHierarchy, labels: LabelSettings) -> None:
        self.hierarchy, self.labels = hierarchy, labels

    def run(
        self, objects: CurrentObjects, asked: EditRequest, answer: Callable[[], ClickAnswer]
    ) -> tuple[ClickAnswer, dict[str, Any]]:
        """Make the edit, and what the viewer is to show of it.

        Args:
            objects: of the item.
            answer: to the request's points, asked for where the edit needs it.

        Raises:
            ValueError: the points do not say what is to be done.
        """
        try:
            if asked.action in ("undo", "redo"):
                return self._step(objects, asked, answer)
            if asked.action in ("accept", "split"):
                return self._by_answer(objects, asked, answer())
            return self._by_points(objects, asked)
        except ValueError as error:
            raise ValueError(f"do={asked.action}: {error}") from error

    def _step(
        self, objects: CurrentObjects, asked: EditRequest, answer: Callable[[], ClickAnswer]
    ) -> tuple[ClickAnswer, dict[str, Any]]:
        step = objects.undo if asked.action == "undo" else objects.redo
        edit = step(asked.client)
        told: dict[str, Any] = {asked.action: edit.described() if edit else "nothing"}
        if edit is not None:
            told |= {"by": edit.by, "edit": told_of(edit, objects)}
        if len(asked.positive):
            return answer(), told
        named = objects.named(asked.name) if asked.name else NONE
        return _as_answer(shown(objects, named or (edit.object if edit else NONE))), told

    def _by_answer(
        self, objects: CurrentObjects, asked: EditRequest, found: ClickAnswer
    ) -> tuple[ClickAnswer, dict[str, Any]]:
        placed = Placed(found.mask, found.box)
        at = [i for i in objects.at(asked.positive) if i != NONE]
        if asked.action == "split":
            if not at:
                raise ValueError("no object under the first positive point")
            edit = objects.split(placed, at[0], asked.client)
        else:
            likely = at[0] if at and at[0] in objects.standing().touched else NONE
            object_id, name = identify(
                objects, placed, asked.name, self.hierarchy, self.labels.segment_names, likely
            )
            _not_elsewhere(objects, placed, object_id, asked.name)
            edit = objects.accept(placed, object_id, name, asked.client)
        return found, {"edit": told_of(edit, objects)}

    def _by_points(
        self, objects: CurrentObjects, asked: EditRequest
    ) -> tuple[ClickAnswer, dict[str, Any]]:
        at = list(dict.fromkeys(i for i in objects.at(asked.positive) if i != NONE))
        if not at:
            raise ValueError("no object under the positive points")
        if asked.action == "merge":
            edit = objects.merge(at, asked.client)
        elif asked.action == "delete":
            edit = objects.delete(at[0], asked.client)
        else:
            if not asked.name.strip():
                raise ValueError("label: the name that the object is to have")
            edit = objects.name(at[0], asked.name, asked.client)
        return _as_answer(shown(objects, edit.object)), {"edit": told_of(edit, objects)}


def _not_elsewhere(objects: CurrentObjects, placed: Placed, object_id: int, name: str) -> None:
    """Refuse a name whose accepted object lies somewhere else altogether: it would be lost.

    Raises:
        ValueError: names the object and what to do.
    """
    if object_id not in objects.standing().accepted:
        return
    if not (placed.mask & (objects.read(placed.box) == object_id)).any():
        raise ValueError(
            f"{name!r} is an accepted object elsewhere, of which no voxel lies here; give this one "
            "another name, or delete that one first"
        )


def told_of(edit: Edit, objects: CurrentObjects) -> dict[str, Any]:
    """An edit for a reply."""
    return {
        "op": edit.op,
        "object": edit.object,
        "name": objects.standing().names.get(edit.object, ""),
        "did": edit.described(),
    }


def _as_answer(placed: Placed) -> ClickAnswer:
    return ClickAnswer(placed.mask, placed.box, (), 0, True)
