"""The same in a viewer's voxels: points as the viewer counts them, masks on its grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.clicks.answer import ClickAnswer, segment_clicked
from lib.clicks.class_map import ClassAnswer, segment_classes
from lib.clicks.source import Clicks, ClickSource, Kept, Kind
from lib.clicks.starting import StartingMask
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.classes import Progress
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.predictor import Predictor
from lib.volumes.boxes import Box, box_slices, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.frames import ViewerFrame

Points = Sequence[Sequence[int]]


@dataclass(frozen=True)
class ViewerRequest:
    """A click request as a viewer sends it.

    Args:
        positive, negative: [i, j, k] of the volume as loaded; may lie outside.
        class_id: fine class that the segment's name names, -1 none.
        start: a mask made earlier (X, Y, Z), viewer grid, nonzero inside; None: none.
        section: (viewer axis, index) to answer in one section only; None: in 3D.
        kind: of object that is meant.
        split: see `Clicks`.
    """

    positive: Points
    negative: Points = ()
    class_id: int = -1
    start: NDArray[np.generic] | None = None
    section: tuple[int, int] | None = None
    kind: Kind = "cell"
    split: bool = False


class FramedLabels:
    """A label map in the network's frame, read lazily.

    Args:
        frame: of the image.
        labels: (shape of the frame), viewer order, integers.
    """

    def __init__(self, frame: ViewerFrame, labels: LazyImage) -> None:
        assert tuple(labels.shape) == frame.shape, (labels.shape, frame.shape)
        self.frame, self.labels = frame, labels

    @property
    def shape(self) -> tuple[int, ...]:
        return self.frame.network_shape

    def __getitem__(self, index: Any) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = ((s.start, s.stop) for s in index)
        box: Box = ((a, b), (c, d), (e, f))
        values = np.asarray(self.labels[box_slices(self.frame.viewer_box(box))])
        return self.frame.labels_to_network(values, box)


def click_source(
    predictor: Predictor,
    weights: str,
    image: LazyImage,
    image_key: str,
    frame: ViewerFrame,
    cache: FeatureCache,
    objects: LazyImage | None = None,
    kept: Kept | None = None,
    heads: str = "",
) -> ClickSource:
    """What clicks on a viewer's image work on.

    Args:
        predictor: network and settings.
        weights: version of its weights.
        image: (X, Y, Z), viewer order, read lazily.
        image_key: identity of the image; must change when its content does.
        frame: of the image (`lib/volumes/frames.py`).
        cache: shared by all requests.
        objects: (X, Y, Z) ids of the objects that stand, viewer order, read lazily; None: none.
        kept: the image's fragments, where `instances` left them.
        heads: version of the study's heads on the network.
    """
    return ClickSource(
        predictor.net,
        weights,
        frame.view(image),
        image_key,
        frame.network_voxel_size_nm,
        cache,
        predictor.inference,
        predictor.hierarchy,
        predictor.joining,
        None if objects is None else FramedLabels(frame, objects),
        kept,
        heads,
        predictor.grouping,
    )


def segment_in_viewer(
    source: ClickSource, frame: ViewerFrame, request: ViewerRequest
) -> ClickAnswer:
    """The clicked object on the viewer's grid.

    Returns:
        mask bool on a box of viewer voxels; warnings.
    """
    clicks = Clicks(
        frame.to_network(request.positive).tolist(),
        frame.to_network(request.negative).tolist(),
        request.class_id,
        kind=request.kind,
        split=request.split,
    )
    section = _network_section(frame, request.section)
    start = None if request.start is None else starting_mask(frame, request.start)
    answer = segment_clicked(source, clicks, start, section)
    mask = frame.mask_to_viewer(answer.mask, answer.box)
    box = frame.viewer_box(answer.box)
    if request.section is not None:
        mask = _only_section(mask, box, *request.section)
    return replace(answer, mask=mask, box=box)


def starting_mask(frame: ViewerFrame, values: NDArray[np.generic]) -> StartingMask | None:
    """A whole mask on the viewer's grid as a starting mask; None when it is empty.

    Raises:
        ValueError: another shape than the image's.
    """
    if tuple(values.shape) != frame.shape:
        raise ValueError(
            f"starting mask: shape {tuple(values.shape)}, expected the image's {frame.shape}"
        )
    mask = frame.mask_to_network(values)
    where = [np.flatnonzero(mask.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    if not all(len(w) for w in where):
        return None
    x, y, z = ((int(w[0]), int(w[-1]) + 1) for w in where)
    box: Box = (x, y, z)
    return StartingMask(mask[box_slices(box)], box)


def whole_mask(answer: ClickAnswer, shape: Sequence[int]) -> NDArray[np.uint8]:
    """An answer as a 0/1 volume of the image's shape."""
    whole = np.zeros(tuple(shape), np.uint8)
    whole[box_slices(answer.box)] = answer.mask
    return whole


def _network_section(frame: ViewerFrame, section: tuple[int, int] | None) -> int | None:
    """The network section of a viewer's; None where the viewer cuts along another axis."""
    if section is None or section[0] != frame.order[2]:
        return None
    at = [0, 0, 0]
    at[section[0]] = section[1]
    return int(frame.to_network([at])[0, 2])


def _only_section(mask: NDArray[np.bool_], box: Box, axis: int, at: int) -> NDArray[np.bool_]:
    only = np.zeros_like(mask)
    if box[axis][0] <= at < box[axis][1]:
        here = [slice(None)] * 3
        here[axis] = slice(at - box[axis][0], at - box[axis][0] + 1)
        only[tuple(here)] = mask[tuple(here)]
    return only


def classes_in_viewer(
    source: ClickSource,
    frame: ViewerFrame,
    clicks: Mapping[int, Points],
    hierarchy: LabelHierarchy,
    progress: Progress | None = None,
) -> ClassAnswer:
    """The class map that clicks ask for, on the viewer's grid.

    Args:
        source: from `click_source`.
        frame: of the image.
        clicks: fine class -> points [i, j, k] of the volume as loaded.
        hierarchy: of the network.
        progress: of the automatic map, the first time.

    Returns:
        (X, Y, Z) uint8 fine class + 1, viewer order.
    """
    network = {c: frame.to_network(points).tolist() for c, points in clicks.items()}
    answer = segment_classes(source, network, hierarchy, progress)
    classes = frame.mask_to_viewer(answer.classes, whole_box(frame.network_shape))
    return ClassAnswer(classes, answer.warnings)
