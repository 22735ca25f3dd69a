"""`segmentation`: the class of every voxel."""

from __future__ import annotations

from typing import Any, cast

from monailabel.interfaces.tasks.infer_v2 import InferType

from lib.infers.base import Answer, NeuropilTask, Parts, log_progress
from lib.infers.region import in_region, triple
from lib.infers.writer import result_dtype, result_extension, write_label
from lib.prediction.classes import Level
from lib.proofread.object_level import ObjectLevel
from lib.server.regions import region
from lib.server.weights import Loaded
from lib.volumes.opened import RequestImage

LEVELS = ("object", "fine", "coarse", "fallback")


class Segmentation(NeuropilTask):
    """Automatic classes: one for each object, or voxel by voxel at one of three levels."""

    reads = frozenset({"roi", "result_region"})

    def __init__(self, parts: Parts) -> None:
        first = parts.settings.inference.level
        levels = [first, *(level for level in LEVELS if level != first)]
        if not parts.labels.hierarchy.num_groups:
            levels = [level for level in levels if level in ("object", "fine")]
        super().__init__(
            parts,
            InferType.SEGMENTATION,
            "Classes of neuropil; level: one for each object, or voxel by voxel: fine, coarse, or "
            "a group where the class is uncertain",
            {"level": levels},
        )
        self.objects = parts.objects

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        extension, level = result_extension(request), self.choice(request, "level")
        dtype = result_dtype(request, len(self.viewer_labels.names))
        limits = region(request.get("roi"), image.shape)
        progress, shelf = log_progress(f"segmentation {level}"), self.shelf(loaded, image)
        predictor, voxels, size = loaded.predictor, image.seen, image.voxel_size_nm
        with self.network.turn("volume", device):
            if level == "object":
                asked = ObjectLevel(self.objects, self.cache, loaded, image, limits, progress)
                final = asked.classes(asked.cells())
            else:
                final = predictor.classes(voxels, size, cast(Level, level), progress, shelf, limits)
        shown = self.viewer_labels.lut[final].astype(dtype, copy=False)
        shown, affine, told = in_region(shown, image, limits, request)
        compress = bool(request.get("result_compress", True))
        segments = self.viewer_labels.named(triple(shown))
        file = write_label(shown, affine, extension, compress=compress, segments=segments)
        return Answer(file, {"level": level, **told})
