"""`proofread_classes`: clicks that name classes -> the class map, updated everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType
from numpy.typing import NDArray

from lib.clicks.class_map import segment_classes
from lib.clicks.strokes import fewer_points
from lib.clicks.viewer import click_source
from lib.infers.base import Answer, NeuropilTask, Parts, log_progress
from lib.infers.clicks import clicked_class, inside_image, viewer_points
from lib.infers.writer import result_dtype, result_extension, write_label
from lib.prediction.object_classes import name_cells
from lib.proofread.object_level import ObjectLevel
from lib.server.weights import Loaded
from lib.volumes.boxes import Triple, whole_box
from lib.volumes.opened import RequestImage

MOST_CLASS_POINTS = 100
"""Of all classes together: each costs a hundredth of a second, and more than its share where
there are many."""


class ProofreadClasses(NeuropilTask):
    """The whole class map from points of each class; without points, that of `segmentation`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(
            parts,
            InferType.DEEPEDIT,
            "The class map, corrected by points of each class",
            {},
        )
        # "label" and "background" are of the viewers' requests, and say nothing more.
        self.reads = frozenset({*parts.labels.segments, "label", "background"})
        self.objects = parts.objects

    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        extension = result_extension(request)
        dtype = result_dtype(request, len(self.viewer_labels.names))
        predictor = loaded.predictor
        frame = predictor.frame(image.shape, image.voxel_size_nm)
        clicks, warnings = self._clicks(request, image.shape)
        given = sum(len(points) for points in clicks.values())
        if given > MOST_CLASS_POINTS:
            each = MOST_CLASS_POINTS // len(clicks)
            size = image.voxel_size_nm
            clicks = {c: fewer_points(points, size, each) for c, points in clicks.items()}
            left = sum(len(points) for points in clicks.values())
            warnings.append(f"{left} points, spread over all, stand for the {given} given")
        source = click_source(
            predictor,
            loaded.version,
            image.seen,
            image.key,
            frame,
            self.cache,
            heads=loaded.heads,
        )
        network_clicks = {c: frame.to_network(points).tolist() for c, points in clicks.items()}
        with self.network.turn("classes", device):
            found = segment_classes(
                source, network_clicks, predictor.hierarchy, log_progress("proofread_classes")
            )
            everything = whole_box(frame.network_shape)
            final = frame.mask_to_viewer(found.classes, everything)
            if self.settings.inference.level == "object":
                plain = segment_classes(source, {}, predictor.hierarchy).classes
                automatic = frame.mask_to_viewer(plain, everything)
                final = self._by_object(loaded, image, automatic, final, clicks)
        shown = self.viewer_labels.lut[final].astype(dtype, copy=False)
        compress = bool(request.get("result_compress", True))
        segments = self.viewer_labels.named(image.shape)
        file = write_label(shown, image.affine, extension, compress=compress, segments=segments)
        return Answer(file, {"warnings": [*warnings, *found.warnings]})

    def _by_object(
        self,
        loaded: Loaded,
        image: RequestImage,
        automatic: NDArray[np.uint8],
        clicked: NDArray[np.uint8],
        clicks: Mapping[int, Sequence[Sequence[int]]],
    ) -> NDArray[np.uint8]:
        """The map at the level of objects, with what clicks changed voxel by voxel.

        Args:
            automatic, clicked: (X, Y, Z) fine class + 1, without and with the clicks.
            clicks: fine class -> viewer voxels.
        """
        asked = ObjectLevel(self.objects, self.cache, loaded, image)
        cells = asked.cells()
        values = asked.classes(cells).copy()
        points = np.array([p for some in clicks.values() for p in some], np.int64).reshape(-1, 3)
        points = points[((points >= 0) & (points < image.shape)).all(1)]
        name_cells(values, cells.ids, points, clicked[tuple(points.T)], loaded.hierarchy)
        changed = clicked != automatic
        changed[tuple(points.T)] = True
        values[changed] = clicked[changed]
        return values

    def _clicks(
        self, request: dict[str, Any], shape: Triple
    ) -> tuple[dict[int, list[list[int]]], list[str]]:
        """Fine class -> viewer voxels; viewers send one key for each label that they know."""
        clicks: dict[int, list[list[int]]] = {}
        warnings: list[str] = []
        hierarchy = self.viewer_labels.hierarchy
        for name in self.viewer_labels.segments:
            points = inside_image(viewer_points(request.get(name), name), shape, name, warnings)
            if not points:
                continue
            fine = clicked_class(name, hierarchy, self.settings.labels)
            if fine < 0:
                warnings.append(f"points of {name!r} name no single class and were left out")
            else:
                clicks.setdefault(fine, []).extend(points)
        return clicks, warnings
