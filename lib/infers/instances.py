"""`instances`: every object of the volume, for the datastore and for what a viewer can hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.infers.base import Answer, Parts, log_progress
from lib.infers.image import RequestImage, item_id
from lib.infers.objects_task import ObjectsTask
from lib.infers.region import in_region
from lib.infers.writer import write_label
from lib.proofread.naming import current_classes
from lib.proofread.store import MACHINE_TAG
from lib.server.regions import region
from lib.server.weights import Loaded
from lib.volumes.boxes import whole_box


class Instances(ObjectsTask):
    """All objects, found anew; what people did to those found before is done to these."""

    def __init__(self, parts: Parts) -> None:
        what = "Every object; the whole map goes to the datastore, tag " + MACHINE_TAG
        super().__init__(parts, what, {})
        self.objects = parts.objects

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        limits = region(request.get("roi"), image.shape)
        with self.network.turn("volume", device):
            objects = loaded.predictor.objects(
                image.voxels,
                image.voxel_size_nm,
                log_progress("instances"),
                self.shelf(loaded, image),
                box=limits,
            )
        ids, classes = objects.ids, objects.classes
        names: dict[int, str] = {}
        told: dict[str, Any] = {
            "objects": objects.count,
            "largest_share": round(objects.largest_share, 4),
        }
        if limits is not None:  # objects of a part are no start for clicks on the whole
            ids, affine, placed = in_region(ids, image, limits, request)
            answer = self.reply(request, replace(image, affine=affine), ids, classes, names)
            return Answer(answer.file, {**told, **placed, **answer.params})
        file = write_label(ids, image.affine, ".nii.gz")
        told["stored_as"] = MACHINE_TAG
        if self.objects.holds(image.path):
            name = item_id(image.path)
            current, lost = self.objects.renew(name, image.shape, ids, classes, Path(file))
            if current.standing().active:
                ids, names = current.read(whole_box(image.shape)), dict(current.standing().names)
                classes = current_classes(
                    current,
                    classes,
                    self.viewer_labels.hierarchy,
                    self.settings.labels.segment_names,
                )
                told["edits"] = len(current.standing().active)
            if lost:
                told["warnings"] = lost
        answer = self.reply(request, image, ids, classes, names)
        return Answer(answer.file, {**told, **answer.params}, {MACHINE_TAG: file})
