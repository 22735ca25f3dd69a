"""What people do to objects, one edit a line of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from lib.volumes.boxes import Box

Op = Literal[
    "accept", "redraw", "split", "merge", "delete", "name", "undo", "redo", "rebase"
]  # fmt: skip
OPS: tuple[Op, ...] = get_args(Op)


@dataclass(frozen=True)
class Edit:
    """One edit. Everything that a replay needs is in it or in the payloads that it names.

    Args:
        op: "accept" (the object is right and locked), "redraw" (its voxels are these), "split"
            (a part of an object becomes an object), "merge", "delete", "name", "undo" and "redo"
            (of the last edit that stands), "rebase" (the machine found new objects).
        object: the object it is about, by the id that it has afterwards.
        others: ids of what is merged into it; of a split, the object that was cut; of an accepted
            cell, the organelles that lie in it and stay what they are.
        rest: id of what a redraw leaves over of the object; 0: that becomes no object.
        mask: payload of the object's voxels on `box`; "" where the op needs none.
        box: voxels of the item.
        name: of the object, as people call it; "" leaves it.
        ids: payload of a rebase: for each id of the new map the id that it goes by here.
        by: who, as the client names itself.
        time: UTC, ISO 8601.
        on: version of the machine's objects that it was made on.
    """

    op: Op
    object: int = 0
    others: tuple[int, ...] = ()
    rest: int = 0
    mask: str = ""
    box: Box | None = None
    name: str = ""
    ids: str = ""
    by: str = ""
    time: str = ""
    on: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: what is not as by default."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in values.items() if v not in ("", 0, (), None)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Edit:
        """Read the JSON form.

        Raises:
            ValueError: an unknown op or a value of another kind.
        """
        if data.get("op") not in OPS:
            raise ValueError(f"op {data.get('op')!r}; expected one of {', '.join(OPS)}")
        known = {f.name for f in fields(Edit)}
        values = {k: v for k, v in data.items() if k in known}
        try:
            values["others"] = tuple(int(i) for i in data.get("others", ()))
            for key in ("object", "rest"):
                values[key] = int(data.get(key, 0))
            if data.get("box") is not None:
                x, y, z = ((int(a), int(b)) for a, b in data["box"])
                values["box"] = (x, y, z)
            return Edit(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"not an edit ({error})") from error

    def described(self) -> str:
        """For people: "merge of 17 with 4, 9"."""
        what = self.name or f"object {self.object}"
        if self.op == "merge":
            return f"merge of {what} with {', '.join(str(i) for i in self.others)}"
        if self.op == "split":
            return f"split of object {self.others[0]}"
        return f"{self.op} of {what}"
