"""The rows of one item: its class sets, read like an array, by the windows of a whole run."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lib.adaptation.came_back import with_what_came_back
from lib.adaptation.network import Network, data_item
from lib.adaptation.painted_cells import without_painted_kinds
from lib.adaptation.rows import Rows, SetMap, read_rows
from lib.configs.settings import AdaptationSettings
from lib.data.items import DataItem, Labels
from lib.prediction.features import FeatureSource, Shelf
from lib.prediction.forward import window_size
from lib.prediction.window_grid import window_grid
from lib.volumes.boxes import whole_box
from lib.volumes.study import TOUCHED, StudyItem


def item_rows(
    item: StudyItem,
    network: Network,
    settings: AdaptationSettings,
    most_windows: int,
    shelf: Shelf | None = None,
    sets: SetMap | None = None,
) -> Rows:
    """The rows of one item, by the windows of a whole run over it.

    Args:
        most_windows: windows at most.
        shelf: where features are kept.
        sets: what is learned, network frame; None: the item's labels.
    """
    net = network.net
    data = data_item(item, network)
    frame = data.frame
    image = frame.view(item.open_seen())
    grid = window_grid(image.shape, window_size(net, network.inference), network.inference.overlap)
    source = FeatureSource(net, image, network.inference.precision, shelf).fitting(grid)
    sets = sets or CompactSets(learned_labels(data))
    return read_rows(
        item.id, source, grid, sets, network.hierarchy.unknown,
        settings.most_rows, most_windows, data.voxel_size_nm,
    )  # fmt: skip


def learned_labels(data: DataItem) -> Labels:
    """What a study's heads learn of an item: its labels, and what people say beside them.

    That is what came back as it was shown (`came_back`), and what marked cells are not
    (`painted_cells`).
    """
    labels, item = data.load_labels(), cast(StudyItem, data.source)
    if item.has_label(TOUCHED):
        everything = item.read_class_sets(shown=True)
        shown = data.frame.labels_to_network(everything, whole_box(data.shape))
        labels = with_what_came_back(labels, shown, data.hierarchy)
    return without_painted_kinds(labels, data.hierarchy)


class CompactSets(SetMap):
    """A whole item's class sets at a byte a voxel, read like an array of them."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.labels.codes.shape)

    def __getitem__(self, index: Any, /) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self.labels.palette[self.labels.codes[index]]
        return found


def no_rows(channels: int) -> Rows:
    """Rows of nothing."""
    none = torch.zeros(0, dtype=torch.int64)
    return Rows(
        torch.zeros((0, channels)), none.int(), torch.zeros(0), none.clone(), none.clone(),
        none.clone(),
    )  # fmt: skip
