"""Where the machine's objects touch, and where they hang together: what a proofreader may change.

A table for each map of the machine, made with it: the contacts between two of its objects, and
the joins inside one, each with what the network says of it, its place, and how many voxels would
change hands if the machine were wrong there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cc3d
import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import depth_first_order, minimum_spanning_tree

from lib.volumes.atomic import write_bytes
from lib.volumes.boxes import Triple
from lib.volumes.errors import DAMAGED_ARRAYS, VolumeError

Ids = NDArray[np.uint32]
FAR = 64.0
"""More than any log odds."""
LEAST_LONG, LONG = 500, 2.0
"""Objects of so many voxels, so many times as long as wide, have ends."""
SAMPLED = 4000
"""Voxels of an object by which its direction is found."""
BORDER = 3
"""Voxels from the volume's border within which an end is the volume's."""


@dataclass(frozen=True)
class Joins:
    """Contacts and inner joins of a map.

    Args:
        pairs: (J, 2) int64 ids of the machine; twice the same: a join inside that object; the
            second 0: an end of the first, inside the volume.
        logits: (J,) float32 log odds that both sides belong together; nan: nothing is known.
        places: (J, 3) int32 voxel in the middle of the contact, or the tip.
        changes: (J,) int64 voxels of the smaller side, or of the object that ends.
        sides: (J, 2, 3) int32 a voxel of each side where they touch; an end has its tip twice.
    """

    pairs: NDArray[np.int64]
    logits: NDArray[np.float32]
    places: NDArray[np.int32]
    changes: NDArray[np.int64]
    sides: NDArray[np.int32]

    def and_also(self, other: Joins) -> Joins:
        """Both tables in one."""
        return Joins(
            np.concatenate([self.pairs, other.pairs]),
            np.concatenate([self.logits, other.logits]),
            np.concatenate([self.places, other.places]),
            np.concatenate([self.changes, other.changes]),
            np.concatenate([self.sides, other.sides]),
        )

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = io.BytesIO()
        np.savez_compressed(content, **vars(self))
        write_bytes(path, content.getvalue())


def load_joins(path: Path) -> Joins:
    """Read what `save` wrote.

    Raises:
        VolumeError: missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return Joins(*(data[f.name] for f in fields(Joins)))
    except DAMAGED_ARRAYS as error:
        raise VolumeError(path, f"cannot be read ({error})", remedy="run instances again") from None


def joins_of_map(ids: Ids) -> Joins:
    """Contacts of a map of which nothing else is known.

    Args:
        ids: (X, Y, Z), 0 none.
    """
    pairs, places, _, sides = contacts(ids)
    known, sizes = fastremap.unique(ids, return_counts=True)
    size = sizes[np.searchsorted(known, pairs)] if len(pairs) else np.zeros((0, 2), np.int64)
    unknown = np.full(len(pairs), np.nan, np.float32)
    return Joins(pairs, unknown, places, size.min(1, initial=np.iinfo(np.int64).max), sides)


def joins_of_fragments(
    fragments: Ids,
    objects: NDArray[np.int64],
    edges: NDArray[np.int64],
    logits: NDArray[np.float64],
    sizes: NDArray[np.int64],
) -> Joins:
    """Contacts and inner joins of objects that are made of fragments.

    Two objects are as likely one as the surest of their contacts says, weighted by its area. An
    object's parts are held together by a tree of its surest joins: each of its joins parts it in
    two, and the smaller one is what a cut there would change.

    Args:
        fragments: (X, Y, Z) their ids.
        objects: (F + 1,) the object of each, 0 none.
        edges: (E, 2) fragments that touch.
        logits: (E,) log odds of each contact.
        sizes: (F + 1,) voxels of each fragment.
    """
    pairs, places, areas, sides = contacts(fragments)
    keys = {(int(a), int(b)): n for n, (a, b) in enumerate(pairs)}
    at = np.array([keys.get((int(a), int(b)), -1) for a, b in np.sort(edges, 1)], np.int64)
    seen = at >= 0
    edges, logits, at = np.sort(edges, 1)[seen], logits[seen], at[seen]
    owners = objects[edges]
    here = (owners > 0).all(1)
    total = np.bincount(objects, sizes, int(objects.max(initial=0)) + 1).astype(np.int64)
    inner = here & (owners[:, 0] == owners[:, 1])
    tree, smaller = _trees(edges[inner], logits[inner], sizes)
    inside = np.flatnonzero(inner)[tree]
    between, group = _between(np.sort(owners, 1), here & (owners[:, 0] != owners[:, 1]))
    best = _surest(group, logits[between], areas[at[between]])
    joined = owners[between][best]
    return Joins(
        np.concatenate([joined, owners[inside]]).astype(np.int64),
        np.concatenate([logits[between][best], logits[inside]]).astype(np.float32),
        np.concatenate([places[at[between]][best], places[at[inside]]]).astype(np.int32),
        np.concatenate([total[joined].min(1, initial=np.iinfo(np.int64).max), smaller]),
        np.concatenate([sides[at[between]][best], sides[at[inside]]]),
    )


def ends_of_map(ids: Ids, voxel_size_nm: Sequence[float]) -> Joins:
    """Tips of long objects that lie inside the volume: where they would go on, if they did.

    The two voxels farthest apart along an object's longest direction.

    Args:
        ids: (X, Y, Z), 0 none.
        voxel_size_nm: (x, y, z).
    """
    compact, table = fastremap.renumber(ids, preserve_zero=True)
    real = {int(new): int(old) for old, new in table.items()}
    found = cc3d.statistics(compact)
    size = np.asarray(ids.shape)
    rows: list[tuple[int, Triple, int]] = []
    for n, count in enumerate(np.asarray(found["voxel_counts"]).tolist()):
        if n == 0 or count < LEAST_LONG:
            continue
        box = found["bounding_boxes"][n]
        voxels = np.argwhere(compact[box] == n)
        voxels = voxels[:: max(1, len(voxels) // SAMPLED)] + [s.start for s in box]
        space = (voxels - voxels.mean(0)) * np.asarray(voxel_size_nm)
        _, widths, directions = np.linalg.svd(space, full_matrices=False)
        if widths[0] < LONG * widths[1]:
            continue
        along = space @ directions[0]
        for tip in voxels[[int(np.argmin(along)), int(np.argmax(along))]]:
            if ((tip >= BORDER) & (tip < size - BORDER)).all():
                rows.append((real[n], (int(tip[0]), int(tip[1]), int(tip[2])), count))
    places = np.array([place for _, place, _ in rows], np.int32).reshape(-1, 3)
    return Joins(
        np.array([(i, 0) for i, _, _ in rows], np.int64).reshape(-1, 2),
        np.full(len(rows), np.nan, np.float32),
        places,
        np.array([count for _, _, count in rows], np.int64),
        np.stack([places, places], 1),
    )


def contacts(
    ids: Ids,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Which ids of a map touch by faces of voxels.

    Returns:
        (C, 2) pairs, the smaller id first, ascending; (C, 3) the mean place of each contact;
        (C,) its faces; (C, 2, 3) two voxels that touch there, in the order of the pair.
    """
    names = fastremap.unique(ids)
    compact = np.searchsorted(names, ids)
    base = len(names)
    keys, sums, counts, touching = [], [], [], []
    for axis in range(3):
        one, two = (
            compact.take(range(ids.shape[axis] - 1), axis),
            compact.take(range(1, ids.shape[axis]), axis),
        )
        at = np.nonzero((one != two) & (names[one] > 0) & (names[two] > 0))
        a, b = one[at], two[at]
        found, first, index, count = np.unique(
            np.minimum(a, b) * base + np.maximum(a, b),
            return_index=True, return_inverse=True, return_counts=True,
        )  # fmt: skip
        keys.append(found)
        counts.append(count)
        sums.append(np.stack([np.bincount(index, c, len(found)) for c in at], 1))
        here = np.stack([c[first] for c in at], 1)
        both = np.stack([here, here + np.eye(3, dtype=np.int64)[axis]], 1)
        touching.append(np.where((a[first] > b[first])[:, None, None], both[:, ::-1], both))
    every, first, index = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    faces = np.bincount(index.ravel(), np.concatenate(counts), len(every)).astype(np.int64)
    place = np.zeros((len(every), 3))
    np.add.at(place, index.ravel(), np.concatenate(sums))
    pairs = np.stack([names[every // base], names[every % base]], 1).astype(np.int64)
    middle = (place / np.maximum(faces, 1)[:, None]).astype(np.int32)
    return pairs, middle, faces, np.concatenate(touching)[first].astype(np.int32)


def _between(
    owners: NDArray[np.int64], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges between objects, and for each the number of its pair of objects."""
    rows = np.flatnonzero(wanted)
    if not len(rows):
        return rows, rows
    _, group = np.unique(owners[rows], axis=0, return_inverse=True)
    return rows, group.ravel()


def _surest(
    group: NDArray[np.int64], logits: NDArray[np.float64], areas: NDArray[np.int64]
) -> NDArray[np.int64]:
    """One edge of each group: the one that speaks most for a join, by its area."""
    weight = logits * np.sqrt(areas)
    order = np.lexsort((weight, group))
    last = np.flatnonzero(np.append(np.diff(group[order]) > 0, True)) if len(group) else order
    found: NDArray[np.int64] = order[last]
    return found


def _trees(
    edges: NDArray[np.int64], logits: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The joins that hold objects together, and the voxels of the smaller part of each.

    Returns:
        (T,) rows of `edges`, (T,) voxels.
    """
    count = len(sizes)
    if not len(edges):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    dear = FAR - logits.clip(-FAR / 2, FAR / 2)  # above 0: a sparse matrix knows no zeros
    graph = coo_matrix((dear, (edges[:, 0], edges[:, 1])), (count, count)).tocsr()
    tree = minimum_spanning_tree(graph)
    rows = {(int(a), int(b)): n for n, (a, b) in enumerate(edges)}
    both = tree + tree.T
    below = sizes.astype(np.int64).copy()
    parent = np.full(count, -1, np.int64)
    root = np.full(count, -1, np.int64)
    for start in np.unique(edges[:, 0]).tolist():
        if root[start] >= 0:
            continue
        order, before = depth_first_order(both, start, directed=False)
        root[order] = start
        parent[order] = before[order]
        for node in order[:0:-1].tolist():
            below[parent[node]] += below[node]
    found, smaller = [], []
    for node in np.flatnonzero(parent >= 0).tolist():
        edge = (min(node, int(parent[node])), max(node, int(parent[node])))
        found.append(rows[edge])
        smaller.append(min(below[node], below[root[node]] - below[node]))
    return np.array(found, np.int64), np.array(smaller, np.int64)
