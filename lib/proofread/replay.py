"""From the log to what stands: which voxels belong to which object.

Two kinds of material make the map: objects of the machine, and voxels that an edit drew. Each
belongs to one object, or to none. Edits move materials from object to object, and drawn voxels
lie over what was there before; so a map is the machine's ids through one table, and on them the
drawn voxels in their order, whatever the number of edits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lib.labels.hierarchy import normalize_name
from lib.proofread.edits import Edit
from lib.volumes.boxes import Box

NONE = 0
"""The object of voxels that belong to none."""


@dataclass(frozen=True)
class Drawn:
    """Voxels that an edit gave to an object.

    Args:
        box: of the item.
        mask: payload.
        object: to which they belong now, where nothing newer was drawn over them.
    """

    box: Box
    mask: str
    object: int


@dataclass(frozen=True)
class Standing:
    """What the edits of a log add up to.

    Args:
        active: the edits that stand, oldest first.
        undone: those that redo would bring back, the next one last.
        rebases: version of the machine's objects -> payload of their ids here.
        versions: of the machine's objects on which edits were made.
        machine: id of the machine (as it goes by here) -> object; ids not in it are their own.
        drawn: oldest first.
        accepted: ids of the objects that are right and locked.
        names: id -> name.
        touched: ids of the objects that a person made, corrected or accepted.
        highest: the largest id that any edit ever used, undone ones too.
    """

    active: tuple[Edit, ...] = ()
    undone: tuple[Edit, ...] = ()
    rebases: Mapping[str, str] = field(default_factory=dict)
    versions: frozenset[str] = frozenset()
    machine: dict[int, int] = field(default_factory=dict)
    drawn: tuple[Drawn, ...] = ()
    accepted: frozenset[int] = frozenset()
    names: Mapping[int, str] = field(default_factory=dict)
    touched: frozenset[int] = frozenset()
    highest: int = 0


def replay(edits: Iterable[Edit]) -> Standing:
    """What a log adds up to. Undo without an edit that stands, or redo, does nothing."""
    active: list[Edit] = []
    undone: list[Edit] = []
    rebases: dict[str, str] = {}
    versions: set[str] = set()
    highest = 0
    for edit in edits:
        highest = max(highest, edit.object, edit.rest, *edit.others)
        versions.add(edit.on)
        if edit.op == "undo":
            if active:
                undone.append(active.pop())
        elif edit.op == "redo":
            if undone:
                active.append(undone.pop())
        elif edit.op == "rebase":
            rebases[edit.on] = edit.ids
        else:
            active.append(edit)
            undone.clear()
    table = _Table()
    for edit in active:
        table.apply(edit)
    drawn = tuple(Drawn(*table.drawn[k], table.owner[k]) for k in table.order)
    return Standing(
        tuple(active), tuple(undone), rebases, frozenset(versions - {""}), dict(table.machine),
        drawn, frozenset(table.accepted), dict(table.names), frozenset(table.touched), highest,
    )  # fmt: skip


class _Table:
    """Who owns which material, while edits are applied."""

    def __init__(self) -> None:
        self.machine: dict[int, int] = {}
        self.drawn: list[tuple[Box, str]] = []
        self.owner: list[int] = []
        self.order: list[int] = []  # of what was drawn, the uppermost last
        self.accepted: set[int] = set()
        self.names: dict[int, str] = {}
        self.touched: set[int] = set()
        self._origins: dict[int, list[int]] = {}  # object -> machine's ids; itself, if absent
        self._layers: dict[int, list[int]] = {}  # object -> what was drawn for it

    def apply(self, edit: Edit) -> None:
        """One edit that stands."""
        one = edit.object
        name = edit.name or self.names.get(one, "")
        if edit.op == "merge":
            for other in edit.others:
                self._move(other, one)
        elif edit.op == "delete":
            self._move(one, NONE)
        elif edit.op in ("accept", "redraw"):
            self._move(one, edit.rest)
        if edit.mask and edit.box is not None:
            self._layers.setdefault(one, []).append(len(self.owner))
            self.order.append(len(self.owner))
            self.drawn.append((edit.box, edit.mask))
            self.owner.append(one)
        if edit.op == "accept":
            above = {layer for other in edit.others for layer in self._layers.get(other, [])}
            self.order.sort(key=above.__contains__)
        if edit.op == "delete":
            return
        if name:
            self.names[one] = name
        if edit.op == "split":  # a name goes with the part that it was said of
            for other in edit.others:
                if normalize_name(self.names.get(other, "")) == normalize_name(name):
                    self.names.pop(other, None)
        if edit.op == "accept":
            self.accepted.add(one)
        elif edit.op != "name":  # what is changed is not what was accepted
            self.accepted.difference_update((one, *edit.others))
        self.touched.add(one)
        if edit.op == "split":
            self.touched.update(edit.others)

    def _move(self, source: int, target: int) -> None:
        """All that an object has goes to another one, or to none."""
        origins = self._origins.get(source, [source])
        layers = self._layers.get(source, [])
        self._origins[source], self._layers[source] = [], []
        self.machine.update(dict.fromkeys(origins, target))
        for layer in layers:
            self.owner[layer] = target
        if target != NONE:
            self._origins[target] = [*self._origins.get(target, [target]), *origins]
            self._layers[target] = [*self._layers.get(target, []), *layers]
        self.accepted.discard(source)
        self.touched.discard(source)
        self.names.pop(source, None)
