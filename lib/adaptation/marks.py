"""Marked objects of an item: where they lie, and the rows that say where objects end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.adaptation.annotated import longer_axes, middles
from lib.adaptation.boundaries import BETWEEN, INSIDE, boundary_targets, goes_on
from lib.adaptation.left_objects import with_left_objects
from lib.adaptation.network import Network, data_item
from lib.adaptation.rows import seen
from lib.data.items import DataItem
from lib.prediction.features import FeatureSource, Shelf
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.forward import window_size
from lib.prediction.window_grid import window_grid
from lib.proofread.store import MACHINE_TAG
from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    box_slices,
    intersect,
    minus,
    shift_box,
    whole_box,
)
from lib.volumes.contrast import LazyImage
from lib.volumes.crop import widen
from lib.volumes.disk_ids import from_disk_ids
from lib.volumes.study import TOUCHED, StudyItem

MARGIN: Triple = (24, 24, 2)
"""Voxels around marked objects that are grouped with them: what they could be merged with."""
ROWS = 6000
"""Of each kind, of one window, at most."""


@dataclass(frozen=True)
class Marks:
    """An item with marked objects, in the network's frame.

    Args:
        name: of the item.
        image: (X, Y, Z), lazy.
        voxel_size_nm: (x, y, z).
        box: of the image, in which the marks lie, with a margin.
        ids: (x, y, z) objects of the box, 0 none, -1 unknown.
        sets: (x, y, z) class sets of the box.
        sectionwise: the ids say nothing of what belongs together across sections.
        axis, middle: the plane that halves the objects, in the box's voxels.
        shelf: where features are kept.
        corrections: some of the objects are the machine's that were left beside corrected ones.
    """

    name: str
    image: LazyImage
    voxel_size_nm: tuple[float, float, float]
    box: Box
    ids: NDArray[np.int64]
    sets: NDArray[np.int32]
    sectionwise: bool
    axis: int
    middle: float
    shelf: Shelf | None
    corrections: bool = False

    def side(self) -> NDArray[np.float64]:
        """Signed distance to the plane, in voxels, broadcast along the other axes."""
        shape = [1, 1, 1]
        shape[self.axis] = -1
        return (np.arange(self.ids.shape[self.axis]) - self.middle).reshape(shape)


def marks_of(
    items: Sequence[StudyItem],
    network: Network,
    most_voxels: int,
    shelf: Callable[[StudyItem], Shelf | None],
) -> list[Marks]:
    """Items in which objects are marked, as long as their boxes have no more voxels together."""
    found: list[Marks] = []
    for item in items:
        if not item.has_label("instance"):
            continue
        marks = _marks(data_item(item, network), shelf(item), most_voxels)
        if marks is not None:
            most_voxels -= marks.ids.size
            found.append(marks)
    return found


def _marks(data: DataItem, shelf: Shelf | None, most_voxels: int) -> Marks | None:
    labels = data.load_labels()
    marked = labels.ids.astype(np.int64)
    everything, sets = _with_left(data, marked, labels.class_sets)
    box = _around(everything)
    if box is None or math.prod(box_shape(box)) > most_voxels:
        return None
    ids = everything[box_slices(box)]
    numbers, middle = middles(ids)
    if len(numbers) < 2:
        return None
    axis = int(longer_axes(middle)[0])
    item = cast(StudyItem, data.source)
    return Marks(
        data.id, data.frame.view(item.open_seen()), data.voxel_size_nm, box, ids,
        sets[box_slices(box)], _sectionwise(data, ids), axis,
        float(np.median(middle[:, axis])), shelf, everything is not marked,
    )  # fmt: skip


def _with_left(
    data: DataItem, ids: NDArray[np.int64], sets: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Objects left as they were shown beside corrected ones, and sets of all that came back.

    Both as they are where corrections outweigh what was left: then what came back is nobody's.
    """
    item = cast(StudyItem, data.source)
    if not (item.has_label(TOUCHED) and item.has_label(MACHINE_TAG)):
        return ids, sets
    whole = whole_box(item.shape)
    parts = (
        item.read_class_sets(shown=True), item.read_instances(shown=True),
        from_disk_ids(item.read_label(MACHINE_TAG, whole)),
    )  # fmt: skip
    own = whole_box(data.shape)
    shown_sets, shown, machine = (data.frame.labels_to_network(p, own) for p in parts)
    found = with_left_objects(ids, shown, machine)
    return (ids, sets) if found is ids else (found, shown_sets)


def _around(ids: NDArray[np.int64]) -> Box | None:
    """The box of all objects with a margin; None where there are none."""
    marked = ids > 0
    lines = (marked.any((1, 2)), marked.any((0, 2)), marked.any((0, 1)))
    if not lines[0].any():
        return None
    x, y, z = ((int(w[0]), int(w[-1]) + 1) for w in (np.flatnonzero(line) for line in lines))
    shape = (ids.shape[0], ids.shape[1], ids.shape[2])
    return widen((x, y, z), MARGIN, shape)


def _sectionwise(data: DataItem, ids: NDArray[np.int64]) -> bool:
    """Whether numbers hold within a section: declared, or no object goes on in the next one."""
    return not data.flat and not (data.true_instances and goes_on(ids))


def boundary_rows(marks: Marks, network: Network) -> tuple[Tensor, Tensor, Tensor]:
    """What heads see of voxels that marks speak of.

    Returns:
        (N, F + FILTERS) features and filter responses, (N,) bool whether a voxel lies between
        objects, (N,) its signed distance to the plane that halves the marks.
    """
    hierarchy, inference = network.hierarchy, network.inference
    targets = boundary_targets(marks.ids, marks.sets == hierarchy.unknown, marks.voxel_size_nm)
    side = np.broadcast_to(marks.side(), targets.shape)
    seed = hashlib.blake2b(marks.name.encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(seed, "big"))
    grid = window_grid(marks.image.shape, window_size(network.net, inference), inference.overlap)
    source = FeatureSource(network.net, marks.image, inference.precision, marks.shelf).fitting(grid)
    features = [torch.zeros((0, network.net.feature_channels + FILTERS))]
    between, sides = [np.zeros(0, np.bool_)], [np.zeros(0)]
    origin = box_origin(marks.box)
    for window, core in grid.cores():
        common = intersect(core, marks.box)
        if common is None:
            continue
        inner = shift_box(common, minus(origin))
        part = targets[box_slices(inner)]
        for kind in (INSIDE, BETWEEN):
            flat = np.flatnonzero(part == kind)
            if not len(flat):
                continue
            flat = generator.permutation(flat)[:ROWS]
            own = np.stack(np.unravel_index(flat, part.shape), 1) + box_origin(inner)
            features.append(seen(source, window, own + origin, marks.voxel_size_nm))
            between.append(np.full(len(flat), kind == BETWEEN))
            sides.append(side[tuple(own.T)])
    return (
        torch.cat(features),
        torch.from_numpy(np.concatenate(between)),
        torch.from_numpy(np.concatenate(sides)),
    )
