"""The pairs of voxels that are asked whether they belong together: a voxel and its partners.

Training (lib/losses/near.py) and prediction (lib/prediction/affinities.py) ask the same pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

Offset = tuple[int, int, int]

NEAREST: tuple[Offset, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def pair_offsets(
    voxel_size_nm: Sequence[float], reach: Sequence[int], shape: Sequence[int]
) -> tuple[Offset, ...]:
    """The nearest neighbours and long-range partners along each axis.

    Args:
        voxel_size_nm: (x, y, z); long-range partners lie equally far in nm along each axis.
        reach: distances in voxels of the finest axis.
        shape: of the window; partners outside it are left out (a 2D image has none in z).

    Returns:
        Distinct offsets, nearest first; the nearest of an axis of one voxel is left out.
    """
    finest = min(voxel_size_nm)
    offsets = [o for o, size in zip(NEAREST, shape, strict=True) if size > 1]
    for distance in reach:
        for axis in range(3):
            steps = round(distance * finest / voxel_size_nm[axis])
            offset = tuple(steps if a == axis else 0 for a in range(3))
            # a partner more than half a window away is seen by few windows and at their rims
            if steps > 1 and 2 * steps <= shape[axis] and offset not in offsets:
                offsets.append((offset[0], offset[1], offset[2]))
    return tuple(offsets)
