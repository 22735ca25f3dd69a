"""Clicks on the current objects: what people made is answered as it is, and not run over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.clicks.answer import ClickAnswer
from lib.clicks.masks import parts_holding
from lib.clicks.source import Kind
from lib.clicks.viewer import ViewerRequest
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.replay import NONE
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, hull, minus, shift_box

Over = Literal["free", "all"]
"""Whether an answer may take voxels of accepted objects."""
MOST_NAMED = 5
"""Accepted objects that a sentence names."""
Find = Callable[[ViewerRequest], ClickAnswer]
"""The network's answer to clicks, on the viewer's grid."""


def of_kind(
    objects: CurrentObjects,
    positive: Sequence[Sequence[int]],
    kind: Kind,
    organelles: Collection[int],
) -> CurrentObjects:
    """The objects that points can mean: cells as if nothing lay in them, where cells are meant.

    Args:
        objects: of the item.
        positive: points on what is meant, viewer voxels.
        kind: of object that is meant.
        organelles: the objects that are some.
    """
    cells = objects.without(organelles) if kind == "cell" else objects
    return objects if NONE in cells.at(positive) else cells


def answer_clicks(
    objects: CurrentObjects | None,
    request: ViewerRequest,
    find: Find,
    over: Over = "free",
    organelles: Collection[int] = (),
) -> ClickAnswer:
    """The object that clicks mean, given what stands.

    Where positive points lie in objects that people made, and no negative point does, these are
    the answer, voxel for voxel. Any other answer goes round the accepted objects, but for those
    that hold a positive point. An organelle is not looked for where a person made one, and is no
    cell that a person made.

    Args:
        objects: that the points can mean (`of_kind`); None: there are none.
        request: of the viewer.
        find: answers what the objects do not.
        over: "all" takes voxels of accepted objects as well.
        organelles: the objects that are some.
    """
    if objects is None:
        return find(request)
    mine = set(objects.at(request.positive)) if len(request.positive) else set()
    made = mine <= objects.standing().touched and bool(mine)
    if request.kind == "organelle":
        made = made and mine.issubset(organelles)
    denied = bool(mine & set(objects.at(request.negative))) if len(request.negative) else False
    if made and not denied and request.start is None:
        return _as_made(objects, mine, request.section)
    found = find(request)
    return found if over == "all" else _round_locked(objects, found, mine, request.positive)


def _as_made(
    objects: CurrentObjects, wanted: set[int], section: tuple[int, int] | None
) -> ClickAnswer:
    parts = [p for p in (objects.voxels(i) for i in sorted(wanted)) if p is not None]
    box = hull([p.box for p in parts])
    mask = np.zeros(box_shape(box), np.bool_)
    for part in parts:
        mask[box_slices(shift_box(part.box, minus(box_origin(box))))] |= part.mask
    if section is not None:
        axis, at = section
        seen = np.arange(*box[axis]) == at
        mask &= seen.reshape([-1 if a == axis else 1 for a in range(3)])
    return ClickAnswer(mask, box, (), 0, True)


def left_to_accepted(
    objects: CurrentObjects, placed: Placed, taker: Collection[int], over: Over
) -> tuple[Placed, str]:
    """Voxels that an object is to have, without those of accepted objects.

    Args:
        objects: of the item.
        placed: the voxels.
        taker: the object itself, and what it may take voxels of.
        over: "all" takes those of all.

    Returns:
        What is left of the voxels, and what to tell; "" where no accepted object has any.
    """
    locked = objects.locked(placed.box, sorted(taker)) & placed.mask
    if not locked.any():
        return placed, ""
    standing = objects.standing()
    found = np.unique(objects.read(placed.box)[locked]).tolist()
    owners = ", ".join(standing.names.get(i) or f"object {i}" for i in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    told = f"{int(locked.sum())} voxels of accepted objects ({owners}{more}) were"
    if over == "all":
        return placed, f"{told} taken from them"
    told += " left to them; over=all takes them as well"
    return Placed(placed.mask & ~locked, placed.box), told


def with_inner(
    objects: CurrentObjects, placed: Placed, object_id: int, organelles: Collection[int]
) -> tuple[Placed, frozenset[int]]:
    """A cell's voxels with those that it has beneath organelles, and which these are."""
    if not organelles:
        return placed, frozenset()
    seen = objects.read(placed.box)
    inner = np.isin(seen, list(organelles))
    beneath = objects.without(organelles).read(placed.box) == object_id
    mask = placed.mask | (inner & beneath)
    return Placed(mask, placed.box), frozenset(np.unique(seen[inner & mask]).tolist())


def all_of(objects: CurrentObjects, placed: Placed, inner: Collection[int]) -> bool:
    """Whether nothing of some voxels would be seen above the organelles in them."""
    return bool(np.isin(objects.read(placed.box)[placed.mask], list(inner)).all())


def _round_locked(
    objects: CurrentObjects,
    found: ClickAnswer,
    mine: set[int],
    positive: Sequence[Sequence[int]],
) -> ClickAnswer:
    """An answer without the accepted objects in which no positive point lies."""
    left, told = left_to_accepted(objects, Placed(found.mask, found.box), mine, "free")
    if not told:
        return found
    mask = left.mask
    points = np.asarray(positive, np.int64).reshape(-1, 3) - np.array(box_origin(found.box))
    inside = ((points >= 0) & (points < mask.shape)).all(1)
    if (kept := parts_holding(mask, points[inside])).any():
        mask = kept  # what lay beyond an accepted object goes with it
    return replace(found, mask=mask, warnings=(*found.warnings, told))


@dataclass(frozen=True)
class ManyAnswer:
    """Several objects of one request, each voxel to one at most.

    Args:
        labels: (x, y, z) on `box`: 0 none, n the n-th object of the request.
        box: viewer voxels.
        warnings: for the annotator.
    """

    labels: NDArray[np.uint16]
    box: Box
    warnings: tuple[str, ...]


def answer_many(
    named: Mapping[str, ViewerRequest],
    find: Callable[[str, ViewerRequest], ClickAnswer],
    voxel_size_nm: Sequence[float],
) -> ManyAnswer:
    """Points of several objects at once: the points of one deny the others.

    Args:
        named: name -> its points; negative ones hold for it alone.
        find: answers one of them, by its name.
        voxel_size_nm: of the viewer's grid: a voxel that two answers hold goes to the object
            whose nearest point is nearer.
    """
    answers: list[tuple[ClickAnswer, NDArray[np.int64]]] = []
    warnings: list[str] = []
    for name, request in named.items():
        others = [p for n, r in named.items() if n != name for p in r.positive]
        found = find(name, replace(request, negative=[*request.negative, *others]))
        answers.append((found, np.asarray(request.positive, np.int64).reshape(-1, 3)))
        warnings += [f"{name}: {text}" for text in found.warnings]
    box = hull([found.box for found, _ in answers])
    labels = np.zeros(box_shape(box), np.uint16)
    for n, (found, points) in enumerate(answers, 1):
        part = labels[box_slices(shift_box(found.box, minus(box_origin(box))))]
        part[found.mask & (part == 0)] = n
        for before in np.unique(part[found.mask & (part != n)]).tolist():
            disputed = np.argwhere(found.mask & (part == before)) + np.array(box_origin(found.box))
            theirs = answers[before - 1][1]
            nearer = _distance(disputed, points, voxel_size_nm) < _distance(
                disputed, theirs, voxel_size_nm
            )
            at = disputed[nearer] - np.array(box_origin(found.box))
            part[tuple(at.T)] = n
    return ManyAnswer(labels, box, tuple(warnings))


def _distance(
    voxels: NDArray[np.int64], points: NDArray[np.int64], voxel_size_nm: Sequence[float]
) -> NDArray[np.float64]:
    """Of each voxel (N, 3) to its nearest point (P, 3), nm."""
    nearest = np.full(len(voxels), np.inf)
    for point in points:
        nearest = np.minimum(nearest, (((voxels - point) * voxel_size_nm) ** 2).sum(1))
    distance: NDArray[np.float64] = np.sqrt(nearest)
    return distance


def shown(objects: CurrentObjects, object_id: int) -> Placed:
    """An object's voxels; one voxel that is not set, where it has none."""
    placed = objects.voxels(object_id) if object_id != NONE else None
    return placed or Placed(np.zeros((1, 1, 1), np.bool_), ((0, 1), (0, 1), (0, 1)))
