"""`current`: the objects as they stand, and steps back and forth in what was done to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lib.infers.base import Answer, Parts
from lib.infers.objects_task import ObjectsTask
from lib.proofread.editing import told_of
from lib.proofread.naming import current_classes
from lib.proofread.submitted import done_in
from lib.server.errors import refuse
from lib.server.weights import Loaded
from lib.volumes.boxes import whole_box
from lib.volumes.opened import RequestImage, item_id

STEPS = ("show", "undo", "redo")


class Current(ObjectsTask):
    """The machine's objects with everybody's edits; `do`: undo or redo the last one first.

    `only`: all objects, or those that were accepted.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(
            parts,
            "The objects as people have corrected them; do: undo or redo the last edit",
            {"do": list(STEPS), "only": ["all", "accepted"]},
        )
        self.objects = parts.objects

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        if not self.objects.holds(image.path):
            raise refuse("current: the image lies in no study")
        name, step = item_id(image.path), self.choice(request, "do")
        only = self.choice(request, "only")
        objects, warnings = self.objects.open(name, image.shape)
        told: dict[str, Any] = {"warnings": warnings}
        if step != "show":
            client = str(request.get("client_id") or "")
            edit = objects.undo(client) if step == "undo" else objects.redo(client)
            told[step] = edit.described() if edit else "nothing"
            if edit is not None:
                told["edit"] = told_of(edit, objects)
            self.objects.drafts.forget(client, name)
        ids = objects.read(whole_box(image.shape))
        if only == "accepted":
            ids[~np.isin(ids, list(objects.standing().accepted))] = 0
        machine = self.objects.classes(name, objects)
        classes = current_classes(
            objects, machine, self.viewer_labels.hierarchy, self.settings.labels.segment_names
        )
        told |= {"done": done_in(objects, None), "edits": len(objects.standing().active)}
        answer = self.reply(request, image, ids, classes, objects.standing().names)
        return Answer(answer.file, {**told, **answer.params})
