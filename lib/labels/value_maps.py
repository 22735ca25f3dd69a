"""From a source's label values to class sets: published encodings and mapping files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from lib.labels.encodings import UNCERTAIN, ClassSetNames, LabelValueError, final_codes
from lib.labels.hierarchy import LabelHierarchy

EncodingName = Literal["canonical", "plan"]
ENCODINGS: tuple[EncodingName, ...] = ("canonical", "plan")

_RANGE = re.compile(r"\s*(-?\d+)\s*-\s*(-?\d+)\s*")
_LARGEST = 1 << 16


@dataclass(frozen=True)
class ValueMap:
    """Label value -> class set.

    Args:
        table: the values that are known.
        other: the class set of every other value; None refuses them.
        uncertain: values that say that nothing can be known, not even by an object's id;
            None for every value outside the table.
    """

    table: Mapping[int, int]
    other: int | None = None
    uncertain: frozenset[int | None] = frozenset()

    def __post_init__(self) -> None:
        assert self.table and 0 not in self.table.values() and self.other != 0

    def apply(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """Class sets of label values.

        Args:
            values: integers, any shape and type.

        Returns:
            Bit masks, same shape, int32.

        Raises:
            LabelValueError: a value outside the table, when there is no `other`.
        """
        low, high = min(self.table), max(self.table)
        lut = np.full(high - low + 2, self.other or 0, np.int32)
        for value, class_set in self.table.items():
            lut[value - low] = class_set
        outside = (values < low) | (values > high)
        position = np.where(outside, high, values).astype(np.int64) - low
        class_sets: NDArray[np.int32] = lut[np.where(outside, high - low + 1, position)]
        bad = class_sets == 0
        if bad.any():
            index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
            raise LabelValueError(int(values[index]), index, self.describe())
        return class_sets

    def says_uncertain(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where label values are uncertain; same shape, bool."""
        mask = np.zeros(values.shape, np.bool_)
        info = np.iinfo(values.dtype)
        for value in self.uncertain:
            if value is None:
                mask |= ~np.isin(values, list(self.table))
            elif info.min <= value <= info.max:
                mask |= values == value
        return mask

    def describe(self) -> str:
        """The known values, as ranges."""
        runs: list[list[int]] = []
        for value in sorted(self.table):
            if runs and value == runs[-1][1] + 1:
                runs[-1][1] = value
            else:
                runs.append([value, value])
        return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)


def encoding(
    name: EncodingName, hierarchy: LabelHierarchy, extra: ClassSetNames | None = None
) -> ValueMap:
    """A published encoding.

    Args:
        name: "canonical", the values of a study's `final` map; "plan", fine classes 0..C-1
            with 255 or -1 for unknown (spec/hierarchical-supervision.md, "Label set").
        extra: class sets that the file lists for values 201..254 (canonical only).
    """
    if name == "canonical":
        return ValueMap(final_codes(hierarchy, extra or {}), uncertain=frozenset({UNCERTAIN}))
    fine = {i: 1 << i for i in range(hierarchy.num_classes)}
    unknown = {-1: hierarchy.unknown, UNCERTAIN: hierarchy.unknown}
    return ValueMap({**unknown, **fine}, uncertain=frozenset(unknown))


def load_value_map(path: Path | str, hierarchy: LabelHierarchy) -> ValueMap:
    """Read a mapping file.

    A YAML file with `values`, from a label value or a range of them to what it can be, and
    optionally `other`, for all values that are not listed::

        values:
          191: mitochondria                      # a class or a group
          159: [glia, extracellular space]       # one of several
          255: {any_but: [mitochondria, myelin]} # every class but these
          0: unlabelled                          # nothing, unless an object's id says more
          1-128: unknown                         # nothing can be known, whatever the id
        other: unknown                           # without it such values are refused

    Raises:
        ValueError: the file's name, the entry and what is wrong with it.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not isinstance(data.get("values"), dict):
            raise ValueError("expected a mapping `values` of label value to class names")
        if unknown := set(data) - {"values", "other"}:
            raise ValueError(f"unknown keys {sorted(map(str, unknown))}; known: values, other")
        return _value_map(data["values"], data.get("other"), hierarchy)
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ValueError(f"mapping file {path}: {' '.join(str(error).split())}") from error


def _value_map(values: Mapping[Any, Any], other: Any, hierarchy: LabelHierarchy) -> ValueMap:
    table: dict[int, int] = {}
    uncertain: set[int | None] = {None} if other == "unknown" else set()
    for key, meaning in values.items():
        class_set = _meaning(meaning, hierarchy, f"values.{key}")
        for value in _range(key):
            if value in table:
                raise ValueError(f"values.{key}: value {value} is listed twice")
            table[value] = class_set
            if meaning == "unknown":
                uncertain.add(value)
    if not table:
        raise ValueError("values: at least one label value is needed")
    if max(table) - min(table) > _LARGEST:
        raise ValueError(f"values: from {min(table)} to {max(table)} are over {_LARGEST} values")
    rest = None if other is None else _meaning(other, hierarchy, "other")
    return ValueMap(table, rest, frozenset(uncertain))


def _range(key: Any) -> range:
    if isinstance(key, int) and not isinstance(key, bool):
        return range(key, key + 1)
    if match := _RANGE.fullmatch(str(key)):
        low, high = int(match[1]), int(match[2])
        if low <= high and high - low <= _LARGEST:
            return range(low, high + 1)
    raise ValueError(f"values.{key}: expected a whole number or a range LOW-HIGH")


def _meaning(meaning: Any, hierarchy: LabelHierarchy, where: str) -> int:
    try:
        if meaning in ("unknown", "unlabelled"):
            return hierarchy.unknown
        if isinstance(meaning, str):
            return hierarchy.set_named(meaning)
        if isinstance(meaning, list) and meaning:
            return hierarchy.set_of(str(m) for m in meaning)
        if isinstance(meaning, dict) and set(meaning) == {"any_but"}:
            names = meaning["any_but"]
            names = names if isinstance(names, list) else [names]
            left = hierarchy.unknown & ~hierarchy.set_of(str(m) for m in names)
            if left:
                return left
            raise ValueError("any_but leaves no class")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    raise ValueError(
        f"{where}: expected a class, a group, a list of them, {{any_but: [...]}}, unlabelled or "
        f"unknown, found {meaning!r}"
    )
