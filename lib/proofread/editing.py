"""What people do to objects by clicks: the option `do` of `proofread`, keys of Neuroglancer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib.clicks.answer import ClickAnswer
from lib.clicks.source import Kind
from lib.configs.settings import LabelSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import keeps_number, kind_named, object_name, parse_segment_name
from lib.proofread.answering import Over, all_of, left_to_accepted, of_kind, shown, with_inner
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.edits import Edit
from lib.proofread.naming import called, identify, organelles_of
from lib.proofread.replay import NONE, Standing

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
        kind: of object that the points mean.
        over: whether an accepted object may take voxels of others.
    """

    action: str
    positive: Sequence[Sequence[int]]
    name: str
    client: str
    kind: Kind = "cell"
    over: Over = "free"


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
        before = objects.standing()
        try:
            if asked.action in ("undo", "redo"):
                return self._step(objects, asked, answer)
            if asked.action == "accept":
                found, edit = self._accepted(objects, asked, answer())
            elif asked.action == "split":
                found, edit = self._split(objects, asked, answer())
            else:
                edit = self._by_points(objects, asked)
                found = _as_answer(shown(objects, edit.object))
        except ValueError as error:
            raise ValueError(f"do={asked.action}: {error}") from error
        told = _unlocked(before, objects.standing(), edit)
        return replace(found, warnings=(*found.warnings, *told)), {"edit": told_of(edit, objects)}

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
        ids = [objects.named(asked.name), *([edit.object, *edit.others] if edit else [])]
        there = (number for number in ids if objects.voxels(number) is not None)
        return _as_answer(shown(objects, next(there, NONE))), told

    def _accepted(
        self, objects: CurrentObjects, asked: EditRequest, found: ClickAnswer
    ) -> tuple[ClickAnswer, Edit]:
        """The answer is the object; accepted ones keep their voxels, cells not from organelles."""
        names, placed = self.labels.segment_names, Placed(found.mask, found.box)
        organelles, standing = organelles_of(objects, self.hierarchy, names), objects.standing()
        first = next(iter(self._meant(objects, asked)), NONE)
        organelle = found.organelle >= 0 or first in organelles
        ours = first in standing.touched and organelle == (first in organelles)
        object_id, name = identify(
            objects, placed, asked.name, self.hierarchy, names, first if ours else NONE,
            found.organelle,
        )  # fmt: skip
        _not_elsewhere(objects, placed, object_id, asked.name)
        inner = frozenset[int]()
        if not organelle and asked.over == "free":
            placed, inner = with_inner(objects, placed, object_id, organelles - {object_id})
        taker = {object_id, *inner, *(standing.accepted - organelles if organelle else ())}
        placed, told = left_to_accepted(objects, placed, taker, asked.over)
        if told and all_of(objects, placed, inner):
            raise ValueError(f"nothing is left of it: {told}; do=name gives one another name")
        edit = objects.accept(placed, object_id, name, asked.client, inner)
        warnings = (*found.warnings, told) if told else found.warnings
        return replace(found, mask=placed.mask, warnings=warnings), edit

    def _split(
        self, objects: CurrentObjects, asked: EditRequest, found: ClickAnswer
    ) -> tuple[ClickAnswer, Edit]:
        """The answer's part of an object becomes one, which has the request's name from now on."""
        at = self._meant(objects, asked)
        if not at:
            raise ValueError("no object under the first positive point")
        given = self._free(objects, asked.name, at[:1])
        placed = Placed(found.mask, found.box)
        return found, objects.split(placed, at[0], asked.client, self._namer(given))

    def _by_points(self, objects: CurrentObjects, asked: EditRequest) -> Edit:
        at = [i for i in dict.fromkeys(objects.at(asked.positive)) if i != NONE]
        if not len(asked.positive) and asked.action == "delete" and objects.named(asked.name):
            at = [objects.named(asked.name)]
        if not at:
            raise ValueError("no object under the positive points")
        if asked.action == "merge":
            at = self._meant(objects, asked)
            return objects.merge(at, asked.client, self._merged_name(objects, at, asked.name))
        if asked.action == "delete":
            return objects.delete(at[0], asked.client)
        name = self._namer(self._free(objects, asked.name, at[:1]))(at[0])
        if not name:
            raise ValueError(
                f"label: expected the name that the object is to have, found {asked.name!r}"
            )
        return objects.name(at[0], name, asked.client)

    def _meant(self, objects: CurrentObjects, asked: EditRequest) -> list[int]:
        """The objects that the positive points mean, each once."""
        organelles = organelles_of(objects, self.hierarchy, self.labels.segment_names)
        found = of_kind(objects, asked.positive, asked.kind, organelles).at(asked.positive)
        return [i for i in dict.fromkeys(found) if i != NONE]

    def _merged_name(self, objects: CurrentObjects, at: Sequence[int], name: str) -> str:
        """The name of what objects are merged into: the request's, where it is one of a class or
        they have none; else that of the first which has one."""
        own = [objects.standing().names[i] for i in at if i in objects.standing().names]
        given = self._namer(self._free(objects, name, at))(at[0])
        says = bool(kind_named(name, self.hierarchy, self.labels.segment_names))
        return given if given and (says or not own) else next(iter(own), "")

    def _namer(self, name: str) -> Callable[[int], str]:
        return lambda number: called(name, number, self.hierarchy, self.labels.segment_names)

    def _free(self, objects: CurrentObjects, name: str, but: Sequence[int] = ()) -> str:
        """A name that no other object bears: of "axon 6" only "axon" where 6 is another object.

        Raises:
            ValueError: names the one that does.
        """
        bears = objects.named(name) if name.strip() else NONE
        if bears != NONE and bears not in but:
            raise ValueError(
                f"label: {name!r} is object {bears} already; give another name, or do=merge the two"
            )
        meaning = parse_segment_name(name, self.hierarchy, self.labels.segment_names)
        number = meaning.object_number if keeps_number(name, meaning, self.hierarchy) else None
        if number is None or number in but or objects.voxels(number) is None:
            return name
        return object_name(meaning.class_set, number, self.hierarchy).rpartition(" ")[0]


def _unlocked(before: Standing, after: Standing, edit: Edit) -> list[str]:
    """What to tell of objects that were accepted, and are no more by an edit."""
    gone = sorted(before.accepted - after.accepted)
    names = ", ".join(before.names.get(i) or f"object {i}" for i in gone)
    if edit.op == "delete":
        return [f"{names} was accepted and is deleted; do=undo brings it back"] if gone else []
    what = "has changed and is" if len(gone) == 1 else "have changed and are"
    return [f"{names} {what} accepted no more; accept what it is now"] if gone else []


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
        "name": objects.standing().names.get(edit.object, edit.name),
        "did": edit.described(),
    }


def _as_answer(placed: Placed) -> ClickAnswer:
    return ClickAnswer(placed.mask, placed.box, (), 0, True)
