"""Submissions and current objects: what a person sent is accepted, what stands is submitted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from lib.annotation.deriving import Derived
from lib.annotation.submissions import submit
from lib.annotation.versions import SubmissionOptions
from lib.clicks.masks import parts_holding, place_in
from lib.labels.hierarchy import normalize_name
from lib.labels.segment_names import kind_named, object_name
from lib.proofread.answering import Over, all_of, left_to_accepted, with_inner
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.machine import MachineObjects
from lib.proofread.naming import organelles_of
from lib.proofread.replay import NONE
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, hull, intersect
from lib.volumes.readers.opening import open_file
from lib.volumes.study import StudyItem


@dataclass(frozen=True)
class Accepted:
    """What a submission did to the current objects.

    Args:
        names: of the objects that stand accepted as they were submitted.
        notes: what the annotator should know.
    """

    names: list[str]
    notes: list[str]


def accept_submitted(
    objects: CurrentObjects,
    item: StudyItem,
    made: Mapping[int, str],
    by: str = "",
    over: Over = "free",
    within: Box | None = None,
    mapping: Mapping[str, str] | None = None,
) -> Accepted:
    """Accept objects of an item's `instance` label as they are there.

    A submission of a region says nothing of what lies beyond it: an object that goes on there
    keeps its voxels.

    Args:
        objects: of the item.
        item: with the label that a submission has just made.
        made: id -> name of the objects that a person made.
        by: who submitted.
        over: "free" leaves voxels of other accepted objects to them, but for those of cells that
            an organelle lies in.
        within: the region that was submitted; None: all of the item.
        mapping: names of the lab -> class or group names.
    """
    names: list[str] = []
    notes: list[str] = []
    hierarchy, mapping = item.study.hierarchy, mapping or {}
    if not made:
        return Accepted(names, notes)
    source = open_file(item.label_path("instance"), item.study.spacing_unit)
    try:
        submitted = MachineObjects(source, "")
        with objects.together():
            for object_id, name in made.items():
                box = submitted.extent(object_id)
                if box is None:  # painted over by what lies inside it
                    continue
                placed = Placed(submitted.read(box) == object_id, box)
                if within is not None:
                    placed = _going_on(objects, object_id, placed, within)
                if _stands(objects, object_id, placed):
                    names.append(name)
                    continue
                organelles = organelles_of(objects, hierarchy, mapping) - {object_id}
                inner, takes = frozenset[int](), objects.standing().accepted - organelles
                if kind_named(name, hierarchy, mapping) != "organelle":
                    placed, inner = with_inner(objects, placed, object_id, organelles)
                    takes = inner
                placed, told = left_to_accepted(objects, placed, {object_id, *takes}, over)
                notes += [f"{name}: {told}; the labels are as submitted"] if told else []
                if not all_of(objects, placed, inner):
                    objects.accept(placed, object_id, name, by, inner)
                    names.append(name)
    finally:
        source.close()
    return Accepted(names, notes)


def done_in(objects: CurrentObjects, box: Box | None) -> dict[str, int]:
    """How many objects of a region (the item, by default) there are and are accepted."""
    present = objects.ids(box)
    return {
        "objects": len(present),
        "accepted": len(objects.standing().accepted.intersection(present)),
    }


def declare_annotated(
    item: StudyItem,
    objects: CurrentObjects,
    ids: NDArray[np.uint32],
    classes: NDArray[np.uint8],
    box: Box,
    mapping: Mapping[str, str],
    by: str = "",
) -> Derived:
    """Submit a region as its objects stand: these and their classes are known from now on.

    Voxels without an object keep the labels that they have.

    Args:
        item: that is annotated.
        objects: whose names the objects bear.
        ids: (x, y, z) objects of the region, 0 none.
        classes: (N + 1,) fine class + 1 of each object, 0 unknown.
        box: the region, voxels of the item.
        mapping: names of the lab -> class or group names.
        by: who declares it.

    Returns:
        What the item's labels hold now.
    """
    hierarchy, standing = item.study.hierarchy, objects.standing()
    found, values = np.unique(ids, return_inverse=True)
    names: dict[int, str] = {}
    for number in found[found > 0].tolist():
        fine = int(classes[number]) if number < len(classes) else 0
        own = standing.names.get(number, "")
        plain = object_name(1 << fine - 1 if fine else hierarchy.unknown, number, hierarchy)
        names[number] = own if own and own not in names.values() else plain
    whole = np.zeros(item.shape, np.uint16 if len(found) < 2**16 else np.uint32, order="F")
    first = 0 if found[0] == 0 else 1
    whole[box_slices(box)] = values.reshape(ids.shape) + first
    info: list[dict[str, Any]] = [
        {"name": name, "idx": value} for value, name in enumerate(names.values(), 1)
    ]
    options = SubmissionOptions(
        roi=box,
        mode="merge",
        params={"client_id": by, "declared": True},
        names={normalize_name(name): number for number, name in names.items()},
        first_free=objects.new_id(),
    )
    with tempfile.TemporaryDirectory(prefix="neuropil-") as folder:
        path = Path(folder) / "declared.nii.gz"
        affine = np.eye(4) if item.source.affine is None else item.source.affine
        image: Any = nib
        image.save(image.Nifti1Image(whole, affine), path)
        return submit(item.study, item.id, path, info, options, mapping)


def _going_on(objects: CurrentObjects, object_id: int, placed: Placed, within: Box) -> Placed:
    """An object of a region with what stands of it beyond: all of it where that is accepted, else
    as far as the two hang together.

    Args:
        object_id: whose voxels were submitted.
        placed: what was submitted.
        within: the region.
    """
    found, counts = np.unique(objects.read(placed.box)[placed.mask], return_counts=True)
    counts[found == NONE] = 0
    accepted = object_id in objects.standing().accepted
    if not accepted and not counts.any():
        return placed
    stood = objects.voxels(object_id if accepted else int(found[np.argmax(counts)]))
    if stood is None:
        return placed
    whole = hull([placed.box, stood.box])
    mask = np.zeros(box_shape(whole), np.bool_)
    mask[place_in(stood.box, whole)] = stood.mask
    if (common := intersect(within, whole)) is not None:
        mask[place_in(common, whole)] = False
    mask[place_in(placed.box, whole)] |= placed.mask
    if accepted:
        return Placed(mask, whole).cut() or placed
    points = np.argwhere(placed.mask) + np.subtract(box_origin(placed.box), box_origin(whole))
    return Placed(parts_holding(mask, points), whole).cut() or placed


def _stands(objects: CurrentObjects, object_id: int, placed: Placed) -> bool:
    """Whether an object is accepted with just these voxels already."""
    if object_id not in objects.standing().accepted:
        return False
    before = objects.voxels(object_id)
    same_place = before is not None and before.box == placed.box
    return before is not None and same_place and bool((before.mask == placed.mask).all())
