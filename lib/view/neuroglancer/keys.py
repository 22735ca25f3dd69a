"""The keys: what each does, and what Neuroglancer calls it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """One action.

    Args:
        name: of the action.
        bindings: what sets it off, in Neuroglancer's words.
        shown: the same for people.
        does: in a few words.
    """

    name: str
    bindings: tuple[str, ...]
    shown: str
    does: str


KEYS = (
    Key("positive", ("keyp", "alt+mousedown0"), "P, Alt+click", "a point on the object"),
    Key("negative", ("keyn", "alt+mousedown2"), "N, Alt+right click", "a point beside the object"),
    Key("answer", ("keyw",), "W", "answer again, with the lines drawn in `yes` and `no`"),
    Key("kind", ("shift+keyw",), "Shift+W", "points mean organelles, or cells again"),
    Key("clear", ("escape",), "Escape", "forget the points and what was found"),
    Key("accept", ("keyf",), "F", "accept the answer; without points, the object under the mouse"),
    Key("merge", ("keym",), "M", "the objects under the points and the mouse are one"),
    Key("split", ("keyx",), "X", "the answer's part of the object becomes an object"),
    Key("delete", ("shift+keyx",), "Shift+X", "there is no such object as the one under the mouse"),
    Key("undo", ("keyu",), "U", "take the last edit back, whoever made it"),
    Key("redo", ("shift+keyu",), "Shift+U", "bring it back"),
    Key("class", ("keyk",), "K, then 1 to 9, 0, -, =", "the class of the object under the mouse"),
    Key("doubt", ("keyd",), "D", "the next doubtful place"),
    Key("objects", ("keyg",), "G", "objects of what is on the screen"),
    Key("classes", ("shift+keyg",), "Shift+G", "classes of what is on the screen"),
    Key("declare", ("keyt",), "T, T", "declare what is on the screen annotated"),
)
"""All of them, in the order of the page."""

CLASS_BINDINGS = (
    *(f"digit{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)), "minus", "equal",
    *(f"key{c}" for c in "qwertyuiop"),
)  # fmt: skip
"""Of the classes, in their order, after K."""
CLASS_SHOWN = tuple("1234567890-=qwertyuiop")


def action_of(name: str) -> str:
    """What the client calls an action: it lists them under H."""
    return f"neuropil-{name}"


def class_action(fine: int) -> str:
    """The action that chooses a class."""
    return action_of(f"class-{fine}")
