"""`strokes`: what was painted over an object, and over what is around it -> its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType

from lib.annotation.segments import number_segments
from lib.clicks.strokes import stroke_points
from lib.clicks.viewer import ViewerRequest
from lib.infers.base import Answer, Parts
from lib.infers.clicks import starting_mask
from lib.infers.proofread import Proofread, Turn
from lib.labels.hierarchy import normalize_name
from lib.server.errors import refuse
from lib.server.weights import Loaded
from lib.volumes.boxes import Box
from lib.volumes.opened import RequestImage

FOREGROUND, BACKGROUND = "foreground scribbles", "background scribbles"
"""Names of the layers that 3D Slicer's module paints in, normalised."""


class Strokes(Proofread):
    """As `proofread`, from strokes in an uploaded label map instead of points.

    Slicer's module sends all segments, named by `label_info`; those called
    "foreground_scribbles" and "background_scribbles" are the strokes. Options as `proofread`.
    """

    reads = frozenset({"label", "label_info", "selected_label_name", "roi"})

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, InferType.SCRIBBLES)

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        name = request.get("selected_label_name") or request.get("label")
        return super().run({**request, "label": name}, loaded, image, device)

    def _asked(self, request: dict[str, Any], turn: Turn, limits: Box | None) -> ViewerRequest:
        painted = starting_mask(request, turn.image.shape)
        if painted is None:
            raise refuse("label: strokes come as a label map, which was not sent")
        values = _values(request.get("label_info"), [int(v) for v in np.unique(painted) if v])
        positive, negative = (
            np.asarray(painted == values[name]) if name in values else np.zeros(painted.shape, bool)
            for name in (FOREGROUND, BACKGROUND)
        )
        points, denied = stroke_points(positive, negative, turn.image.voxel_size_nm)
        if not points:
            raise refuse(f"label: nothing is painted in a segment {FOREGROUND!r}")
        fine, kind = self._class_of(turn, turn.name), self._kind_of(turn, turn.name)
        return ViewerRequest(points, denied, fine, kind=kind)


def _values(label_info: Any, present: list[int]) -> dict[str, int]:
    """Normalised name of a segment -> its value in the map.

    Raises:
        HTTPException: 400 where a value of the map has no name.
    """
    if label_info is None:  # a client without segments paints 1 and 2
        return {FOREGROUND: 1, BACKGROUND: 2}
    if not isinstance(label_info, list) or not all(isinstance(e, dict) for e in label_info):
        raise refuse("label_info: expected a list of {name, id}")
    entries = [{"name": e.get("name"), "idx": e.get("idx", e.get("id"))} for e in label_info]
    try:
        segments = number_segments(entries, present)
    except ValueError as error:
        raise refuse(str(error)) from error
    return {normalize_name(s.name): s.value for s in segments}
