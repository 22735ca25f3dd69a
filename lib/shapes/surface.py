"""The surface of every object of a map at once, without meshes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import SphericalVoronoi


def surface_areas(
    ids: NDArray[np.unsignedinteger[Any]], voxel_size_nm: Sequence[float]
) -> NDArray[np.float64]:
    """Surface of each object.

    The Cauchy-Crofton formula: lines in 13 directions are laid through the voxels, and how often
    they enter and leave an object gives its surface, whatever the voxels' shape. Where an object
    ends with the volume it has no surface.

    Args:
        ids: (X, Y, Z), 0 none.
        voxel_size_nm: (x, y, z).

    Returns:
        (largest id + 1,) nm^2.

    Source: Lehmann & Legland 2012, "Efficient N-dimensional surface estimation using Crofton
    formula and run-length encoding".
    """
    size = np.asarray(voxel_size_nm, np.float64)
    steps = [s for s in product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]
    vectors = np.array(steps) * size
    lengths = np.linalg.norm(vectors, axis=1)
    weights = _solid_angles(vectors / lengths[:, None])
    area = np.zeros(int(ids.max(initial=0)) + 1)
    for step, length, weight in zip(steps, lengths, weights, strict=True):
        flip = tuple(slice(None, None, -1) if s < 0 else slice(None) for s in step)
        turned, offset = ids[flip], [abs(s) for s in step]
        a = turned[tuple(slice(0, n - d) for n, d in zip(ids.shape, offset, strict=True))]
        b = turned[tuple(slice(d, None) for d in offset)]
        ends = a != b
        crossings = np.bincount(a[ends], minlength=len(area)).astype(np.float64)
        crossings += np.bincount(b[ends], minlength=len(area))
        area += 2.0 * weight * crossings * size.prod() / length
    area[0] = 0.0
    return area


def _solid_angles(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of all directions that are nearer to each line than to the others; sum 1."""
    both = np.concatenate([directions, -directions])
    areas = SphericalVoronoi(both, 1.0).calculate_areas()
    share: NDArray[np.float64] = areas[: len(directions)] * 2 / areas.sum()
    return share
