"""What a viewer's segment means, by its name.

Viewers number segments in the annotator's order, so the name is the only thing that can be
trusted (see lib/annotation/segments.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from lib.labels.hierarchy import LabelHierarchy, normalize_name

Kind = Literal["class", "group", "object", "uncertain", "unlabelled", "ignored"]

UNCERTAIN = "uncertain"
UNLABELLED = "unlabelled"
"""Takes labels back where a submission keeps what lies under unpainted voxels."""
SILENT: frozenset[Kind] = frozenset({"uncertain", "unlabelled", "ignored"})
"""Kinds that say nothing of what is there."""
ANY_OBJECT = "object"
"""How an object of unknown class is named, with its id behind."""
NO_MEANING = frozenset({"background", "foreground scribbles", "background scribbles"})
"""Segments that viewers add for their own use; they say nothing about the tissue."""
WRITTEN_FOR = {
    "axon": ("axons",),
    "dendrite": ("dendrites",),
    "extracellular space": ("ecs", "extracellular"),
    "fat globule": ("lipid", "lipids", "lipid droplet", "lipid droplets"),
    "glia": ("glial", "glial cell", "glial cells", "astrocyte", "oligodendrocyte", "microglia"),
    "mitochondria": ("mito", "mitos"),
    "myelin": ("sheath", "sheaths"),
    "nucleus": ("nuclei",),
    "soma": ("somata", "cell body", "cell bodies"),
    UNCERTAIN: ("unknown", "unsure", "unclear"),
}
"""What people write where a class or "uncertain" has another name. They mean an object of unknown
class, as any other name does; annotators are told which name would say it."""
LIKE = 0.8
"""How alike a name that is none is to one that a slip made it of (difflib's ratio)."""

_NUMBERED = re.compile(r"(?P<base>.*?(?:[^\d\s]|\d(?=[\s#-])))[\s#-]*(?P<number>\d{1,40})")


@dataclass(frozen=True)
class SegmentMeaning:
    """What the voxels of a segment are.

    Args:
        class_set: the fine classes they may be.
        kind: "class", "group", "object" (one countable thing), "uncertain" (the annotator
            does not know), "unlabelled" (as if nobody had said anything), "ignored" (says
            nothing).
        object_number: the number in an object's name; None when it has none or is no object.
    """

    class_set: int
    kind: Kind
    object_number: int | None = None


def parse_segment_name(
    name: str, hierarchy: LabelHierarchy, mapping: Mapping[str, str] | None = None
) -> SegmentMeaning:
    """Read a segment's name.

    "axon" is a class, "organelle" a group, "axon 17" or "axon_17" an object of a class,
    "organelle 3" one of a group, "uncertain" is unknown, "unlabelled" takes back; any other name
    is an object of a class that is not known. Case, underscores and repeated spaces do not matter.

    Args:
        name: as the annotator wrote it.
        mapping: names of the lab -> a class or group name, or "uncertain"; a number after a
            mapped name makes it an object ("neurite 5" with {"neurite": "neuron_part"}).

    Raises:
        ValueError: `mapping` maps to something that is no class, group or "uncertain".
    """
    aliases = {normalize_name(k): v for k, v in (mapping or {}).items()}
    key = normalize_name(name)
    if meaning := _plain(key, hierarchy, aliases):
        return meaning
    numbered = _NUMBERED.fullmatch(key)
    number = int(numbered["number"]) if numbered else None
    if numbered and (base := _plain(numbered["base"], hierarchy, aliases)):
        if base.kind in SILENT:
            return base
        return SegmentMeaning(base.class_set, "object", number)
    return SegmentMeaning(_any_object(hierarchy), "object", number)


def check_mapping(mapping: Mapping[str, str], hierarchy: LabelHierarchy, key: str) -> None:
    """Refuse a mapping that `parse_segment_name` would stumble over at the first submission.

    Args:
        mapping: names of the lab -> a class or group name, or "uncertain".
        key: of the configuration, for the message.

    Raises:
        ValueError: one line for each name that is mapped to nothing known, and what is known.
    """
    known = {normalize_name(n) for n in (*hierarchy.class_names, *hierarchy.group_names, UNCERTAIN)}
    faults = [
        f"{key}: {name!r} is mapped to {target!r}, which is no class or group"
        for name, target in mapping.items()
        if normalize_name(target) not in known
    ]
    if faults:
        groups = f"groups: {', '.join(hierarchy.group_names)}; " if hierarchy.group_names else ""
        classes = f"classes: {', '.join(hierarchy.class_names)}"
        faults.append(f"known {classes}; {groups}or {UNCERTAIN!r}")
        raise ValueError("\n".join(faults))


def probably_meant(name: str, hierarchy: LabelHierarchy) -> str | None:
    """The class, group or "uncertain" that a name like it was meant to say, if there is one.

    Args:
        name: of a segment that says nothing about its class ("mito", "axons", "mitochondira 3").
    """
    key = normalize_name(name)
    numbered = _NUMBERED.fullmatch(key)
    base = normalize_name(numbered["base"]) if numbered else key
    own = [normalize_name(n) for n in (*hierarchy.class_names, *hierarchy.group_names, UNCERTAIN)]
    for target, words in WRITTEN_FOR.items():
        if base in words and target in own:
            return target
    return next(iter(get_close_matches(base, own, 1, LIKE)), None)


def slip_told(
    name: str, hierarchy: LabelHierarchy, mapping: Mapping[str, str] | None = None
) -> str | None:
    """What to tell of a name that is nearly a class; None where there is nothing to tell."""
    meaning = parse_segment_name(name, hierarchy, mapping)
    if meaning.kind != "object" or meaning.class_set != _any_object(hierarchy):
        return None
    meant = probably_meant(name, hierarchy)
    return meant and f"{name!r} is one object of unknown class; was {meant!r} meant?"


def kind_named(
    name: str, hierarchy: LabelHierarchy, mapping: Mapping[str, str] | None = None
) -> Literal["cell", "organelle", ""]:
    """Whether a name speaks of a cell or of what lies inside cells; "" where it does not say."""
    meaning = parse_segment_name(name, hierarchy, mapping) if name.strip() else None
    if meaning is None or meaning.kind in SILENT:
        return ""
    if not meaning.class_set & ~hierarchy.inside_set:
        return "organelle"
    return "" if meaning.class_set & hierarchy.inside_set else "cell"


def object_name(class_set: int, number: int, hierarchy: LabelHierarchy) -> str:
    """The name under which an object is shown, which `parse_segment_name` reads back.

    An object whose class set is neither a class nor a group is called "object N".
    """
    if class_set.bit_count() == 1 or class_set in hierarchy.group_sets:
        return f"{hierarchy.describe(class_set)} {number}"
    return f"{ANY_OBJECT} {number}"


def _plain(
    key: str, hierarchy: LabelHierarchy, aliases: Mapping[str, str]
) -> SegmentMeaning | None:
    """The meaning of a name without a number; None when it has none."""
    key = normalize_name(key)
    if key in aliases:
        target = aliases[key]
        if normalize_name(target) == UNCERTAIN:
            return SegmentMeaning(hierarchy.unknown, "uncertain")
        class_set = hierarchy.set_named(target)
        return SegmentMeaning(class_set, _kind_of(class_set))
    if key == UNCERTAIN:
        return SegmentMeaning(hierarchy.unknown, "uncertain")
    if key == UNLABELLED:
        return SegmentMeaning(hierarchy.unknown, "unlabelled")
    try:
        class_set = hierarchy.set_named(key)
    except ValueError:
        if key in NO_MEANING:
            return SegmentMeaning(hierarchy.unknown, "ignored")
        return None
    return SegmentMeaning(class_set, _kind_of(class_set))


def _kind_of(class_set: int) -> Kind:
    return "class" if class_set.bit_count() == 1 else "group"


def keeps_number(name: str, meaning: SegmentMeaning, hierarchy: LabelHierarchy) -> bool:
    """Whether the number in an object's name is the id under which the app showed it.

    "axon 17" and "object 17" are names that the app gives; the 1 in a viewer's "Segment_1"
    counts segments.
    """
    if meaning.object_number is None:
        return False
    numbered = _NUMBERED.fullmatch(normalize_name(name))
    assert numbered is not None, name
    given = numbered["base"] == ANY_OBJECT
    return given or meaning.class_set != _any_object(hierarchy)


def _any_object(hierarchy: LabelHierarchy) -> int:
    return hierarchy.object_set or hierarchy.unknown
