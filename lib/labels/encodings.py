"""How class sets are written as numbers: the `final` map, and what published files use.

The `final` map of a study item (uint8):

| value | meaning |
|---|---|
| 0 | unlabelled (unknown) |
| 1..C | fine class + 1 |
| 101..100+K | coarse group + 101: known by its group only |
| 201..254 | a class set of this item, listed in its record |
| 255 | uncertain (unknown) |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy

UNLABELLED = 0
UNCERTAIN = 255
GROUP_BASE = 101
SET_FIRST, SET_LAST = 201, 254
MAX_GROUPS = SET_FIRST - GROUP_BASE
_LUT_BITS = 16
"""Up to this many classes, all class sets fit a lookup table."""

ClassSetNames = Mapping[int, Iterable[str]]


class LabelValueError(ValueError):
    """A label value that its encoding does not know.

    Args:
        value: the first such value.
        index: where it is in the array that was read.
        allowed: the encoding's values, in words.
    """

    def __init__(self, value: float, index: tuple[int, ...], allowed: str) -> None:
        self.value = value
        self.index = index
        self.allowed = allowed
        super().__init__(f"label value {value} at voxel {index}; allowed: {allowed}")


def final_to_class_sets(
    final: NDArray[Any], hierarchy: LabelHierarchy, extra: ClassSetNames
) -> NDArray[np.int32]:
    """Decode a `final` map.

    Args:
        final: whole numbers, any shape and type.
        extra: the item's own class sets: code -> class names (its record's `class_sets`).

    Returns:
        Class sets (bit masks), same shape, int32.

    Raises:
        LabelValueError: a value that the table above and `extra` do not list.
    """
    lut = np.zeros(256, np.int32)
    for value, class_set in final_codes(hierarchy, extra).items():
        lut[value] = class_set
    outside = (final < 0) | (final > 255) if final.dtype != np.uint8 else None
    if outside is not None and final.dtype.kind == "f":
        outside |= final != np.floor(final)  # also NaN
    if outside is not None and outside.any():
        _raise_first(final, outside, hierarchy, extra)
    class_sets = lut[final.astype(np.uint8, copy=False)]
    if (class_sets == 0).any():
        _raise_first(final, class_sets == 0, hierarchy, extra)
    return class_sets


def class_sets_to_final(
    class_sets: NDArray[np.int32], hierarchy: LabelHierarchy, extra: ClassSetNames
) -> tuple[NDArray[np.uint8], dict[int, list[str]]]:
    """Encode class sets as a `final` map.

    Args:
        class_sets: bit masks, any shape; unknown becomes 0.
        extra: codes already given out; they keep their meaning.

    Returns:
        The map (uint8, same shape) and `extra` with codes added for new sets.

    Raises:
        ValueError: an empty set, a bit outside the hierarchy, or more than 54 sets that are
            neither a class nor a group.
    """
    present, positions = _distinct(class_sets, hierarchy)
    codes = {s: v for v, s in reversed(final_codes(hierarchy, extra).items())}
    codes[hierarchy.unknown] = UNLABELLED
    table = {int(code): list(names) for code, names in extra.items()}
    for class_set in present:
        if class_set not in codes:
            codes[class_set] = _new_code(table)
            members = hierarchy.members(class_set)
            table[codes[class_set]] = [hierarchy.classes[i].name for i in members]
    lut = np.array([codes[s] for s in present], np.uint8)
    return lut[positions].reshape(class_sets.shape), table


def final_codes(hierarchy: LabelHierarchy, extra: ClassSetNames) -> dict[int, int]:
    """What each value of a `final` map means: value -> class set, fine classes first.

    Raises:
        ValueError: `extra` names a class that the hierarchy does not have.
    """
    assert hierarchy.num_groups <= MAX_GROUPS, hierarchy.num_groups
    codes = {i + 1: 1 << i for i in range(hierarchy.num_classes)}
    codes |= {GROUP_BASE + k: s for k, s in enumerate(hierarchy.group_sets)}
    codes |= {int(code): hierarchy.set_of(names) for code, names in extra.items()}
    return {UNLABELLED: hierarchy.unknown, **codes, UNCERTAIN: hierarchy.unknown}


def describe_codes(hierarchy: LabelHierarchy, extra: ClassSetNames) -> str:
    """The values of a `final` map, for messages."""
    parts = [f"0 unlabelled, 1..{hierarchy.num_classes} classes"]
    if hierarchy.num_groups:
        parts.append(f"{GROUP_BASE}..{GROUP_BASE + hierarchy.num_groups - 1} groups")
    if extra:
        parts.append(f"{', '.join(str(c) for c in sorted(extra))} class sets of the item")
    return ", ".join([*parts, "255 uncertain"])


def _distinct(
    class_sets: NDArray[np.int32], hierarchy: LabelHierarchy
) -> tuple[list[int], NDArray[np.intp]]:
    """The sets that occur, and for each voxel the position of its set in that list."""
    if class_sets.size and (class_sets.min() < 1 or class_sets.max() > hierarchy.unknown):
        bad = class_sets[(class_sets < 1) | (class_sets > hierarchy.unknown)]
        raise ValueError(
            f"class set {int(bad.flat[0])} holds no class or one outside the hierarchy of "
            f"{hierarchy.num_classes} classes"
        )
    if hierarchy.num_classes > _LUT_BITS:
        found, inverse = np.unique(class_sets, return_inverse=True)
        return [int(s) for s in found], inverse.reshape(class_sets.shape)
    counts = np.bincount(class_sets.ravel(), minlength=hierarchy.unknown + 1)
    present = np.flatnonzero(counts)
    position = np.zeros(hierarchy.unknown + 1, np.intp)
    position[present] = np.arange(present.size)
    return [int(s) for s in present], position[class_sets]


def _new_code(table: Mapping[int, Any]) -> int:
    for code in range(SET_FIRST, SET_LAST + 1):
        if code not in table:
            return code
    raise ValueError(
        f"more than {SET_LAST - SET_FIRST + 1} different class sets in one item; make them groups"
    )


def _raise_first(
    values: NDArray[Any], bad: NDArray[np.bool_], hierarchy: LabelHierarchy, extra: ClassSetNames
) -> None:
    index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    raise LabelValueError(values[index].item(), index, describe_codes(hierarchy, extra))
