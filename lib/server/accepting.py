"""Objects that a request accepts, or takes back, in the labels: OHIF submits nothing else.

What stands accepted is submitted as one more label that merges; what the labels hold of the
object beyond that is unknown again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from lib.labels.segment_names import ANY_OBJECT, UNLABELLED
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.machine import MachineObjects
from lib.volumes.boxes import box_slices
from lib.volumes.readers.opening import open_file
from lib.volumes.regions import MOST_SHOWN
from lib.volumes.study import StudyItem

CHANGES = ("accept", "redraw", "delete")
"""Edits that say which voxels are an object, or by being undone that nobody says so."""


def label_accepted(app: Any, image_id: str, client: str, told: dict[str, Any]) -> dict[str, Any]:
    """Bring an item's labels in line with the object that an edit was about.

    Args:
        app: the NeuropilApp.
        image_id: of the study.
        client: who made the edit.
        told: of the reply: `edit`, with `op` and `object`.

    Returns:
        What the reply should say: `labelled`, whether the labels were changed, or why not.
    """
    edit = told.get("edit") or {}
    if edit.get("op") not in (*CHANGES, "name"):
        return {}
    item = app.submissions.study.item(image_id)
    if int(np.prod(item.shape, dtype=np.int64)) > MOST_SHOWN:
        why = "the image is too large to be labelled as a whole: accept in an item of a region"
        return {"labelled": False, "warnings": [*told.get("warnings", ()), why]}
    objects, _ = app.objects.open(image_id, item.shape)
    number = int(edit["object"])
    accepted = number in objects.standing().accepted
    if edit["op"] == "name" and not accepted:
        return {}
    values = label_of(item, objects, number, accepted)
    if values is None:
        return {}
    name = objects.standing().names.get(number) or f"{ANY_OBJECT} {number}"
    names = [name, UNLABELLED] if accepted else [UNLABELLED]
    info = {
        "label_info": [{"name": n, "idx": i} for i, n in enumerate(names, 1)],
        "mode": "merge", "client_id": client, "accepted_by_request": True,
    }  # fmt: skip
    affine = np.eye(4) if item.source.affine is None else item.source.affine
    with tempfile.TemporaryDirectory(prefix="neuropil-") as folder:
        file = Path(folder) / f"{image_id}.nii.gz"
        image: Any = nib
        image.save(image.Nifti1Image(values, affine), file)
        app.datastore().save_label(image_id, str(file), "final", info)
    return {"labelled": accepted}


def label_of(
    item: StudyItem, objects: CurrentObjects, number: int, accepted: bool
) -> NDArray[np.uint8] | None:
    """What is to be submitted of one object.

    Returns:
        (X, Y, Z) 1 the object, where it is accepted; the next value what the labels hold of it
        beyond; None: nothing at all.
    """
    withdrawn = 2 if accepted else 1
    values = np.zeros(item.shape, np.uint8, order="F")
    if (before := _labelled(item, number)) is not None:
        values[box_slices(before.box)][before.mask] = withdrawn
    if accepted and (placed := objects.voxels(number)) is not None:
        values[box_slices(placed.box)][placed.mask] = 1
    return values if values.any() else None


def _labelled(item: StudyItem, number: int) -> Placed | None:
    """The voxels that the item's `instance` label gives to an object."""
    if not item.has_label("instance"):
        return None
    source = open_file(item.label_path("instance"), item.study.spacing_unit)
    try:
        labels = MachineObjects(source, "")
        box = labels.extent(number)
        return None if box is None else Placed(labels.read(box) == number, box)
    finally:
        source.close()
