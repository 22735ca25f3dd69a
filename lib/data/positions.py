"""Where each class occurs in an item: the index that patches are drawn from.

Only known voxels that may train are in it. A stratum is one distinct class set (a class, a
group, any other set) or, under key `OBJECTS_ONLY`, the objects whose class is unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.data.items import DataItem
from lib.volumes.boxes import Box, Triple

OBJECTS_ONLY = 0
"""Key of the stratum "an object of unknown class" (no class set is empty)."""

BLOCK: Triple = (128, 128, 32)
KEPT_PER_BLOCK = 512


@dataclass(frozen=True)
class Stratum:
    """The voxels of one class set in one item.

    Args:
        count: number of voxels.
        ends: cumulative voxel counts of the blocks that hold any.
        kept: for each such block, (M, 3) int32 voxel positions, all of them or a random
            `KEPT_PER_BLOCK`.
    """

    count: int
    ends: NDArray[np.int64]
    kept: tuple[NDArray[np.int32], ...]

    def draw(self, generator: np.random.Generator) -> Triple:
        """A voxel of the stratum: a block by its share of the voxels, then one kept in it."""
        block = int(np.searchsorted(self.ends, generator.integers(self.count), side="right"))
        positions = self.kept[block]
        x, y, z = positions[int(generator.integers(len(positions)))]
        return int(x), int(y), int(z)


def index_positions(item: DataItem) -> dict[int, Stratum]:
    """The training strata of an item, by class set.

    Deterministic for an item's id and labels. Reads block by block, so that an item larger
    than memory can be indexed.
    """
    counts: dict[int, list[int]] = {}
    kept: dict[int, list[NDArray[np.int32]]] = {}
    digest = hashlib.blake2b(item.id.encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    if item.split.whole == "val":
        return {}
    for box in blocks_of(item.shape):
        keys = stratum_keys(item, box)
        flat = keys.ravel()
        for key in np.sort(fastremap.unique(flat[flat >= 0])):
            where = np.flatnonzero(flat == key)
            chosen = where
            if len(where) > KEPT_PER_BLOCK:
                chosen = generator.choice(where, KEPT_PER_BLOCK, replace=False)
            inside = np.stack(np.unravel_index(chosen, keys.shape), 1)
            corner = np.array([lo for lo, _ in box])
            counts.setdefault(int(key), []).append(len(where))
            kept.setdefault(int(key), []).append((inside + corner).astype(np.int32))
    return {
        key: Stratum(sum(counts[key]), np.cumsum(counts[key]), tuple(kept[key]))
        for key in sorted(counts)
    }


def stratum_keys(item: DataItem, box: Box) -> NDArray[np.int64]:
    """The stratum of each voxel of a box inside the item; -1 where it may not train.

    Returns:
        int64 of the box's shape: a class set, OBJECTS_ONLY or -1.
    """
    sets, ids = item.read_labels(box)
    keys = sets.astype(np.int64)
    unknown = sets == item.hierarchy.unknown
    keys[unknown] = -1
    keys[unknown & (ids > 0)] = OBJECTS_ONLY
    for part in item.split.blocked(box):
        keys[part] = -1
    return keys


def blocks_of(shape: Triple) -> Iterator[Box]:
    spans = [
        [(lo, min(lo + b, n)) for lo in range(0, n, b)] for n, b in zip(shape, BLOCK, strict=True)
    ]
    yield from product(*spans)


def taught_by_tissue(indexed: Iterable[tuple[DataItem, Mapping[int, Stratum]]]) -> set[str]:
    """Names of the classes that labels of real images name by themselves.

    Args:
        indexed: items and their training strata.
    """
    found = set()
    for item, strata in indexed:
        if not item.source.record.synthetic:
            told = (item.hierarchy.members(key) for key in strata if key != OBJECTS_ONLY)
            found |= {item.hierarchy.class_names[c] for c, *more in told if not more}
    return found
