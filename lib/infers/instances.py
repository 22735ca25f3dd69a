"""`instances`: every object of the volume, for the datastore and for what a viewer can hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.infers.base import Answer, Parts, log_progress
from lib.infers.objects_task import ObjectsTask
from lib.infers.region import in_region
from lib.infers.writer import write_label
from lib.prediction.classes import FINE_VALUE
from lib.prediction.fragment_store import fragments_file, load_fragments, save_fragments
from lib.prediction.objects import Fragments, Objects
from lib.prediction.organelles import find_organelles
from lib.proofread.joins import Joins, ends_of_map, joins_of_fragments
from lib.proofread.naming import current_classes
from lib.proofread.store import MACHINE_TAG
from lib.server.regions import region
from lib.server.weights import Loaded
from lib.volumes.boxes import Box, whole_box
from lib.volumes.opened import RequestImage, item_id

LEVELS = ("cells", "organelles", "both")


class Instances(ObjectsTask):
    """All objects, found anew; what people did to those found before is done to these.

    `split_merge`: -1 splits more, 1 merges more; another value needs no network. `level`: cells,
    the organelles in them, or both in one map, with a table of which lies in which.
    """

    reads = frozenset({"roi", "result_region"})

    def __init__(self, parts: Parts) -> None:
        what = "Every object; the whole map goes to the datastore, tag " + MACHINE_TAG
        super().__init__(parts, what, {"split_merge": 0.0, "level": list(LEVELS)})
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
            ids, classes, more = self._leveled(request, loaded, image, device, ids, classes)
            told |= more
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
        ids, classes, more = self._leveled(request, loaded, image, device, ids, classes)
        told |= more
        answer = self.reply(request, image, ids, classes, names)
        return Answer(answer.file, {**told, **answer.params}, {MACHINE_TAG: file})

    def _leveled(
        self,
        request: dict[str, Any],
        loaded: Loaded,
        image: RequestImage,
        device: str,
        ids: NDArray[np.uint32],
        classes: NDArray[np.uint8],
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8], dict[str, Any]]:
        """The level that was asked for.

        Args:
            ids: (X, Y, Z) cells, 0 none, of the image or of the region asked for.
            classes: (N + 1,) fine class + 1 of each.

        Returns:
            ids, their classes, and the table of the organelles.
        """
        level = self.choice(request, "level")
        if level == "cells":
            return ids, classes, {}
        predictor = loaded.predictor
        with self.network.turn("volume", device):
            found = find_organelles(
                predictor.classes(
                    image.seen,
                    image.voxel_size_nm,
                    "fine",
                    shelf=self.shelf(loaded, image),
                    box=region(request.get("roi"), image.shape),
                ),
                ids,
                predictor.hierarchy,
                predictor.inference.min_object_voxels,
            )
        first = max(int(ids.max(initial=0)), len(classes) - 1) if level == "both" else 0
        names = predictor.hierarchy.class_names
        table = [
            {
                "id": first + k,
                "class": names[int(found.classes[k]) - FINE_VALUE],
                "cell": int(found.cells[k]),
                "voxels": int(found.sizes[k]),
            }
            for k in range(1, found.count + 1)
        ]
        if level == "organelles":
            return found.ids, found.classes, {"organelles": table}
        both = np.where(found.ids > 0, found.ids + np.uint32(first), ids)
        padded = np.zeros(first + 1 + found.count, np.uint8)
        padded[: len(classes)] = classes
        padded[first + 1 :] = found.classes[1:]
        return both, padded, {"organelles": table}

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
                return predictor.objects(image.seen, size, progress, shelf, split_merge, box=limits)
        path = fragments_file(image.path.parent, item_id(image.path))
        made_of = f"{loaded.version} {image.key} {loaded.fragments}".rstrip()
        found: Fragments | None = load_fragments(path, made_of)
        if found is None:
            with self.network.turn("volume", device):
                found = predictor.fragments(image.seen, size, progress, shelf)
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
