"""`instances`: every object of the volume, for the datastore and for what a viewer can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from lib.infers.base import Answer, NeuropilTask, Parts, log_progress
from lib.infers.image import RequestImage
from lib.infers.objects_shown import (
    SHOWN_BY_UINT8,
    named_segments,
    object_names,
    spread_values,
)
from lib.infers.writer import NamedSegment, result_dtype, result_extension, write_label
from lib.proofread.store import MACHINE_TAG
from lib.server.weights import Loaded

MOST_SEGMENTS = 100_000


class Instances(NeuropilTask):
    """All objects. Options: `show` as a map or as named segments, `max_segments`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(
            parts,
            InferType.SEGMENTATION,
            "Every object; the whole map goes to the datastore, tag " + MACHINE_TAG,
            {"show": ["map", "segments"], "max_segments": 1000},
        )
        # OHIF drops values that are not declared here, and numbers all segments of a page
        # together in 8 bits: objects take what the classes and groups leave.
        self.shown = SHOWN_BY_UINT8 - len(parts.labels.segments)
        self.labels = {f"object {i}": i for i in range(1, self.shown + 1)}

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        extension = result_extension(request)
        if self.choice(request, "show") == "segments":
            extension = ".seg.nrrd"
        limit = int(self.number(request, "max_segments", 1, MOST_SEGMENTS))
        with self.network.turn("volume", device):
            objects = loaded.predictor.objects(
                image.voxels,
                image.voxel_size_nm,
                log_progress("instances"),
                self.shelf(loaded, image),
            )
        ids, hierarchy = objects.ids, loaded.predictor.hierarchy
        params: dict[str, Any] = {
            "objects": objects.count,
            "largest_share": round(objects.largest_share, 4),
            "stored_as": MACHINE_TAG,
        }
        stored = {MACHINE_TAG: write_label(ids, image.affine, ".nii.gz")}
        names = object_names(objects.classes, hierarchy)
        segments: list[NamedSegment] = []
        shown: NDArray[Any]
        if extension == ".seg.nrrd":
            segments, shown = named_segments(ids, objects.classes, hierarchy, limit)
            names = [segment.name for segment in segments]
            shown = shown.astype(result_dtype({}, len(segments)))
            if len(segments) < objects.count:
                params["limit"] = f"the {len(segments)} largest of {objects.count} objects"
        else:
            shown, note = self._as_map(ids, objects.count, request)
            if note:
                params["limit"] = note
                names = list(self.labels)
        params["label_names"] = {name: i for i, name in enumerate(names, 1)}
        compress = bool(request.get("result_compress", True))
        file = write_label(shown, image.affine, extension, compress=compress, segments=segments)
        return Answer(file, params, stored)

    def _as_map(
        self, ids: NDArray[np.uint32], count: int, request: dict[str, Any]
    ) -> tuple[NDArray[Any], str]:
        """The map in the type that was asked for, and what it cannot show."""
        dtype = result_dtype(request, count)
        highest = self.shown if dtype is np.uint8 else int(np.iinfo(dtype).max)
        if count <= highest:
            return ids.astype(dtype), ""
        name = np.dtype(dtype).name
        if dtype is not np.uint8:
            kept = np.where(ids <= highest, ids, 0).astype(dtype)
            return kept, f"{name} holds {highest} of {count} objects; the others are left out"
        shown, clashes = spread_values(ids, self.shown)
        note = (
            f"{count} objects share {self.shown} values, objects that touch differ: uint8 "
            "holds no more beside the classes. Every object is in the datastore; "
            "option show=segments names them"
        )
        return shown, note + (f"; {clashes} touching pairs share a value" if clashes else "")
