"""Parameters whose name no task knows: a slip of the pen is refused, anything else is told.

Viewers send keys of their own, so an unknown one alone is no fault. But `levle: object` answered
at the level that nobody asked for is an answer to another question.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Iterable
from typing import Any, Protocol

from lib.server.errors import refuse

logger = logging.getLogger("neuropil.requests")

NEAR = 0.74
"""Likeness (difflib's ratio) from which one name counts as a slip of the other: two letters
swapped in a word of four are 0.75."""
MOST_UNKNOWN = 100
MOST_SHOWN = 60

CLIENTS = frozenset({
    "client_id", "model", "method", "strategy", "logging", "timeout", "description",
    "restore_label_idx", "reset_state", "dimension", "largest_cc", "result_write_to_file",
    "user",
})  # fmt: skip
"""What MONAI Label, its client and its viewers add to any request, asked for or not."""

RESULT = frozenset({"result_extension", "result_dtype", "result_compress"})
"""How a viewer wants the file of an answer."""

OF_KIND: dict[str, frozenset[str]] = {
    "models": RESULT | {"client_id", "device", "bright_membranes", "save_label", "label_tag"},
    "trainers": frozenset(),
    "strategies": frozenset({"client_id"}),
    "scoring": frozenset({"device", "heat_maps"}),
}
"""What all tasks of a kind read beside their options."""

BATCH = frozenset({
    "device", "multi_gpu", "gpus", "labels", "label_tag", "save_label", "max_workers",
    "max_batch_size",
})  # fmt: skip
"""What batch inference reads beside what its task does."""


class Asked(Protocol):
    """What the rule asks of the app."""

    def names_of(self, kind: str) -> list[str]: ...

    def keys_of(self, kind: str, name: str) -> frozenset[str]: ...


def keys_of(kind: str, task: Any) -> frozenset[str]:
    """The names that a task knows: its options, what it reads besides, what its kind reads.

    Args:
        kind: "models", "trainers", "strategies" or "scoring".
        task: of MONAI Label; `reads` lists what is no option of its.
    """
    options = task.config() if hasattr(task, "config") else {}
    return OF_KIND[kind].union(options or (), getattr(task, "reads", ()))


def unknown_to(
    app: Asked, kind: str, name: str, given: Iterable[str], also: Collection[str] = ()
) -> list[str]:
    """`unknown_keys` of a request to one task.

    Args:
        kind, name: of the task.
        given: the keys of the request.
        also: keys that the way of asking knows beside the task.
    """
    others = (app.keys_of(kind, other) for other in app.names_of(kind))
    known = app.keys_of(kind, name).union(also)
    return unknown_keys(given, known, frozenset[str]().union(*others))


def unknown_keys(
    given: Iterable[str], known: Collection[str], elsewhere: Collection[str] = ()
) -> list[str]:
    """What is to be told of a request's keys.

    Args:
        given: the keys of the request.
        known: those of its task.
        elsewhere: those of other tasks: of no use here, but no slips either.

    Returns:
        A sentence that names the keys nobody reads; none where there are none.

    Raises:
        HTTPException: 400 for a key close to a known one, or for more than a person writes.
    """
    strange = [key for key in given if key not in known and key not in CLIENTS]
    if len(strange) > MOST_UNKNOWN:
        raise refuse(f"params: {len(strange)} keys that nobody knows; at most {MOST_UNKNOWN}")
    names = {_folded(name): name for name in sorted(known)}
    for key in strange:
        if key not in elsewhere and (near := _near(key, names)) is not None:
            raise refuse(
                f"params: no {key!r} here; did you mean {near!r}? Known: {', '.join(sorted(known))}"
            )
    if not strange:
        return []
    told = "params: not used here: " + ", ".join(_shortened(key) for key in strange)
    logger.warning("%s", told)
    return [told]


def _near(key: str, names: dict[str, str]) -> str | None:
    """The known name that a key is a slip of.

    Args:
        names: folded name -> name.
    """
    folded = _folded(key)
    if len(folded) > 2 * max(map(len, names), default=0):
        return None
    swapped = [name for name in names if sorted(name) == sorted(folded)]
    found = swapped or difflib.get_close_matches(folded, names, 1, NEAR)
    return names[found[0]] if found else None


def _folded(key: str) -> str:
    """Without what people leave out or put in: capitals, blanks, lines."""
    return re.sub(r"[\s_\-.]", "", key.casefold())


def _shortened(key: str) -> str:
    return repr(key if len(key) <= MOST_SHOWN else f"{key[:MOST_SHOWN]}...")
