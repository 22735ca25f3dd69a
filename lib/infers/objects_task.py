"""What tasks that answer with many objects share: what a viewer can hold of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from lib.infers.base import Answer, NeuropilTask, Parts
from lib.infers.objects_shown import (
    SHOWN_BY_UINT8,
    named_segments,
    object_names,
    spread_values,
)
from lib.infers.writer import NamedSegment, result_dtype, result_extension, write_label
from lib.volumes.opened import RequestImage

MOST_SEGMENTS = 100_000


class ObjectsTask(NeuropilTask):
    """Answers with objects. Options: `show` as a map or as named segments, `max_segments`.

    Args:
        parts, description: see NeuropilTask.
        options: further ones, before these.
    """

    def __init__(self, parts: Parts, description: str, options: dict[str, Any]) -> None:
        own = {"show": ["map", "segments"], "max_segments": 1000}
        super().__init__(parts, InferType.SEGMENTATION, description, {**options, **own})
        # OHIF drops values that are not declared here, and numbers all segments of a page
        # together in 8 bits: objects take what the classes and groups leave.
        self.shown = SHOWN_BY_UINT8 - len(parts.labels.segments)
        self.labels = {f"object {i}": i for i in range(1, self.shown + 1)}

    def reply(
        self,
        request: dict[str, Any],
        image: RequestImage,
        ids: NDArray[np.uint32],
        classes: NDArray[np.uint8],
        named: Mapping[int, str],
    ) -> Answer:
        """A map or segments, as the request wants them.

        Args:
            ids: (X, Y, Z) objects 1..N, 0 none.
            classes: (N + 1,) fine class + 1 of each, 0 unknown.
            named: id -> name, of those that people named.
        """
        extension, hierarchy = result_extension(request), self.viewer_labels.hierarchy
        if self.choice(request, "show") == "segments":
            extension = ".seg.nrrd"
        limit = int(self.number(request, "max_segments", 1, MOST_SEGMENTS))
        names = object_names(classes, hierarchy, named)
        count = len(names)
        params: dict[str, Any] = {}
        segments: list[NamedSegment] = []
        shown: NDArray[Any]
        if extension == ".seg.nrrd":
            segments, shown = named_segments(ids, classes, hierarchy, limit, named)
            values = {segment.name: i for i, segment in enumerate(segments, 1)}
            shown = shown.astype(result_dtype({}, len(segments)))
            if len(segments) == limit < count:
                params["limit"] = f"the {len(segments)} largest of {count} objects"
        else:
            shown, note = self._as_map(ids, count, request)
            if note:
                params["limit"] = note
                values = {name: i for i, name in enumerate(self.labels, 1)}
            else:  # objects may have been left out, for instance those that are not accepted
                there = np.flatnonzero(np.bincount(ids.reshape(-1))[1:])
                values = {names[i]: i + 1 for i in there.tolist()}
        params["label_names"] = values
        compress = bool(request.get("result_compress", True))
        file = write_label(shown, image.affine, extension, compress=compress, segments=segments)
        return Answer(file, params)

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
