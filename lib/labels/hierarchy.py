"""The label hierarchy: fine classes, coarse groups and the sets of classes they stand for.

A *class set* is the set of fine classes a voxel may be, held as a bit mask (bit c set: class
c is possible). One bit: fully known. All bits: unknown. The bits of a group: known by its
group only. Every rule about partial labels follows from class sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

IGNORE_INDEX = -1
"""Unknown, in fine labels and in instance ids alike."""

MAX_CLASSES = 30
"""Class sets are carried as int32 bit masks; bit 31 is the sign."""

DEFAULT_HIERARCHY_FILE = Path(__file__).parents[1] / "configs" / "hierarchy.yaml"


@dataclass(frozen=True)
class FineClass:
    """One channel of the semantic head.

    Args:
        name: the name users see, and by which submissions are mapped.
        object: whether its voxels belong to countable objects.
        color: RGB, 0..255, for viewers and pictures.
        inside: whether it lies inside objects of other classes, as organelles do: where an
            annotator's segments overlap, it wins over the class around it.
    """

    name: str
    object: bool
    color: tuple[int, int, int]
    inside: bool = False


@dataclass(frozen=True)
class LabelHierarchy:
    """Fine classes in channel order, and coarse groups of them in channel order.

    Args:
        classes: the fine classes; their position is their index.
        groups: (name, indices of the fine classes it holds) in channel order.

    Raises:
        ValueError: on duplicate or unknown names, empty groups or too many classes.

    Source: spec/hierarchical-supervision.md, "Label set" and "Coarse hierarchy".
    """

    classes: tuple[FineClass, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        _validate(self)

    @property
    def num_classes(self) -> int:
        """How many fine classes there are."""
        return len(self.classes)

    @property
    def num_groups(self) -> int:
        """How many coarse groups there are."""
        return len(self.groups)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the fine classes, in their order."""
        return tuple(c.name for c in self.classes)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the coarse groups, in their order."""
        return tuple(name for name, _ in self.groups)

    @property
    def unknown(self) -> int:
        """The class set of a voxel that may be anything."""
        return (1 << self.num_classes) - 1

    @property
    def object_set(self) -> int:
        """The class set "any class that can be an object"."""
        return self.set_of(i for i, c in enumerate(self.classes) if c.object)

    @property
    def inside_set(self) -> int:
        """The class set of what lies inside objects of other classes; may be empty (0)."""
        return self.set_of(i for i, c in enumerate(self.classes) if c.inside)

    @cached_property
    def coarse_lut(self) -> NDArray[np.float32]:
        """(num_classes, num_groups) of {0, 1}: the groups each fine class is in."""
        lut = np.zeros((self.num_classes, self.num_groups), np.float32)
        for k, (_, members) in enumerate(self.groups):
            lut[list(members), k] = 1.0
        return lut

    @cached_property
    def group_sets(self) -> tuple[int, ...]:
        """The class set of each group, in channel order."""
        return tuple(self.set_of(members) for _, members in self.groups)

    def set_of(self, members: Iterable[int | str]) -> int:
        """The class set that holds the given classes or groups, by index (classes) or name.

        Raises:
            ValueError: a name that is neither a class nor a group.
        """
        bits = 0
        for member in members:
            bits |= 1 << member if isinstance(member, int) else self.set_named(member)
        return bits

    def set_named(self, name: str) -> int:
        """The class set of one class or group name; a class wins over a group of its name.

        Raises:
            ValueError: `name` is neither; the message lists the known names.
        """
        key = normalize_name(name)
        for i, fine in enumerate(self.classes):
            if normalize_name(fine.name) == key:
                return 1 << i
        for k, group in enumerate(self.group_names):
            if normalize_name(group) == key:
                return self.group_sets[k]
        raise ValueError(
            f"{name!r} is neither a class nor a group; classes: {', '.join(self.class_names)}; "
            f"groups: {', '.join(self.group_names) or 'none'}"
        )

    def members(self, class_set: int) -> tuple[int, ...]:
        """The fine class indices in a class set, ascending."""
        return tuple(i for i in range(self.num_classes) if class_set >> i & 1)

    def describe(self, class_set: int) -> str:
        """A short text for a class set: a class, a group, "unknown" or a list of classes.

        Sets of more than half the classes are told by what they leave out.
        """
        if class_set == self.unknown:
            return "unknown"
        inside = self.members(class_set)
        if len(inside) == 1:
            return self.classes[inside[0]].name
        for name, bits in zip(self.group_names, self.group_sets, strict=True):
            if bits == class_set:
                return name
        if 2 * len(inside) > self.num_classes:
            outside = self.members(self.unknown & ~class_set)
            return "any but " + ", ".join(self.classes[i].name for i in outside)
        return " or ".join(self.classes[i].name for i in inside)

    def to_dict(self) -> dict[str, Any]:
        """The YAML form, for checkpoints and records: what weights depend on.

        `inside` is about reading submissions, so weights fit with and without it.
        """
        return {
            "classes": [
                {"name": c.name, "object": c.object, "color": list(c.color)} for c in self.classes
            ],
            "groups": {n: [self.classes[i].name for i in m] for n, m in self.groups},
        }


def normalize_name(name: str) -> str:
    """Case, underscores and repeated spaces do not distinguish names."""
    return " ".join(name.replace("_", " ").lower().split())


def hierarchy_from_dict(data: Mapping[str, Any]) -> LabelHierarchy:
    """Build a hierarchy from its YAML form.

    Args:
        data: `classes`, a list of {name, object, color} or bare names; `groups`, a mapping
            of group name to class names (may be empty).

    Raises:
        ValueError: unknown keys, or what LabelHierarchy refuses.
    """
    if unknown := set(data) - {"classes", "groups"}:
        raise ValueError(f"unknown keys {sorted(map(str, unknown))}; known: classes, groups")
    entries, named = data.get("classes"), data.get("groups") or {}
    if not isinstance(entries, list) or not entries:
        raise ValueError("classes: a list of at least one fine class is needed")
    if not isinstance(named, Mapping):
        raise ValueError(f"groups: expected group names with lists of classes, got {named!r}")
    classes = tuple(_fine_class(i, entry) for i, entry in enumerate(entries))
    index = {c.name: i for i, c in enumerate(classes)}
    groups = []
    for name, members in named.items():
        if not isinstance(members, list):
            raise ValueError(f"groups.{name}: expected a list of classes, got {members!r}")
        for member in members:
            if not isinstance(member, str) or member not in index:
                raise ValueError(
                    f"groups.{name}: {member!r} is no class; classes: {', '.join(index)}"
                )
        groups.append((str(name), tuple(index[m] for m in members)))
    return LabelHierarchy(classes, tuple(groups))


def load_hierarchy(path: Path | str = DEFAULT_HIERARCHY_FILE) -> LabelHierarchy:
    """Read a hierarchy YAML file (see lib/configs/hierarchy.yaml for the format).

    Raises:
        ValueError: the file's name and what is wrong in it.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("expected a mapping with `classes` and `groups`")
        return hierarchy_from_dict(data)
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ValueError(f"label hierarchy {path}: {error}") from error


def flat_hierarchy(num_classes: int) -> LabelHierarchy:
    """Classes without groups; `num_classes` 2 is the background/foreground of `hierarchy: none`."""
    names = ["background", "foreground"] if num_classes == 2 else None
    return LabelHierarchy(
        tuple(
            FineClass(names[i] if names else f"class {i}", i > 0, _default_color(i))
            for i in range(num_classes)
        )
    )


def _fine_class(position: int, entry: Mapping[str, Any] | str) -> FineClass:
    if isinstance(entry, str):
        return FineClass(entry, True, _default_color(position))
    if not isinstance(entry, Mapping):
        raise ValueError(f"classes[{position}]: expected a name or keys, got {entry!r}")
    if unknown := set(entry) - {"name", "object", "color", "inside"}:
        raise ValueError(f"classes[{position}]: unknown keys {sorted(map(str, unknown))}")
    if "name" not in entry:
        raise ValueError(f"classes[{position}]: a name is needed")
    color = entry.get("color", list(_default_color(position)))
    if not _is_color(color):
        raise ValueError(f"classes[{position}].color: expected three values 0..255, got {color!r}")
    for key in ("object", "inside"):
        if not isinstance(entry.get(key, False), bool):
            raise ValueError(f"classes[{position}].{key}: expected true or false")
    r, g, b = color
    name, inside = str(entry["name"]), entry.get("inside", False)
    return FineClass(name, entry.get("object", True), (r, g, b), inside)


def _is_color(value: Any) -> bool:
    """Whether it is a list of three whole numbers 0..255."""
    return (
        isinstance(value, list)
        and [type(v) for v in value] == [int] * 3
        and (min(value) >= 0 and max(value) <= 255)
    )


def _default_color(position: int) -> tuple[int, int, int]:
    """Distinct hues by the golden ratio."""
    import colorsys

    r, g, b = colorsys.hsv_to_rgb(position * 0.618034 % 1.0, 0.65, 0.95)
    return int(r * 255), int(g * 255), int(b * 255)


def _validate(hierarchy: LabelHierarchy) -> None:
    if not 1 <= hierarchy.num_classes <= MAX_CLASSES:
        raise ValueError(f"1 to {MAX_CLASSES} fine classes, got {hierarchy.num_classes}")
    for kind, names in (("class", hierarchy.class_names), ("group", hierarchy.group_names)):
        keys = [normalize_name(n) for n in names]
        if repeated := sorted({n for n, k in zip(names, keys, strict=True) if keys.count(k) > 1}):
            raise ValueError(f"{kind} names must be unique, repeated: {', '.join(repeated)}")
    classes = {normalize_name(n): i for i, n in enumerate(hierarchy.class_names)}
    for name, members in hierarchy.groups:
        if not members:
            raise ValueError(f"group {name!r} holds no class")
        if len(set(members)) != len(members):
            raise ValueError(f"group {name!r} lists a class twice")
        same = classes.get(normalize_name(name))
        if same is not None and members != (same,):
            raise ValueError(f"group {name!r} has a class's name but holds other classes")
