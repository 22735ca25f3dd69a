"""What is known of an item in a split, and the parts by which figures spread."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.data.splits import split_item
from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.boxes import Box, Triple, box_slices, whole_box
from lib.volumes.frames import ViewerFrame
from lib.volumes.study import StudyItem

Split = Literal["val", "train", "all"]

TILES = 3
"""A single section is cut into so many tiles along each axis."""


@dataclass(frozen=True)
class Truth:
    """What is known of an item in a split; everything else is unknown.

    Args:
        class_sets: (X, Y, Z) int32 bit masks.
        instances: (X, Y, Z) int64, -1 unknown.
        classes_known: whether any voxel's class set says something.
        objects_known: whether there are objects that count in 3D.
    """

    class_sets: NDArray[np.int32]
    instances: NDArray[np.int64]
    classes_known: bool
    objects_known: bool


@dataclass(frozen=True)
class Part:
    """A part of an item that has figures of its own: a section, or a tile of a single one."""

    name: str
    box: Box


def read_truth(
    item: StudyItem, frame: ViewerFrame, split: Split, val_fraction: float
) -> Truth | None:
    """An item's labels with everything outside the split unknown; None when nothing is left.

    Args:
        item: of a study.
        frame: of the item.
        split: voxels that validate, that train, or all that are known.
        val_fraction: share of validation blocks in items without a declared split.
    """
    if not item.has_label("final") and not item.has_label("instance"):
        return None
    inside = split_mask(item, frame, split, val_fraction)
    if inside is not None and not inside.any():
        return None
    sets, ids = item.read_class_sets(), item.read_instances()
    unknown = item.study.hierarchy.unknown
    if inside is not None:
        sets[~inside], ids[~inside] = unknown, IGNORE_INDEX
    classes_known = bool((sets != unknown).any())
    objects_known = item.record.true_instances and bool((ids > 0).any())
    if not classes_known and not objects_known:
        return None
    return Truth(sets, ids, classes_known, objects_known)


def split_mask(
    item: StudyItem, frame: ViewerFrame, split: Split, val_fraction: float
) -> NDArray[np.bool_] | None:
    """(X, Y, Z) where the split's voxels are, as training cuts it; None for everywhere."""
    if split == "all":
        return None
    shape = frame.network_shape
    parts = split_item(item.id, shape, item.record.split, val_fraction)
    if parts.whole is not None:
        return None if parts.whole == split else np.zeros(item.shape, bool)
    whole = whole_box(shape)
    if split == "val":
        inside = parts.validating(whole)
    else:
        inside = np.ones(shape, bool)
        for blocked in parts.blocked(whole):
            inside[blocked] = False
    on_image = frame.mask_to_viewer(inside, whole)
    return np.asarray(on_image[box_slices(whole_box(item.shape))], bool)


def parts_of(shape: Triple, axis: int) -> list[Part]:
    """The sections of an item, or the tiles of a single section.

    Args:
        shape: (X, Y, Z) of the item.
        axis: along which its sections follow each other.
    """
    if shape[axis] > 1:
        parts = []
        for at in range(shape[axis]):
            spans = list(whole_box(shape))
            spans[axis] = (at, at + 1)
            parts.append(Part(f"section {at}", (spans[0], spans[1], spans[2])))
        return parts
    cuts = [1 if a == axis else min(TILES, n) for a, n in enumerate(shape)]
    edges = [
        np.linspace(0, n, count + 1).astype(int).tolist()
        for n, count in zip(shape, cuts, strict=True)
    ]
    tiles = []
    for places in product(*(range(count) for count in cuts)):
        x, y, z = ((e[i], e[i + 1]) for e, i in zip(edges, places, strict=True))
        across = [str(i) for a, i in enumerate(places) if a != axis]
        tiles.append(Part(f"tile {' '.join(across)}", (x, y, z)))
    return tiles
