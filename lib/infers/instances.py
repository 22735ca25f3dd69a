"""`instances`: every object of the volume, for the datastore and for what a viewer can hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lib.infers.base import Answer, Parts, log_progress
from lib.infers.objects_task import ObjectsTask
from lib.infers.region import in_region
from lib.infers.writer import write_label
from lib.prediction.fragment_store import fragments_file, load_fragments, save_fragments
from lib.prediction.instances import Fragments, Objects
from lib.proofread.joins import Joins, ends_of_map, joins_of_fragments
from lib.proofread.naming import current_classes
from lib.proofread.store import MACHINE_TAG
from lib.server.regions import region
from lib.server.weights import Loaded
from lib.volumes.boxes import Box, whole_box
from lib.volumes.opened import RequestImage, item_id


class Instances(ObjectsTask):
    """All objects, found anew; what people did to those found before is done to these.

    `split_merge`: -1 splits more, 1 merges more; another value needs no network.
    """

    def __init__(self, parts: Parts) -> None:
        what = "Every object; the whole map goes to the datastore, tag " + MACHINE_TAG
        super().__init__(parts, what, {"split_merge": 0.0})
        self.objects = parts.objects

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        limits = region(request.get("roi"), image.shape)
        objects = self._found(request, loaded, image, device, limits)
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
            joins = _joins(objects, loaded, image)
            current, lost = self.objects.renew(name, image.shape, ids, classes, Path(file), joins)
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

    def _found(
        self,
        request: dict[str, Any],
        loaded: Loaded,
        image: RequestImage,
        device: str,
        limits: Box | None,
    ) -> Objects:
        """The objects of a part, or of everything: from the fragments kept with the item."""
        split_merge = self.number(request, "split_merge", -1.0, 1.0)
        predictor, size = loaded.predictor, image.voxel_size_nm
        progress, shelf = log_progress("instances"), self.shelf(loaded, image)
        kept = limits is None and self.objects.holds(image.path)
        if not kept or hasattr(image.voxels, "around"):  # a region is seen with what lies around
            with self.network.turn("volume", device):
                return predictor.objects(
                    image.voxels, size, progress, shelf, split_merge, box=limits
                )
        path = fragments_file(image.path.parent, item_id(image.path))
        made_of = f"{loaded.version} {image.key} {loaded.fragments}".rstrip()
        found: Fragments | None = load_fragments(path, made_of)
        if found is None:
            with self.network.turn("volume", device):
                found = predictor.fragments(image.voxels, size, progress, shelf)
            save_fragments(path, found, made_of)
        return predictor.joined(found, image.shape, size, split_merge)


def _joins(objects: Objects, loaded: Loaded, image: RequestImage) -> Joins | None:
    """What the fragment graph knows of the objects' contacts, for the proofreading queue."""
    made, predictor = objects.fragments, loaded.predictor
    if made is None:
        return None
    graph = made.graph
    found = joins_of_fragments(
        made.ids, objects.of_fragments, graph.edges, predictor.joining.logits(graph), graph.sizes
    )
    frame = predictor.frame(image.shape, image.voxel_size_nm)
    places = frame.to_viewer(found.places).astype(np.int32)
    sides = frame.to_viewer(found.sides.reshape(-1, 3)).astype(np.int32).reshape(-1, 2, 3)
    return replace(found, places=places, sides=sides).and_also(
        ends_of_map(objects.ids, image.voxel_size_nm)
    )
