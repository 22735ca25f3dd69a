"""The proofreading queue: the objects whose correction would change most, place by place.

A place is a join that may be wrong, and what it is expected to correct: how likely the machine is
wrong there, times the pairs of voxels that would be told right, which is what the adapted Rand
error counts. An object is worth what its places are together, those too sure to be asked about
included; the places of the most worthy one come first, so that it can be gone through and
accepted. Each place is asked about with the one of its two objects that is worth more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.labels.segment_names import ANY_OBJECT
from lib.proofread.current import CurrentObjects
from lib.proofread.joins import Joins
from lib.proofread.replay import NONE
from lib.volumes.boxes import Box, Triple

Kind = Literal["split", "merge", "end"]
"""What the machine may have got wrong: one object in two, two in one, or an end."""

UNKNOWN_LIKE, UNKNOWN_UNLIKE = 0.2, 0.05
"""Chance that two touching objects are one, where the network's word is not known: of one class,
and of two."""
APART_WRONG, TOGETHER_WRONG, FLATTER = 0.2, 0.7, 0.4
"""Chance that two objects are one, and that one is two, where the network says so for certain; and
the power of what it says. A join that stands against its odds is the surest of many that do, so
the odds of two objects promise too much and those inside of one too little: of the former with
odds of 0.5 and more every fourth was one object, of the latter with 0.05 to 0.15 every fifth two.
Chosen on eight training blocks (benchmarks/proofreading.md)."""
END = 0.1
"""Chance that a neurite that ends inside the volume goes on, into as much again."""
LEAST_CHANCE = 0.04
"""Joins that are surer are not asked about."""
NEURITES = ("axon", "dendrite", "neuron_part")
"""Classes, or a group, whose objects go on until they leave the volume."""


@dataclass(frozen=True)
class Doubt:
    """A place to look at.

    Args:
        kind: what may be wrong.
        object: the object it is about; other: the second one, 0 none.
        place: voxel.
        score: pairs of voxels that going through the object is expected to put right.
        reason: in words.
    """

    kind: Kind
    object: int
    other: int
    place: Triple
    score: float
    reason: str


def doubts_of(
    objects: CurrentObjects, joins: Joins, classes: NDArray[np.uint8], hierarchy: LabelHierarchy
) -> list[Doubt]:
    """All places of an item where a correction may be due, object by object.

    The most rewarding object comes first, and its most rewarding place.

    What people accepted is not asked about again, and neither is what they joined or cut.

    Args:
        objects: as they stand.
        joins: of the machine's map.
        classes: (N + 1,) fine class + 1 of the current objects, 0 unknown.
        hierarchy: of the classes.
    """
    standing = objects.standing()
    owners = _owners(objects, joins)
    ends = joins.pairs[:, 1] == NONE
    wrong = np.where(
        ends, _end_chances(owners, classes, hierarchy), _chances(joins, owners, classes)
    )
    done = np.isin(owners, list(standing.accepted)).any(1)
    inner = joins.pairs[:, 0] == joins.pairs[:, 1]
    same = owners[:, 0] == owners[:, 1]
    present = (owners[:, 0] != NONE) & ((owners[:, 1] != NONE) | ends)
    open_ = ~done & present & (same == inner)
    open_ &= ~(ends & np.isin(owners[:, 0], list(standing.touched)))
    asked = open_ & (wrong > LEAST_CHANCE)
    pairs = _pairs(_sizes(objects, owners), joins.changes, inner, ends)
    gain = np.where(open_, wrong * pairs, 0.0)
    worth = _worth(owners, gain)
    found: list[tuple[float, float, Doubt]] = []
    for n in np.flatnonzero(asked).tolist():
        one, other = sorted((int(i) for i in owners[n]), key=lambda i: (i == NONE, -worth[i], i))
        place = tuple(int(v) for v in joins.places[n])
        names = [_called(objects, i, classes, hierarchy) for i in (one, other) if i != NONE]
        kind: Kind
        likely, voxels = f"{wrong[n]:.0%}", f"{int(joins.changes[n]):,} voxels"
        if ends[n]:
            reason, kind = f"{names[0]} ends inside the volume ({voxels})", "end"
        elif inner[n]:
            reason = f"{names[0]} may be two objects that meet here ({likely}, {voxels})"
            kind = "merge"
        else:
            reason = f"{names[0]} and {names[1]} may be one object ({likely}, {voxels})"
            kind = "split"
        other = NONE if inner[n] else other
        doubt = Doubt(kind, one, other, (place[0], place[1], place[2]), worth[one], reason)
        found.append((-worth[one], -float(gain[n]), doubt))
    return [doubt for *_, doubt in sorted(found, key=lambda row: (row[0], row[2].object, row[1]))]


def _worth(owners: NDArray[np.int64], gain: NDArray[np.float64]) -> dict[int, float]:
    """Pairs of voxels that going through each object is expected to put right."""
    one, other = owners.T
    ids = np.concatenate([one, other[one != other]])
    names, index = np.unique(ids, return_inverse=True)
    total = np.bincount(index, np.concatenate([gain, gain[one != other]]), len(names))
    return dict(zip(names.tolist(), total.tolist(), strict=True))


def _sizes(objects: CurrentObjects, owners: NDArray[np.int64]) -> NDArray[np.float64]:
    """(J, 2) voxels of each side's object: the machine's parts of it, and what was drawn for it.

    What was drawn over an object still counts for it: an order needs no better.
    """
    standing = objects.standing()
    total: dict[int, int] = {}
    if objects.machine is not None:
        known, voxels = objects.machine.sizes
        here = objects.ids_here(objects.machine.highest)[known].tolist()
        for one, count in zip(here, voxels.tolist(), strict=True):
            owner = standing.machine.get(one, one)
            total[owner] = total.get(owner, 0) + count
    for drawn in standing.drawn:
        count = int(np.count_nonzero(objects.mask_of(drawn)))
        total[drawn.object] = total.get(drawn.object, 0) + count
    names, index = np.unique(owners, return_inverse=True)
    sizes = np.array([total.get(i, 0) for i in names.tolist()], np.float64)
    found: NDArray[np.float64] = sizes[index].reshape(owners.shape)
    return found


def _pairs(
    sizes: NDArray[np.float64],
    changes: NDArray[np.int64],
    inner: NDArray[np.bool_],
    ends: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """(J,) pairs of voxels that a correction puts right: each of one part with each of the other.

    Args:
        sizes: (J, 2) voxels of the objects.
        changes: (J,) voxels of the smaller part, of a cut inside an object.
        inner, ends: (J,) joins inside an object; ends, whose other part is not known.
    """
    smaller = np.minimum(changes, sizes[:, 0] / 2.0)
    return np.select(
        [ends, inner], [sizes[:, 0] ** 2, smaller * (sizes[:, 0] - smaller)], sizes.prod(1)
    )


def region_around(place: Triple, shape: Triple, region: Triple) -> Box:
    """A box of at most `region` voxels around a place, inside the item."""
    x, y, z = (
        (start := min(max(p - r // 2, 0), max(n - r, 0)), min(start + r, n))
        for p, n, r in zip(place, shape, region, strict=True)
    )
    return x, y, z


def _owners(objects: CurrentObjects, joins: Joins) -> NDArray[np.int64]:
    """(J, 2) the current object of each side: what was drawn lies over what the machine found."""
    standing = objects.standing()
    here = objects.ids_here(int(joins.pairs.max(initial=0))).astype(np.int64)
    table = np.array([standing.machine.get(int(i), int(i)) for i in here], np.int64)
    owners = table[joins.pairs]
    for drawn in standing.drawn:
        low, high = np.array(drawn.box).T
        near = ((joins.sides >= low) & (joins.sides < high)).all(2)
        at = joins.sides[near] - low
        taken = objects.mask_of(drawn)[tuple(at.T)]
        owners[near] = np.where(taken, drawn.object, owners[near])
    owners[joins.pairs == NONE] = NONE
    return owners


def _chances(
    joins: Joins, owners: NDArray[np.int64], classes: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """(J,) how likely the machine is wrong about each."""
    of_class = classes[np.minimum(owners, len(classes) - 1)]
    like = (of_class[:, 0] == of_class[:, 1]) & (of_class[:, 0] > 0)
    together = 1.0 / (1.0 + np.exp(-joins.logits.astype(np.float64)))
    inner = joins.pairs[:, 0] == joins.pairs[:, 1]
    unknown = np.where(like, UNKNOWN_LIKE, UNKNOWN_UNLIKE)
    # A join model has seen how alike the classes are.
    apart = np.where(np.isnan(joins.logits), unknown, APART_WRONG * together**FLATTER)
    return np.where(
        inner, TOGETHER_WRONG * (1.0 - np.nan_to_num(together, nan=1.0)) ** FLATTER, apart
    )


def _end_chances(
    owners: NDArray[np.int64], classes: NDArray[np.uint8], hierarchy: LabelHierarchy
) -> NDArray[np.float64]:
    """(J,) how likely an object that ends inside the volume should go on."""
    neurite = np.zeros(len(hierarchy.classes) + 1, np.bool_)
    for name in NEURITES:
        if name in hierarchy.class_names or name in hierarchy.group_names:
            neurite[[c + 1 for c in hierarchy.members(hierarchy.set_named(name))]] = True
    of_class = classes[np.minimum(owners[:, 0], len(classes) - 1)]
    return np.where(neurite[of_class], END, 0.0)


def _called(
    objects: CurrentObjects, object_id: int, classes: NDArray[np.uint8], hierarchy: LabelHierarchy
) -> str:
    if name := objects.standing().names.get(object_id):
        return name
    fine = int(classes[object_id]) if object_id < len(classes) else 0
    return f"{hierarchy.class_names[fine - 1] if fine else ANY_OBJECT} {object_id}"
