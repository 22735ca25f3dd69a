"""Fragments: pieces that have no boundary inside, and that grouping never cuts again.

Each is the catchment basin of one place that is far from every boundary, and is known by that
place: two overlapping blocks that see the same place speak of the same fragment, so that a
block's faces cut none. Basins end inside objects too, which costs nothing: the fragment graph
joins them (lib/prediction/graph.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bioimage_cpp
import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.prediction.boundary import BoundaryScale, boundary_map, has_thick_sections
from lib.targets.pairs import Offset

SMOOTH = 0.5
"""Standard deviation of the boundary map's smoothing, in voxels of the finest axis."""
SMOOTH_DEPTH = 0.6
"""The same for the distance to the next boundary: one place a basin, not one a ripple."""
DEEPEST = 24
"""Distances beyond so many voxels count alike: blocks need see no further."""


def fragments_of_block(
    affinities: NDArray[np.float16],
    offsets: Sequence[Offset],
    foreground: NDArray[np.bool_],
    voxel_size_nm: Sequence[float],
    scale: BoundaryScale,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The fragments of one block.

    Args:
        affinities: (A, X, Y, Z) in [-1, 1] of the nearest offsets at least.
        offsets: A offsets.
        foreground: (X, Y, Z) voxels that can be objects.
        voxel_size_nm: (x, y, z).
        scale: of the whole volume, so that blocks agree.

    Returns:
        (X, Y, Z) uint32, 0 outside the foreground, fragments 1..N; and (N + 1,) int64, for
        each the voxel (C order) of the block that it is known by, -1 at index 0.

    Source: distance-transform watershed as in Beier et al. 2017 (multicut for connectomics).
    """
    boundary = boundary_map(affinities, offsets, foreground, voxel_size_nm)
    np.minimum(boundary / np.float32(scale.strong), 1.0, out=boundary)
    if boundary.shape[2] > 1 and not has_thick_sections(voxel_size_nm):
        found, places = _basins(boundary, foreground, voxel_size_nm, scale.inside)
        return found, np.concatenate([[-1], places])
    out = np.zeros(boundary.shape, np.uint32)
    known: list[NDArray[np.int64]] = [np.array([-1])]
    count, depth = 0, boundary.shape[2]
    for z in range(depth):
        found, places = _basins(
            boundary[..., z], foreground[..., z], voxel_size_nm[:2], scale.inside
        )
        found[found > 0] += np.uint32(count)
        count += len(places)
        out[..., z] = found
        known.append(places * depth + z)
    return out, np.concatenate(known)


def _basins(
    boundary: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    voxel_size_nm: Sequence[float],
    inside: float,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Catchment basins 1..N in two or three dimensions, and the (N,) voxels they are known by."""
    if not foreground.any():
        return np.zeros(boundary.shape, np.uint32), np.zeros(0, np.int64)
    finest = min(voxel_size_nm)
    spacing = [v / finest for v in voxel_size_nm]
    height = ndimage.gaussian_filter(boundary, [SMOOTH / s for s in spacing])
    interior = np.ascontiguousarray((height <= inside) & foreground)
    depth = edt.edt(interior, anisotropy=spacing, black_border=False)
    # where no boundary is in reach the distance is infinite
    depth = np.minimum(depth, np.float32(DEEPEST))
    depth = ndimage.gaussian_filter(depth, [SMOOTH_DEPTH / s for s in spacing])
    deepest = (ndimage.maximum_filter(depth, 3) == depth) & interior
    seeds = _pieces(deepest, 26 if deepest.ndim == 3 else 8)
    seeds = _seed_the_rest(seeds, foreground)
    flooded = bioimage_cpp.segmentation.watershed(
        np.ascontiguousarray(height), np.ascontiguousarray(seeds), mask=foreground
    )
    labels, first = np.unique(seeds, return_index=True)
    places = first[labels > 0].astype(np.int64)
    numbers = np.zeros(int(labels.max()) + 1, np.uint32)
    numbers[labels[labels > 0]] = np.arange(1, len(places) + 1)
    return numbers[np.asarray(flooded)], places


def _seed_the_rest(seeds: NDArray[np.uint32], foreground: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """A seed for every piece of the foreground that has none: all of a thin piece is boundary."""
    pieces = _pieces(foreground, 6 if foreground.ndim == 3 else 4)
    seeded = np.zeros(int(pieces.max()) + 1, np.bool_)
    seeded[np.unique(pieces[seeds > 0])] = True
    seeded[0] = True
    if not seeded.all():
        bare = ~seeded[pieces]
        seeds[bare] = seeds.max(initial=0) + pieces[bare]
    return seeds


def _pieces(mask: NDArray[np.bool_], connectivity: Any) -> NDArray[np.uint32]:
    """Connected components of a mask, 0 outside.

    As bytes: of booleans by corners cc3d 4.1.1 numbers voxels outside where an edge is odd.
    """
    bits = np.asarray(mask, np.uint8)
    found: NDArray[Any] = cc3d.connected_components(bits, connectivity=connectivity)
    return found.astype(np.uint32)
