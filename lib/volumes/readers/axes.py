"""Which axes of a stored array are x, y and z, by the names that its file gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib.volumes.errors import VolumeError
from lib.volumes.lengths import Size, unit_nm
from lib.volumes.readers.remote import Folder

Axes = tuple[int | None, int | None, int | None]
"""The array's axes that are x, y, z; None for one it does not have."""

_WORDS = {
    "x": "x", "width": "x", "column": "x", "columns": "x", "col": "x", "cols": "x",
    "y": "y", "height": "y", "row": "y", "rows": "y",
    "z": "z", "depth": "z", "slice": "z", "slices": "z", "section": "z", "sections": "z",
    "plane": "z", "planes": "z",
}  # fmt: skip

NAME_KEYS = ("_ARRAY_DIMENSIONS", "axis_names", "axes", "dimension_names", "axis_labels",
             "dimensions_names", "DIMENSION_LABELS", "axistags", "axisOrder")  # fmt: skip
"""Attributes by which programs name an array's axes, in the order of trust."""


def axis_names(attributes: Mapping[str, Any]) -> list[str] | None:
    """The axis names among an array's attributes; None where there are none.

    Names may be a list of words, of {"name": word} or {"key": word}, a word of one letter for
    each axis ("zyx"), or a position for each name ({"x": 2, "y": 1, "z": 0}).
    """
    for key in NAME_KEYS:
        names = read_names(attributes.get(key))
        if names is not None and any(n in _WORDS for n in names):
            return names
    return None


def read_names(value: Any) -> list[str] | None:
    """One of the forms of `axis_names`, in lower case; None for anything else."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        if "axes" in value:
            return read_names(value["axes"])
        places = {str(k): v for k, v in value.items() if isinstance(v, int)}
        if sorted(places.values()) != list(range(len(places))) or not places:
            return None
        value = sorted(places, key=lambda k: places[k])
    if isinstance(value, str):
        value = value.replace(",", " ").split() if not value.isalpha() else list(value)
    if not isinstance(value, Iterable):
        return None
    return [_word(v) for v in value] or None


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("name", value.get("key", value.get("label", "")))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if value is None else str(value).strip().lower()


def space_axes(
    where: Folder | str, shape: Sequence[int], names: Sequence[str] | None, usual: str = "zyx"
) -> Axes:
    """The axes of an array that are x, y, z.

    Args:
        shape: of the array.
        names: its axis names in lower case; fewer than it has axes name the last ones.
        usual: the order where no name says another: "zyx" or "xyz".

    Returns:
        Positions of x, y, z. Further axes have one value and are left out.

    Raises:
        VolumeError: several channels or time points, or names that contradict each other.
    """
    rank = len(shape)
    if rank < 2:
        raise VolumeError(where, f"an array of shape {tuple(shape)}", "two or more axes")
    words = [_WORDS.get(n, "") for n in names or ()]
    if any(words):
        axes = _named_axes(where, shape, list(names or ()), words)
    else:
        axes = _usual_axes(shape, usual)
    if any(n != 1 for i, n in enumerate(shape) if i not in axes):
        said = f" and axes {', '.join(names)}" if names and any(words) else ""
        raise VolumeError(
            where, f"an array of shape {tuple(shape)}{said}", "three axes of more than one voxel",
            "split channels or time points into arrays of their own",
        )  # fmt: skip
    return axes


def _named_axes(
    where: Folder | str, shape: Sequence[int], names: list[str], words: list[str]
) -> Axes:
    first = len(shape) - len(words)
    found = {w: first + i for i, w in enumerate(words) if w}
    if first < 0 or len(found) != sum(bool(w) for w in words) or not {"x", "y"} <= set(found):
        raise VolumeError(
            where, f"axes named {names} for an array of shape {tuple(shape)}",
            "one name for each axis, x and y among them",
        )  # fmt: skip
    return found["x"], found["y"], found.get("z")


def _usual_axes(shape: Sequence[int], usual: str) -> Axes:
    """The last axes (z, y, x) or the first (x, y, z), once axes of one value are set aside."""
    axes = list(range(len(shape)))
    ends = (0, -1) if usual == "zyx" else (-1, 0)
    while len(axes) > 3:
        axes.pop(next((e for e in ends if shape[axes[e]] == 1), ends[0]))
    if usual == "zyx":
        axes.reverse()
    x, y, z = (*axes, None)[:3]
    return x, y, z


def along(values: Any, axes: Axes, rank: int) -> list[Any] | None:
    """Values that are stated for each axis of an array, as x, y, z.

    Args:
        values: one for each axis of the array, or for each of its axes of space in their order.

    Returns:
        Three values; a missing z has that of x. None where there are not as many values.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        return None
    listed = list(values)
    present = sorted(a for a in axes if a is not None)
    if len(listed) == rank:
        place = {a: a for a in present}
    elif len(listed) == len(present):
        place = {a: i for i, a in enumerate(present)}
    else:
        return None
    found = [None if a is None else listed[place[a]] for a in axes]
    return [found[0] if v is None else v for v in found]


def offset_nm(values: Any, units: Any, axes: Axes, rank: int) -> Size | None:
    """An offset along an array's axes as x, y, z in nm.

    Args:
        units: for x, y, z, or one for all.

    Returns:
        None where it or its unit is not stated or makes no sense.
    """
    found = along(values, axes, rank)
    if found is None or units is None:
        return None
    words = units if isinstance(units, list) else [units] * 3
    try:
        factors = [unit_nm(u) for u in words]
        if any(f is None for f in factors):
            return None
        if axes[2] is None:
            found[2] = 0.0
        x, y, z = (round(float(v) * (f or 0.0), 6) for v, f in zip(found, factors, strict=True))
    except (TypeError, ValueError):
        return None
    return x, y, z
