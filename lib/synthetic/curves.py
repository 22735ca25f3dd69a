"""Centrelines of neurites, sheaths and vessels: smooth random walks in tissue space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A polyline with a frame at each point.

    Args:
        points: (N, 3) nm, evenly spaced.
        tangent: (N, 3) unit vectors along it.
        normal: (N, 3) unit vectors across it, turning as little as possible.
    """

    points: Points
    tangent: Points
    normal: Points

    @property
    def binormal(self) -> Points:
        """(N, 3), completes the frame."""
        return np.cross(self.tangent, self.normal)


def random_direction(rng: np.random.Generator) -> Points:
    """(3,) unit vector, uniform on the sphere."""
    v = rng.standard_normal(3)
    return np.asarray(v / np.linalg.norm(v))


def random_walk(
    start: Points,
    direction: Points,
    length_nm: float,
    step_nm: float,
    bend: float,
    rng: np.random.Generator,
) -> Points:
    """A walk whose direction drifts.

    Args:
        start: (3,) nm.
        direction: (3,) unit vector.
        length_nm: total length.
        step_nm: distance between points.
        bend: standard deviation of the change of direction for each step, smoothed.

    Returns:
        (N, 3) nm, N >= 2.
    """
    count = max(2, int(length_nm / step_nm) + 1)
    kicks = rng.normal(0.0, bend, (count, 3))
    drift = np.zeros(3)
    points = np.empty((count, 3))
    points[0] = start
    heading = direction
    for i in range(1, count):
        drift = 0.8 * drift + kicks[i]
        heading = heading + drift
        heading = heading / np.linalg.norm(heading)
        points[i] = points[i - 1] + step_nm * heading
    return points


def through(
    middle: Points,
    direction: Points,
    length_nm: float,
    step_nm: float,
    bend: float,
    rng: np.random.Generator,
) -> Points:
    """A walk both ways from `middle`; the arguments are those of `random_walk`.

    Returns:
        (N, 3) nm.
    """
    back = random_walk(middle, -direction, length_nm / 2, step_nm, bend, rng)
    forth = random_walk(middle, direction, length_nm / 2, step_nm, bend, rng)
    return np.concatenate([back[:0:-1], forth])


def with_frame(points: Points) -> Curve:
    """Tangents and parallel-transported normals of a polyline."""
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    first = np.eye(3)[int(np.argmin(np.abs(tangent[0])))]
    normal = np.empty_like(tangent)
    for i, t in enumerate(tangent):
        n = (first if i == 0 else normal[i - 1]) - 0.0
        n = n - (n @ t) * t
        normal[i] = n / np.linalg.norm(n)
    return Curve(points, tangent, normal)


@dataclass(frozen=True)
class Polar:
    """Coordinates around a curve of the voxels near it.

    Args:
        index: (M,) int64 into the flat grid.
        radius: (M,) nm from the curve.
        angle: (M,) radians, in the curve's frame.
        along: (M,) nm along the curve.
    """

    index: NDArray[np.int64]
    radius: NDArray[np.float32]
    angle: NDArray[np.float32]
    along: NDArray[np.float32]


def polar_around(curve: Curve, position: NDArray[np.float32], reach_nm: float) -> Polar:
    """Polar coordinates of all voxels nearer than `reach_nm` to the curve.

    Args:
        curve: evenly spaced points.
        position: (X, Y, Z, 3) nm, as tissue_positions gives them.
        reach_nm: the largest radius of interest.
    """
    flat = position.reshape(-1, 3)
    low, high = curve.points.min(0) - reach_nm, curve.points.max(0) + reach_nm
    index = np.flatnonzero(((flat >= low) & (flat <= high)).all(1))
    tree = cKDTree(curve.points)
    distance, nearest = tree.query(flat[index], distance_upper_bound=reach_nm)
    hit = np.isfinite(distance)
    index, nearest = index[hit], nearest[hit]
    offset = flat[index] - curve.points[nearest]
    ahead = np.einsum("ij,ij->i", offset, curve.tangent[nearest])
    across_n = np.einsum("ij,ij->i", offset, curve.normal[nearest])
    across_b = np.einsum("ij,ij->i", offset, curve.binormal[nearest])
    step = float(np.linalg.norm(curve.points[1] - curve.points[0]))
    return Polar(
        index,
        np.hypot(across_n, across_b).astype(np.float32),
        np.arctan2(across_b, across_n).astype(np.float32),
        (nearest * step + ahead).astype(np.float32),
    )
