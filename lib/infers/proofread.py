"""`proofread`: clicks on an object -> its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from lib.clicks.answer import ClickAnswer
from lib.clicks.viewer import ViewerRequest, click_source, segment_in_viewer
from lib.infers.base import Answer, NeuropilTask, Parts
from lib.infers.clicks import clicked_class, starting_mask, viewer_points
from lib.infers.fragments import FragmentStore
from lib.infers.image import RequestImage
from lib.infers.writer import result_dtype, result_extension, write_label
from lib.server.errors import refuse
from lib.server.regions import region
from lib.server.weights import Loaded
from lib.volumes.boxes import Box, Triple, box_slices, intersect, shift_box


class Proofread(NeuropilTask):
    """One object from clicks; every list of clicks has one answer, whatever came before."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(
            parts,
            InferType.DEEPGROW,
            "The clicked object; clicks in the background take voxels away",
            {},
        )
        self.fragments = FragmentStore()

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        extension = result_extension(request)
        dtype = result_dtype(request, 1)
        predictor = loaded.predictor
        frame = predictor.frame(image.shape, image.voxel_size_nm)
        limits = region(request.get("roi"), image.shape)
        plane = section_of(request, image)
        positive = viewer_points(request.get("foreground"), "foreground")
        negative = viewer_points(request.get("background"), "background")
        if plane is not None:  # a two-dimensional request is about one section
            positive, negative = ([p for p in ps if p[2] == plane] for ps in (positive, negative))
        asked = ViewerRequest(
            positive,
            negative,
            clicked_class(request.get("label"), predictor.hierarchy, self.settings.labels),
            starting_mask(request, image.shape),
            None if plane is None else (2, plane),
        )
        wanted = predictor.inference.click_fragments
        fragments, missed = self.fragments.open(image) if wanted else (None, [])
        source = click_source(
            predictor.net,
            loaded.version,
            image.voxels,
            image.key,
            frame,
            self.cache,
            predictor.inference,
            fragments,
        )
        with self.network.turn("click", device):
            found = segment_in_viewer(source, frame, asked)
        mask = placed(found, image.shape, limits, dtype)
        compress = bool(request.get("result_compress", True))
        file = write_label(mask, image.affine, extension, compress=compress)
        params = {
            "label_names": {str(request.get("label") or "object"): 1},
            "warnings": [*missed, *found.warnings],
            "windows": found.windows,
            "fragments": found.fragments,
        }
        return Answer(file, params)


def section_of(request: dict[str, Any], image: RequestImage) -> int | None:
    """The viewer's section that a two-dimensional request is about.

    Raises:
        HTTPException: 400 for a section that the image does not have.
    """
    value = request.get("slice")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < image.shape[2]:
        raise refuse(f"slice: expected 0 to {image.shape[2] - 1}, found {value!r}")
    return value


def placed(
    found: ClickAnswer,
    shape: Triple,
    limits: Box | None,
    dtype: type[np.unsignedinteger[Any]],
) -> NDArray[Any]:
    """(X, Y, Z) 0/1 on the image's own grid, nothing outside the region asked for."""
    # Fortran order is the file's: writing copies nothing.
    whole = np.zeros(shape, dtype, order="F")
    box = found.box if limits is None else intersect(found.box, limits)
    if box is not None:
        low = [-a for a, _ in found.box]
        inner = shift_box(box, (low[0], low[1], low[2]))
        whole[box_slices(box)] = found.mask[box_slices(inner)]
    return whole
