"""There is always something to validate on: blocks of what is annotated are held back.

Items are split by a coarse grid whatever is labelled (lib/data/splits.py). Where annotators have
painted little, none of it may lie in a validation block; then small blocks of the annotation
itself are held back, by the same hash, so that a block's rank never changes as labels arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lib.data.items import DataItem
from lib.data.splits import block_hash
from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.boxes import Box, Triple

HELD_BLOCK: Triple = (48, 48, 8)
ENOUGH = 500
"""Known validation voxels of a study that can tell one set of weights from another."""
MOST_HELD = 0.34
"""Share of the annotated blocks that are held back at most, and of their voxels about."""


def hold_back(items: Sequence[DataItem], val_fraction: float) -> int:
    """Hold back blocks of the annotation where nothing annotated validates yet.

    Items whose record declares a split keep it.

    Args:
        items: labelled items; their splits are changed in place.
        val_fraction: share of the annotated blocks, at least one.

    Returns:
        Known voxels that validate now.
    """
    known = sum(_known_in(item, box) for item in items for box in item.split.val_boxes)
    if known >= ENOUGH:
        return known
    free = [item for item in items if item.source.record.split is None]
    blocks = [
        (block_hash(item.id, (box[0][0], box[1][0], box[2][0])), number, box, count)
        for number, item in enumerate(free)
        for box in _blocks(item.shape)
        if (count := _known_in(item, box))
    ]
    most = int(MOST_HELD * len(blocks))
    wanted = max(1, int(val_fraction * len(blocks)))
    total = sum(count for *_, count in blocks)
    held = 0
    for taken, (_, number, box, count) in enumerate(sorted(blocks, key=lambda b: b[:3])):
        if taken >= most or (taken >= wanted and held >= ENOUGH) or held > MOST_HELD * total:
            break
        split = free[number].split
        free[number].split = replace(split, val_boxes=(*split.val_boxes, box), whole=None)
        held += count
    return known + held


def _known_in(item: DataItem, box: Box) -> int:
    """Voxels of a box of which a class or an object is known."""
    sets, ids = item.read_labels(box)
    return int(((sets != item.hierarchy.unknown) | (ids != IGNORE_INDEX)).sum())


def _blocks(shape: Triple) -> list[Box]:
    spans = [
        [(lo, min(lo + b, n)) for lo in range(0, n, b)]
        for n, b in zip(shape, HELD_BLOCK, strict=True)
    ]
    return [(x, y, z) for x in spans[0] for y in spans[1] for z in spans[2]]
