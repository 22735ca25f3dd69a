"""Group the voxels of one block into objects by their affinities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import fastremap
import mwatershed
import numpy as np
import waterz
from numpy.typing import NDArray

from lib.configs.settings import InferenceSettings
from lib.targets.pairs import NEAREST, Offset

Labels = NDArray[np.uint32]
GroupBlock = Callable[
    [NDArray[np.float16], Sequence[Offset], NDArray[np.bool_], InferenceSettings], Labels
]
"""`group_block`, or something that calls it elsewhere."""

ABSORB_ROUNDS = 8


def group_block(
    affinities: NDArray[np.float16],
    offsets: Sequence[Offset],
    foreground: NDArray[np.bool_],
    inference: InferenceSettings,
) -> Labels:
    """Objects of one block.

    Args:
        affinities: (A, X, Y, Z) in [-1, 1]; partner of voxel v is v + offset.
        offsets: A offsets, the nearest ones first.
        foreground: (X, Y, Z) voxels that can be objects.
        inference: method, thresholds and the least size of an object.

    Returns:
        (X, Y, Z) uint32, 0 outside the foreground, objects from 1 on without gaps.
    """
    if not foreground.any():
        return np.zeros(foreground.shape, np.uint32)
    signed = separate_background(affinities, offsets, foreground)
    if inference.instance_method == "mutex":
        labels = mutex_watershed(signed, offsets, inference)
    else:
        labels = agglomerate(signed, offsets, inference)
    labels[~foreground] = 0
    compact = fastremap.renumber(labels, in_place=True)[0].astype(np.uint32, copy=False)
    nearest = [i for i, o in enumerate(offsets) if o in NEAREST]
    return absorb_small(
        compact, signed[nearest], [offsets[i] for i in nearest], inference.min_object_voxels
    )


def separate_background(
    affinities: NDArray[np.float16], offsets: Sequence[Offset], foreground: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Affinities as float32, with every pair that touches the background at -1."""
    signed = affinities.astype(np.float32)
    for channel, offset in enumerate(offsets):
        here, there = pair_slices(offset, foreground.shape)
        pair = signed[channel][here]
        pair[~(foreground[here] & foreground[there])] = -1.0
    return signed


def mutex_watershed(
    signed: NDArray[np.float32], offsets: Sequence[Offset], inference: InferenceSettings
) -> NDArray[np.uint64]:
    """Exact mutex watershed: all pairs by falling |affinity|, join or forbid to join.

    Source: Wolf et al. 2018, through the package `mwatershed` (which thresholds at zero).
    """
    weights = signed.astype(np.float64)
    for channel, offset in enumerate(offsets):
        if offset not in NEAREST:
            weights[channel] += inference.long_range_bias
    labels: NDArray[np.uint64] = mwatershed.agglom(weights, [list(o) for o in offsets])
    return labels


def agglomerate(
    signed: NDArray[np.float32], offsets: Sequence[Offset], inference: InferenceSettings
) -> NDArray[np.uint64]:
    """Watershed fragments of the nearest affinities, joined by mean affinity.

    Source: Funke et al. 2019, through the package `waterz`.
    """
    shape = signed.shape[1:]
    nearest = np.zeros((3, *shape), np.float32)
    for channel, offset in enumerate(offsets):
        if offset in NEAREST:
            # waterz: channel a of voxel v is the pair (v - 1, v) along its axis a
            nearest[NEAREST.index(offset)] = np.roll(signed[channel], offset, (0, 1, 2))
    for axis in range(3):
        nearest[axis][tuple(slice(0, 1) if a == axis else slice(None) for a in range(3))] = 0.0
    unit = np.clip((nearest + 1.0) / 2.0, 0.0, 1.0)
    results = waterz.agglomerate(unit, thresholds=[inference.agglomeration_threshold])
    return np.array(next(iter(results)), np.uint64)


def absorb_small(
    labels: Labels,
    nearest: NDArray[np.float32],
    offsets: Sequence[Offset],
    min_voxels: int,
) -> Labels:
    """Give objects below a size to the neighbour they have the highest mean affinity with.

    What touches no other object stays as it is; what is still small at the end is for the
    caller to remove, who sees the whole object.

    Args:
        labels: (X, Y, Z) uint32, 0 none, without gaps.
        nearest: (N, X, Y, Z) affinities of the nearest offsets.
        offsets: the N offsets.
        min_voxels: least size.

    Returns:
        (X, Y, Z) uint32 without gaps.
    """
    for _ in range(ABSORB_ROUNDS):
        sizes = np.bincount(labels.ravel())
        small = sizes < min_voxels
        small[0] = False
        if not small.any():
            break
        one, other, mean = _contacts(labels, nearest, offsets, small)
        if not len(one):
            break
        target = np.arange(len(sizes), dtype=np.uint32)
        order = np.lexsort((other, mean))  # the last entry of an object wins: its best neighbour
        target[one[order]] = other[order]
        # A small object may itself be moved on, so only steps up in (size, id) are taken:
        # that leaves no cycles.
        rank = np.lexsort((np.arange(len(sizes)), sizes))
        height = np.empty(len(sizes), np.int64)
        height[rank] = np.arange(len(sizes))
        target = np.where(height[target] > height, target, np.arange(len(sizes), dtype=np.uint32))
        if (target == np.arange(len(sizes))).all():
            break
        while (deeper := target[target]).tolist() != target.tolist():
            target = deeper
        labels = fastremap.renumber(target[labels])[0].astype(np.uint32, copy=False)
    return labels


def _contacts(
    labels: Labels,
    nearest: NDArray[np.float32],
    offsets: Sequence[Offset],
    small: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(small object, its neighbour, mean affinity of their contact), ascending and distinct."""
    keys, weights = [], []
    count = len(small)
    for affinity, offset in zip(nearest, offsets, strict=True):
        here, there = pair_slices(offset, labels.shape)
        a, b = labels[here].ravel(), labels[there].ravel()
        touching = (a != b) & (a != 0) & (b != 0) & (small[a] | small[b])
        a, b = a[touching].astype(np.int64), b[touching].astype(np.int64)
        value = affinity[here].ravel()[touching].astype(np.float64)
        keys += [a * count + b, b * count + a]
        weights += [value, value]
    pairs, index = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(index, np.concatenate(weights), len(pairs))
    one, other = np.divmod(pairs, count)
    mean = total / np.bincount(index, minlength=len(pairs))
    keep = small[one]
    return one[keep], other[keep], mean[keep]


def pair_slices(
    offset: Offset, shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index of the first and of the second voxels of all pairs inside an array."""
    here = tuple(slice(0, max(n - d, 0)) for n, d in zip(shape, offset, strict=True))
    there = tuple(slice(min(d, n), None) for n, d in zip(shape, offset, strict=True))
    return here, there
