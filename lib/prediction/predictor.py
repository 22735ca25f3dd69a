"""A network with everything it takes to segment an image in the image's own frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib.configs.settings import InferenceSettings, Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import CLASSES, StudyHeads
from lib.networks.weights import load_network
from lib.prediction.classes import Level, Progress, predict_classes
from lib.prediction.features import Shelf
from lib.prediction.forward import window_size
from lib.prediction.grouping import Call, call_here
from lib.prediction.instances import predict_fragments
from lib.prediction.joining import PLAIN, JoinModel, joining_of
from lib.prediction.object_classes import classes_of_objects
from lib.prediction.objects import Fragments, Objects
from lib.volumes.boxes import Box, Triple, box_origin, box_slices, minus, shift_box, whole_box
from lib.volumes.contrast import LazyImage, intensity_window
from lib.volumes.crop import Crop, widen
from lib.volumes.frames import ViewerFrame, viewer_frame


@dataclass(frozen=True)
class Predictor:
    """Weights, and how to run them.

    Args:
        net: in evaluation mode, on the device that computes.
        hierarchy: of the network.
        inference: windows and decoding.
        finest_nm: voxels up to half of this are binned before the network sees them.
        most_split: voxels of volumes from twice `finest_nm` on are split, into so many at most.
        meta: of the weights file.
        call: how the grouping of a block is called; a server does so in another process.
        joining: says which fragments belong together.
        grouping: the network that finds fragments, where it is another one.
    """

    net: NeuropilNet
    hierarchy: LabelHierarchy
    inference: InferenceSettings
    finest_nm: float = 0.0
    most_split: int = 1
    meta: dict[str, Any] | None = None
    call: Call = call_here
    joining: JoinModel = PLAIN
    grouping: NeuropilNet | None = None

    @property
    def finder(self) -> NeuropilNet:
        """The network that finds fragments."""
        return self.grouping or self.net

    @property
    def one_network(self) -> bool:
        """Whether fragments are found by the classes that the network answers."""
        return self.finder.task_heads.study is self.net.task_heads.study

    def frame(self, shape: Sequence[int], voxel_size_nm: Sequence[float]) -> ViewerFrame:
        """The way between an image's voxels and the network's."""
        return viewer_frame(shape, voxel_size_nm, self.finest_nm, self.most_split)

    def classes(
        self,
        image: LazyImage,
        voxel_size_nm: Sequence[float],
        level: Level | None = None,
        progress: Progress | None = None,
        shelf: Shelf | None = None,
        box: Box | None = None,
    ) -> NDArray[np.uint8]:
        """(X, Y, Z) uint8 class map on the image's own grid; values as `predict_classes`.

        Args:
            box: the part of the image that is wanted; None: all of it. The network sees what
                lies around it, of a region of a larger volume also beyond the image.
        """
        image, part, shelf = self._surrounded(image, box, voxel_size_nm, shelf)
        frame = self.frame(image.shape, voxel_size_nm)
        network = frame.network_box(part)
        found = predict_classes(
            self.net,
            frame.view(image),
            frame.network_voxel_size_nm,
            self.inference,
            hierarchy=self.hierarchy,
            level=level,
            progress=progress,
            shelf=shelf,
            box=network,
        )
        whole = frame.viewer_box(network)  # binned voxels may reach beyond the part
        at = box_slices(shift_box(part, minus(box_origin(whole))))
        return frame.mask_to_viewer(found, network)[at]

    def object_classes(
        self,
        image: LazyImage,
        voxel_size_nm: Sequence[float],
        progress: Progress | None = None,
        shelf: Shelf | None = None,
        box: Box | None = None,
        cells: NDArray[np.uint32] | None = None,
    ) -> NDArray[np.uint8]:
        """(X, Y, Z) uint8 classes, one for each cell; values as `classes_of_objects`.

        Args:
            box: the part of the image that is wanted; None: all of it.
            cells: (X, Y, Z) ids of that part, 0 none; found anew where not given.
        """
        fine = self.classes(image, voxel_size_nm, "fine", progress, shelf, box)
        if cells is None:
            cells = self.objects(image, voxel_size_nm, progress, shelf, box=box).ids
        return classes_of_objects(fine, cells, self.hierarchy, self.inference, self.classes_learned)

    @property
    def classes_learned(self) -> frozenset[str] | None:
        """Classes that real tissue taught, here or where the weights come from; None: all."""
        published = self.net.classes_learned
        if published is None:
            return None
        study = self.net.task_heads.study
        used = study.used_of(CLASSES).tolist() if isinstance(study, StudyHeads) else []
        here = [name for name, use in zip(self.hierarchy.class_names, used, strict=False) if use]
        return frozenset(published) | frozenset(here)

    def objects(
        self,
        image: LazyImage,
        voxel_size_nm: Sequence[float],
        progress: Progress | None = None,
        shelf: Shelf | None = None,
        split_merge: float = 0.0,
        box: Box | None = None,
    ) -> Objects:
        """All cells on the image's own grid; sizes are in the network's voxels.

        Args:
            split_merge: -1 splits more, 1 merges more.
            box: the part of the image that is wanted; None: all of it. Cells are found with
                what lies around it; their sizes are then those within the box, in the image's
                voxels.
        """
        image, part, shelf = self._surrounded(image, box, voxel_size_nm, shelf)
        if part != whole_box(self.frame(image.shape, voxel_size_nm).shape):
            return self._objects_within(image, part, voxel_size_nm, progress, split_merge)
        fragments = self.fragments(image, voxel_size_nm, progress, shelf)
        return self.joined(fragments, image.shape, voxel_size_nm, split_merge)

    def fragments(
        self,
        image: LazyImage,
        voxel_size_nm: Sequence[float],
        progress: Progress | None = None,
        shelf: Shelf | None = None,
    ) -> Fragments:
        """The fragments of an image and their graph, in the network's frame."""
        frame = self.frame(image.shape, voxel_size_nm)
        return predict_fragments(
            self.finder,
            frame.view(image),
            frame.network_voxel_size_nm,
            self.inference,
            hierarchy=self.hierarchy,
            progress=progress,
            call=self.call,
            shelf=shelf,
        )

    def joined(
        self,
        fragments: Fragments,
        shape: Sequence[int],
        voxel_size_nm: Sequence[float],
        split_merge: float = 0.0,
    ) -> Objects:
        """Fragments joined into cells, on the image's own grid.

        Args:
            fragments: of `fragments`.
            shape: of the image.
            voxel_size_nm: (x, y, z) of the image.
            split_merge: -1 splits more, 1 merges more.
        """
        found = fragments.objects(
            self.joining, self.hierarchy, self.inference.min_object_voxels, split_merge
        )
        ids = _to_image(found.ids, self.frame(shape, voxel_size_nm))
        return replace(found, ids=ids, fragments=fragments)

    def _objects_within(
        self,
        image: LazyImage,
        part: Box,
        voxel_size_nm: Sequence[float],
        progress: Progress | None,
        split_merge: float,
    ) -> Objects:
        shape = self.frame(image.shape, voxel_size_nm).shape
        wide = widen(part, self._margin(image, voxel_size_nm), shape)
        crop = Crop(image, wide, intensity_window(image))
        found = self.objects(crop, voxel_size_nm, progress, split_merge=split_merge)
        return found.within(shift_box(part, minus(box_origin(wide))))

    def _surrounded(
        self,
        image: LazyImage,
        box: Box | None,
        voxel_size_nm: Sequence[float],
        shelf: Shelf | None,
    ) -> tuple[LazyImage, Box, Shelf | None]:
        """The image with what lies around it, where it is a region of more, and the box in it."""
        x, y, z = (int(n) for n in image.shape)
        part = whole_box((x, y, z)) if box is None else box
        around = getattr(image, "around", None)
        if around is None:
            return image, part, shelf
        wide, inner = around(self._margin(image, voxel_size_nm))
        if tuple(wide.shape) == (x, y, z):
            return image, part, shelf
        kept = None if shelf is None else replace(shelf, image=f"{shelf.image} and around")
        return wide, shift_box(part, box_origin(inner)), kept

    def _margin(self, image: LazyImage, voxel_size_nm: Sequence[float]) -> Triple:
        """Half a window on each side, in the image's voxels and axes."""
        frame = self.frame(image.shape, voxel_size_nm)
        margin = [0, 0, 0]
        sizes = zip(frame.order, window_size(self.net, self.inference), strict=True)
        for (axis, size), bins, splits in zip(sizes, frame.bins, frame.splits, strict=True):
            margin[axis] = -(-size * bins // (2 * splits))
        return margin[0], margin[1], margin[2]


def load_predictor(
    weights: Path | str, settings: Settings, device: torch.device | str = "cpu"
) -> Predictor:
    """A predictor from a weights file; how to run comes from the settings, not from the file.

    Raises:
        ValueError: no such file, or not a weights file.
    """
    net, trained, hierarchy, meta = load_network(weights, device)
    model = trained.model
    return Predictor(
        net,
        hierarchy,
        settings.inference,
        model.finest_nm,
        model.most_split,
        meta,
        joining=joining_of(net),
    )


def _to_image(values: NDArray[Any], frame: ViewerFrame) -> NDArray[Any]:
    return frame.mask_to_viewer(values, whole_box(frame.network_shape))
