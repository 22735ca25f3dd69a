"""Contacts of fragments within a block and across its faces, by their ids in the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.prediction.evidence import Evidence
from lib.prediction.graph import REACHES, BlockContacts, contacts_of_block
from lib.volumes.boxes import Triple

Ids = NDArray[np.uint64]
Stats = tuple[tuple[Ids, NDArray[np.float64]], ...]


@dataclass(frozen=True)
class Contacts:
    """Contacts of fragments by their ids in the volume.

    Args:
        edges: (E, 2) fragments that touch.
        stats: for each reach (P, 2) pairs and (P, 5) statistics, see `BlockContacts`.
    """

    edges: Ids
    stats: Stats


@dataclass(frozen=True)
class Face:
    """What a block keeps for its contacts with the neighbours along one axis.

    Args:
        offsets: of the pairs along the axis.
        low, high: fragments of its first and last voxels, as deep as the longest offset.
        affinities: (A, *high) of the pairs that start in `high`.
    """

    offsets: tuple[Triple, ...]
    low: Ids
    high: Ids
    affinities: NDArray[np.float16]


def face_of(ids: Ids, evidence: Evidence, axis: int) -> Face:
    """What a block's contacts with those before and after it along an axis need."""
    channels = [i for i, o in enumerate(evidence.offsets) if o[axis]]
    offsets = tuple(evidence.offsets[i] for i in channels)
    reach = max((o[axis] for o in offsets), default=0)
    size = ids.shape[axis]
    low: list[Any] = [slice(None)] * 3
    high: list[Any] = [slice(None)] * 3
    low[axis], high[axis] = slice(0, reach), slice(max(0, size - reach), size)
    upper: tuple[Any, ...] = tuple(high)
    affinities = (
        np.stack([evidence.affinities[(i, *upper)] for i in channels])
        if channels
        else (np.zeros((0, *ids[upper].shape), np.float16))
    )
    return Face(offsets, ids[tuple(low)].copy(), ids[upper].copy(), affinities)


def face_contacts(
    one: Face, other: Face, axis: int, voxel_size_nm: tuple[float, float, float]
) -> Contacts:
    """The contacts of a block with the next one along an axis.

    Args:
        one: of the block; other: of the next one.
    """
    counted, everything = [], np.concatenate([one.high, other.low], axis)
    local, names = numbered(everything)
    own = one.high.shape[axis]
    for channel, offset in enumerate(one.offsets):
        reach = offset[axis]
        first = max(0, own - reach)  # all pairs from here on end in the next block
        part = [slice(None)] * 3
        part[axis] = slice(first, min(own + reach, local.shape[axis]))
        fragments = np.ascontiguousarray(local[tuple(part)])
        affinities = np.zeros((1, *fragments.shape), np.float16)
        inside: list[Any] = [slice(None)] * 3
        inside[axis] = slice(first, own)
        there: list[Any] = [slice(None)] * 3
        there[axis] = slice(0, own - first)
        affinities[(0, *there)] = one.affinities[(channel, *inside)]
        spans = [(0, n) for n in fragments.shape]
        spans[axis] = (0, own - first)
        box = (spans[0], spans[1], spans[2])
        found = contacts_of_block(fragments, affinities, (offset,), voxel_size_nm, box)
        bare = BlockContacts(np.zeros((0, 2), np.uint64), found.stats)
        counted.append(found if reach == 1 else bare)
    return Contacts(*named(counted, names))


def numbered(ids: Ids) -> tuple[NDArray[np.uint32], Ids]:
    """Fragments by numbers without gaps, 0 none, and the id of each number."""
    local, table = fastremap.renumber(ids)
    names = np.zeros(len(table) + (0 not in table), np.uint64)
    for name, number in table.items():
        names[number] = name
    return local.astype(np.uint32, copy=False), names


def named(counted: Sequence[BlockContacts], names: Ids) -> tuple[Ids, Stats]:
    """Contacts by the fragments' ids in the volume, those with what is no fragment left out."""
    edges = [_pairs_named(c.edges, names) for c in counted]
    stats = []
    for reach in range(len(REACHES)):
        pairs = [c.stats[reach][0] for c in counted]
        values = [c.stats[reach][1] for c in counted]
        keep = [(p > 0).all(1) for p in pairs]
        both = [_pairs_named(p, names) for p in pairs]
        stats.append(
            (joined(both, 2), joined([v[k] for v, k in zip(values, keep, strict=True)], 5))
        )
    together: Ids = joined(edges, 2)
    return np.unique(together, axis=0), tuple(stats)


def _pairs_named(pairs: Ids, names: Ids) -> Ids:
    kept = pairs[(pairs > 0).all(1)].astype(np.int64)
    found: Ids = np.sort(names[kept], 1).reshape(-1, 2)
    return found


def joined(arrays: Sequence[NDArray[Any]], width: int) -> NDArray[Any]:
    """(N, width) rows of several arrays, one after another; none of no array."""
    return np.concatenate(arrays) if arrays else np.zeros((0, width))
