"""Boxes of training items with images, true cells and class sets in the network's frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.labels.class_sets import cells_only
from lib.prediction.predictor import Predictor
from lib.volumes.boxes import Box, box_slices, whole_box
from lib.volumes.study import Study, StudyItem

MOST_ITEMS = 4
"""Of each study's data set."""


@dataclass(frozen=True)
class TrainingBox:
    """What labels say of a part of an item, and its image.

    Args:
        name: of the item.
        image: (X, Y, Z) as stored.
        voxel_size_nm: (x, y, z) of the image.
        network_voxel_size_nm: (x, y, z) of the labels.
        ids: (x, y, z) true cells, 0 none, negative unknown, in the network's frame.
        sets: (x, y, z) class sets, in the network's frame.
        sectionwise: ids hold within sections only.
    """

    name: str
    image: NDArray[np.generic]
    voxel_size_nm: tuple[float, float, float]
    network_voxel_size_nm: tuple[float, float, float]
    ids: NDArray[np.int64]
    sets: NDArray[np.int32]
    sectionwise: bool

    @property
    def group(self) -> str:
        """The data set, which the item's name begins with."""
        return self.name.partition("-")[0]


def training_items(studies: Sequence[Path], predictor: Predictor, most: int) -> list[StudyItem]:
    """Items with objects that are not for measuring, so many of each data set of a study."""
    found: list[StudyItem] = []
    for root in studies:
        count: dict[str, int] = {}
        for item in Study(root, predictor.hierarchy).items():
            group = item.id.partition("-")[0]
            usable = item.has_label("instance") and item.record.split != "val"
            if usable and count.get(group, 0) < most:
                count[group] = count.get(group, 0) + 1
                found.append(item)
    return found


def training_boxes(
    items: Sequence[StudyItem], predictor: Predictor, size: tuple[int, int, int], most: int
) -> Iterator[TrainingBox]:
    """Boxes spread over each item, as many as fit into it side by side, up to a number."""
    for item in items:
        frame = predictor.frame(item.shape, item.voxel_size_nm)
        for box in _boxes(frame.network_shape, size, most):
            part = frame.viewer_box(box)
            image = np.asarray(item.open_image()[box_slices(part)])
            inner = predictor.frame(image.shape, item.voxel_size_nm)
            everything = whole_box(inner.network_shape)
            ids = inner.labels_to_network(item.read_instances(part), everything)
            sets = inner.labels_to_network(item.read_class_sets(part), everything)
            yield TrainingBox(
                item.id, image, item.voxel_size_nm, inner.network_voxel_size_nm,
                cells_only(ids.astype(np.int64), sets, predictor.hierarchy),
                sets.astype(np.int32), not item.record.true_instances,
            )  # fmt: skip


def _boxes(shape: Sequence[int], size: tuple[int, int, int], most: int) -> Iterator[Box]:
    axes = [_spread(n, edge) for n, edge in zip(shape, size, strict=True)]
    places = list(itertools.product(*axes))
    count = min(most, len(places))
    for number in range(count):
        x, y, z = places[int((number + 0.5) * len(places) / count)]
        yield x, y, z


def _spread(length: int, edge: int) -> list[tuple[int, int]]:
    """Spans side by side, the gaps between them and at the ends alike."""
    count, edge = max(1, length // edge), min(edge, length)
    gap = (length - count * edge) / (count + 1)
    lows = [round(gap + n * (edge + gap)) for n in range(count)]
    return [(low, low + edge) for low in lows]
