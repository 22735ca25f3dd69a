"""Which voxels train and which validate, fixed by the item alone.

An item with a declared split (`record.split`) belongs to it whole. Any other item is cut into
blocks on a fixed grid; a hash of the item's id and the block's coordinates ranks the blocks,
and the first share of them validates. Labels play no part, so the role of a voxel never
changes as labels arrive. A gap around each validation block trains nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple

VAL_BLOCK: Triple = (96, 96, 32)
"""Voxels of a validation block; shorter axes are cut into at least four parts if they can."""

GAP: Triple = (8, 8, 2)
"""Voxels around a validation block that neither train nor validate."""


@dataclass(frozen=True)
class ItemSplit:
    """The validation part of one item.

    Args:
        shape: (X, Y, Z) voxels of the item.
        val_boxes: half-open boxes whose voxels validate.
        whole: "train" or "val" where the whole item has one role, None where it is mixed.
    """

    shape: Triple
    val_boxes: tuple[Box, ...]
    whole: str | None

    def blocked(self, box: Box) -> list[tuple[slice, slice, slice]]:
        """Where a box holds voxels that may not train: validation blocks and their gap.

        Returns:
            slices into an array of the box's shape.
        """
        grown = []
        for val in self.val_boxes:
            wide = tuple((lo - g, hi + g) for (lo, hi), g in zip(val, GAP, strict=True))
            grown.append((wide[0], wide[1], wide[2]))
        return _slices_inside(box, grown)

    def validating(self, box: Box) -> NDArray[np.bool_]:
        """True at the voxels of a box that validate; bool of the box's shape."""
        mask = np.zeros([hi - lo for lo, hi in box], bool)
        for part in _slices_inside(box, list(self.val_boxes)):
            mask[part] = True
        return mask


def split_item(item_id: str, shape: Triple, declared: str | None, val_fraction: float) -> ItemSplit:
    """The fixed split of an item.

    Args:
        item_id: the item's id in its study.
        shape: (X, Y, Z) voxels.
        declared: "train", "val" or None.
        val_fraction: share of the blocks that validate, at least one block.
    """
    whole: Box = ((0, shape[0]), (0, shape[1]), (0, shape[2]))
    if declared == "val":
        return ItemSplit(shape, (whole,), "val")
    if declared == "train":
        return ItemSplit(shape, (), "train")
    edges = [_edges(n, b) for n, b in zip(shape, VAL_BLOCK, strict=True)]
    blocks: list[Box] = [(x, y, z) for x, y, z in product(*edges)]
    if len(blocks) == 1:
        role = "val" if block_hash(item_id, (0, 0, 0)) < val_fraction else "train"
        return split_item(item_id, shape, role, val_fraction)
    ranked = sorted(blocks, key=lambda b: block_hash(item_id, (b[0][0], b[1][0], b[2][0])))
    count = max(1, int(val_fraction * len(blocks)))
    return ItemSplit(shape, tuple(ranked[:count]), None)


def _edges(length: int, block: int) -> list[tuple[int, int]]:
    """Cut an axis into equal parts of about `block` voxels; axes under two blocks stay whole,
    unless they are long enough to be cut into four of at least half a block."""
    parts = max(1, length // block)
    if parts < 4:
        parts = max(1, min(4, 2 * length // block))
    cuts = [round(i * length / parts) for i in range(parts + 1)]
    return list(pairwise(cuts))


def block_hash(item_id: str, corner: Triple) -> float:
    """A number in [0, 1) that depends on the item's id and the block's corner only."""
    digest = hashlib.blake2b(f"{item_id}|{corner}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def _slices_inside(box: Box, others: list[Box]) -> list[tuple[slice, slice, slice]]:
    found = []
    for other in others:
        lows = [max(a[0], b[0]) - a[0] for a, b in zip(box, other, strict=True)]
        highs = [min(a[1], b[1]) - a[0] for a, b in zip(box, other, strict=True)]
        if all(lo < hi for lo, hi in zip(lows, highs, strict=True)):
            x, y, z = (slice(lo, hi) for lo, hi in zip(lows, highs, strict=True))
            found.append((x, y, z))
    return found
