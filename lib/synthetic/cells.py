"""Cells that fill the volume: a power diagram of tubes around random centrelines."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from lib.synthetic.classes import Tissue
from lib.synthetic.curves import Points, random_direction, random_walk, through
from lib.synthetic.noise import Frame

_AXON, _DENDRITE, _GLIA = Tissue.AXON, Tissue.DENDRITE, Tissue.GLIA


@dataclass
class Skeleton:
    """Centrelines of all cells, as one point list.

    Args:
        points: chunks of (n, 3) nm.
        radius: the nominal radius of each chunk, nm.
        cell: the cell of each chunk, counted from 1.
        kind: the class of cell i + 1.
    """

    points: list[Points] = field(default_factory=list)
    radius: list[float] = field(default_factory=list)
    cell: list[int] = field(default_factory=list)
    kind: list[Tissue] = field(default_factory=list)

    def new_cell(self, kind: Tissue) -> int:
        """Register a cell; returns its number."""
        self.kind.append(kind)
        return len(self.kind)

    def add(self, cell: int, points: Points, radius: float) -> None:
        """Add a stretch of centreline to a cell."""
        self.points.append(points)
        self.radius.append(radius)
        self.cell.append(cell)

    def stretches(self, kinds: tuple[Tissue, ...]) -> list[tuple[int, Points, float]]:
        """(cell, points, radius) of the stretches of cells of the given classes."""
        rows = zip(self.cell, self.points, self.radius, strict=True)
        return [row for row in rows if self.kind[row[0] - 1] in kinds]


def grow_skeleton(frame: Frame, rng: np.random.Generator) -> Skeleton:
    """Random axons, dendrites with spines and branching glia, in numbers that fill the volume."""
    skeleton = Skeleton()
    size = frame.volume_um3
    bundle = random_direction(rng)
    for _ in range(max(2, round(0.8 * size))):
        _grow_dendrite(skeleton, frame, rng)
    for _ in range(max(1, round(0.5 * size))):
        _grow_glia(skeleton, frame, rng)
    for _ in range(max(6, round(6.5 * size))):
        _grow_axon(skeleton, frame, bundle, rng)
    return skeleton


def assign_cells(skeleton: Skeleton, position: NDArray[np.float32]) -> NDArray[np.uint32]:
    """The cell each voxel belongs to: the nearest centreline, thicker ones reaching farther.

    The power distance d^2 - r^2 is the plain distance in four dimensions with the fourth
    coordinate sqrt(r_max^2 - r^2), so that one k-d tree answers for all voxels.

    Args:
        skeleton: centrelines in tissue space.
        position: (X, Y, Z, 3) nm.

    Returns:
        (X, Y, Z) uint32, cell numbers from 1.
    """
    counts = [len(p) for p in skeleton.points]
    radius = np.repeat(skeleton.radius, counts)
    owner = np.repeat(skeleton.cell, counts).astype(np.uint32)
    lift = np.sqrt(radius.max() ** 2 - radius**2)
    tree = cKDTree(np.column_stack([np.concatenate(skeleton.points), lift]))
    coarse = _nearest(tree, owner, position[::2, ::2].reshape(-1, 3))
    coarse = coarse.reshape(position[::2, ::2].shape[:3])
    cells = coarse.repeat(2, 0).repeat(2, 1)[: position.shape[0], : position.shape[1]].copy()
    # Only near a border can the other three voxels of four belong to another cell.
    border = ndimage.maximum_filter(coarse, (3, 3, 1)) != ndimage.minimum_filter(coarse, (3, 3, 1))
    border = border.repeat(2, 0).repeat(2, 1)[: position.shape[0], : position.shape[1]]
    cells[border] = _nearest(tree, owner, position[border])
    return cells


def _nearest(
    tree: cKDTree, owner: NDArray[np.uint32], position: NDArray[np.float32]
) -> NDArray[np.uint32]:
    """(M,) owner of the nearest tree point to each of (M, 3) positions."""
    found = np.empty(len(position), np.uint32)
    for start in range(0, len(position), 1 << 18):
        part = position[start : start + (1 << 18)]
        _, nearest = tree.query(np.column_stack([part, np.zeros(len(part), np.float32)]))
        found[start : start + len(part)] = owner[nearest]
    return found


def _grow_axon(skeleton: Skeleton, frame: Frame, bundle: Points, rng: np.random.Generator) -> None:
    s = frame.scale
    heading = random_direction(rng)
    if rng.random() < 0.4:
        heading = bundle + 0.25 * heading
        heading = heading / np.linalg.norm(heading)
    radius = s * float(np.clip(rng.lognormal(np.log(95.0), 0.35), 50.0, 210.0))
    length = 1.8 * float(np.linalg.norm(frame.extent_nm))
    middle = _roomiest(skeleton, frame, rng)
    points = through(middle, heading, length, 45.0 * s, 0.035, rng)
    points = _near(points, frame)
    cell = skeleton.new_cell(_AXON)
    # Axons swell into boutons: pieces of the centreline carry larger radii.
    pieces = max(1, len(points) // 10)
    for piece in np.array_split(points, pieces):
        swell = 1.0 + (0.9 * rng.random() if rng.random() < 0.25 else 0.0)
        skeleton.add(cell, piece, radius * swell)


def _grow_dendrite(skeleton: Skeleton, frame: Frame, rng: np.random.Generator) -> None:
    s = frame.scale
    radius = s * rng.uniform(200.0, 330.0)
    length = 1.8 * float(np.linalg.norm(frame.extent_nm))
    middle = _roomiest(skeleton, frame, rng)
    points = _near(through(middle, random_direction(rng), length, 45.0 * s, 0.015, rng), frame)
    cell = skeleton.new_cell(_DENDRITE)
    skeleton.add(cell, points, radius)
    for _ in range(rng.integers(2, 6)):
        root = points[rng.integers(len(points))]
        outward = random_direction(rng)
        neck = random_walk(
            root, outward, radius + s * rng.uniform(250.0, 600.0), 30.0 * s, 0.03, rng
        )
        skeleton.add(cell, neck, 55.0 * s)
        skeleton.add(cell, neck[-4:], s * rng.uniform(90.0, 190.0))


def _grow_glia(skeleton: Skeleton, frame: Frame, rng: np.random.Generator) -> None:
    s = frame.scale
    cell = skeleton.new_cell(_GLIA)
    root = rng.random(3) * frame.extent_nm
    for _ in range(rng.integers(3, 6)):
        branch = random_walk(
            root, random_direction(rng), s * rng.uniform(1000.0, 2600.0), 45.0 * s, 0.09, rng
        )
        skeleton.add(cell, branch, s * rng.uniform(60.0, 160.0))
        for _ in range(rng.integers(2, 5)):
            twig_root = branch[rng.integers(len(branch))]
            twig = random_walk(
                twig_root, random_direction(rng), s * rng.uniform(300.0, 900.0), 45.0 * s, 0.15, rng
            )
            skeleton.add(cell, twig, s * rng.uniform(30.0, 90.0))


def _roomiest(skeleton: Skeleton, frame: Frame, rng: np.random.Generator) -> Points:
    """Of some random points, the one farthest from every centreline so far."""
    candidates = rng.random((12, 3)) * frame.extent_nm
    if not skeleton.points:
        return np.asarray(candidates[0])
    taken = np.concatenate([p[::4] for p in skeleton.points])
    distance, _ = cKDTree(taken).query(candidates)
    return np.asarray(candidates[int(np.argmax(distance))])


def _near(points: Points, frame: Frame) -> Points:
    """The points in the volume or less than 500 nm (scaled) outside; at least two."""
    margin = 500.0 * frame.scale
    keep = ((points > -margin) & (points < frame.extent_nm + margin)).all(1)
    return points[keep] if keep.sum() >= 2 else points[:2]
