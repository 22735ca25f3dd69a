"""How large the patches of an item are."""

from __future__ import annotations

import numpy as np

from lib.data.items import DataItem
from lib.volumes.boxes import Triple

LARGEST_STRETCH = 3.0
"""How much a patch grows in plane at most where an item has few sections."""


def network_patch(patch_size: Triple, spatial_dims: int) -> Triple:
    """`data.patch_size` for a network: single sections of as many voxels where it has two axes."""
    if spatial_dims == 3:
        return patch_size
    stretch = min(patch_size[2] ** 0.5, LARGEST_STRETCH)
    x, y = (_round16(p * stretch) for p in patch_size[:2])
    return x, y, 1


def patch_shape(item: DataItem, patch_size: Triple) -> Triple:
    """The patch shape for an item: about as many voxels as `patch_size`, in its proportions.

    Isotropic volumes get a cube. Items with fewer sections than the patch get wider patches,
    at most LARGEST_STRETCH times. Edges are multiples of 16 where the item is large enough.
    """
    if item.isotropic and patch_size[2] > 1:
        edge = _round16(float(np.prod(patch_size)) ** (1 / 3))
        x, y, z = (min(edge, n) for n in item.shape)
        return x, y, z
    depth = min(patch_size[2], item.shape[2])
    x, y = plane(item, patch_size, depth)
    return x, y, depth


def plane(item: DataItem, patch_size: Triple, depth: int) -> tuple[int, int]:
    """The in-plane size of a patch of `depth` sections, of about `patch_size`'s voxels."""
    stretch = min((patch_size[2] / depth) ** 0.5, LARGEST_STRETCH)
    x, y = (min(_round16(p * stretch), n) for p, n in zip(patch_size[:2], item.shape, strict=False))
    return x, y


def _round16(length: float) -> int:
    return max(16, 16 * round(length / 16))
