"""Everything in the volume that is not a plain neurite: somata, sheaths, vessels, gaps, tears."""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

from lib.synthetic.cells import Skeleton, assign_cells, grow_skeleton
from lib.synthetic.classes import Tissue
from lib.synthetic.curves import Points, polar_around, random_direction, through, with_frame
from lib.synthetic.noise import Field, Frame, smooth_noise


@dataclass
class Anatomy:
    """Labels while they are drawn.

    Args:
        frame: the grid.
        position: (X, Y, Z, 3) float32 nm in tissue space.
        fine: (X, Y, Z) int8 class of each voxel.
        owner: (X, Y, Z) uint32 object of each voxel, 0 none; one class for each object.
        skeleton: centrelines of the neurites, whose cell numbers are their owners.
        lamella: (X, Y, Z) float32, nm into a sheath, for its texture; NaN outside.
        next_owner: the next free object number.
    """

    frame: Frame
    position: Field
    fine: NDArray[np.int8]
    owner: NDArray[np.uint32]
    skeleton: Skeleton
    lamella: Field
    next_owner: int

    def new_owner(self) -> int:
        """A free object number."""
        self.next_owner += 1
        return self.next_owner - 1

    def paint(self, where: NDArray[np.int64], tissue: Tissue, owner: int) -> None:
        """Give flat voxel indices to an object."""
        self.fine.reshape(-1)[where] = tissue
        self.owner.reshape(-1)[where] = owner

    def depth(self) -> Field:
        """(X, Y, Z) float32: nm from each voxel to the nearest one of another object."""
        flat = edt.edt(self.owner, anisotropy=self.frame.voxel_nm, parallel=1)
        return np.asarray(np.minimum(flat, 1e6), np.float32)


def build_cells(frame: Frame, position: Field, rng: np.random.Generator) -> Anatomy:
    """Cells, myelinated axons, vessels and the space between them; no organelles but nuclei."""
    skeleton = grow_skeleton(frame, rng)
    owner = assign_cells(skeleton, position)
    kinds = np.array([0, *skeleton.kind], np.int8)
    anatomy = Anatomy(
        frame,
        position,
        kinds[owner],
        owner,
        skeleton,
        np.full(frame.shape, np.nan, np.float32),
        len(skeleton.kind) + 1,
    )
    corner = rng.permutation(4)
    size = frame.volume_um3
    nuclei = [
        _add_soma(anatomy, _corner(frame, int(corner[0]), rng), rng)
        for _ in range(max(1, round(size / 40.0)))
    ]
    for i in range(max(1, round(size / 25.0))):
        _add_vessel(anatomy, _pillar(frame, int(corner[1]), 0.1, rng, first=i == 0), rng)
    sheaths = [
        _add_sheath(anatomy, _pillar(frame, int(corner[2]), 0.32, rng, first=i == 0), rng)
        for i in range(max(1, round(size / 11.0)))
    ]
    _open_gaps(anatomy, rng)
    for parts in sheaths:
        _fill_sheath(anatomy, parts)
    for where in nuclei:
        body = anatomy.fine.reshape(-1)[where] == Tissue.SOMA
        anatomy.paint(where[body], Tissue.NUCLEUS, anatomy.new_owner())
    return anatomy


def _corner(frame: Frame, which: int, rng: np.random.Generator) -> Points:
    """A point near one of the four lateral corners, anywhere in depth."""
    at = np.array([which & 1, which >> 1, rng.random()], float)
    at[:2] = np.where(at[:2] > 0, 0.97, 0.03)
    return np.asarray(at * frame.extent_nm)


def _pillar(
    frame: Frame, which: int, inset: float, rng: np.random.Generator, first: bool
) -> tuple[Points, Points]:
    """A point and a direction: the first one is upright near a corner, others are anywhere."""
    if not first:
        return rng.random(3) * frame.extent_nm, random_direction(rng)
    at = np.array([which & 1, which >> 1, 0.5], float)
    at[:2] = np.where(at[:2] > 0, 1.0 - inset, inset)
    tilt = np.array([*rng.normal(0.0, 0.12, 2), 1.0])
    return np.asarray(at * frame.extent_nm), np.asarray(tilt / np.linalg.norm(tilt))


def _add_soma(anatomy: Anatomy, centre: Points, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a cell body; returns the voxels of its nucleus, to be drawn when gaps are open."""
    s = anatomy.frame.scale
    radii = s * rng.uniform(780.0, 1000.0) * rng.uniform(0.9, 1.1, 3)
    offset = (anatomy.position - centre.astype(np.float32)) / radii.astype(np.float32)
    level = np.linalg.norm(offset, axis=-1).reshape(-1)
    owner = anatomy.new_owner()
    anatomy.paint(np.flatnonzero(level < 1.0), Tissue.SOMA, owner)
    return np.flatnonzero(level < 0.7)


def _add_vessel(anatomy: Anatomy, place: tuple[Points, Points], rng: np.random.Generator) -> None:
    """An open vessel of extracellular space with a thin wall of glia."""
    frame = anatomy.frame
    s = frame.scale
    lumen = s * rng.uniform(170.0, 260.0)
    wall = max(s * rng.uniform(60.0, 90.0), 4.0 * frame.lateral_nm)
    length = 2.5 * float(frame.extent_nm.max())
    curve = with_frame(through(*place, length, 20.0 * s, 0.006, rng))
    polar = polar_around(curve, anatomy.position, lumen + wall)
    owner = anatomy.new_owner()
    inside = polar.radius < lumen * (1.0 + 0.2 * np.cos(2 * polar.angle))
    anatomy.paint(polar.index[~inside], Tissue.GLIA, owner)
    anatomy.paint(polar.index[inside], Tissue.EXTRACELLULAR, 0)


@dataclass(frozen=True)
class _Sheath:
    """Voxels of the parts of one myelinated axon."""

    axon: NDArray[np.int64]
    inner: NDArray[np.int64]
    myelin: NDArray[np.int64]
    outer: NDArray[np.int64]


def _add_sheath(
    anatomy: Anatomy, place: tuple[Points, Points], rng: np.random.Generator
) -> _Sheath:
    """Draw a myelinated axon as one body; returns its parts, to be drawn when gaps are open."""
    frame = anatomy.frame
    s, fine = frame.scale, frame.lateral_nm
    inner_radius = s * rng.uniform(170.0, 250.0)
    thickness = max(s * rng.uniform(75.0, 110.0), 6.0 * fine)
    tongue = max(s * 45.0, 4.0 * fine)
    length = 2.5 * float(frame.extent_nm.max())
    curve = with_frame(through(*place, length, 20.0 * s, 0.006, rng))
    polar = polar_around(curve, anatomy.position, 1.3 * (inner_radius + thickness + 2 * tongue))
    phase = rng.uniform(0.0, 2 * np.pi, 4)
    twist = polar.along / (900.0 * s)
    ripple = (
        1.0
        + 0.12 * np.cos(2 * polar.angle + phase[0])
        + 0.05 * np.cos(3 * polar.angle + phase[1] + twist)
    )
    radius = polar.radius / ripple
    inner_edge = inner_radius + tongue * _bump(polar.angle - phase[2] - 0.5 * twist, 1.0)
    myelin_edge = inner_edge + thickness
    outer_edge = myelin_edge + tongue * _bump(polar.angle - phase[3] + 0.4 * twist, 0.8)
    body = radius < outer_edge
    anatomy.paint(polar.index[body], Tissue.MYELIN, anatomy.new_owner())
    ring = (radius >= inner_edge) & (radius < myelin_edge)
    anatomy.lamella.reshape(-1)[polar.index[ring]] = (radius - inner_edge)[ring]
    return _Sheath(
        polar.index[radius < inner_radius],
        polar.index[(radius >= inner_radius) & (radius < inner_edge)],
        polar.index[ring],
        polar.index[(radius >= myelin_edge) & body],
    )


def _bump(angle: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """1 at angle 0, 0 beyond `width` radians, smooth between."""
    folded = np.abs(np.angle(np.exp(1j * angle)))
    return np.where(folded < width, np.cos(0.5 * np.pi * folded / width), 0.0).astype(np.float32)


def _fill_sheath(anatomy: Anatomy, parts: _Sheath) -> None:
    """Turn the body of a sheath into axon, tongues and myelin (one object each)."""
    flat = anatomy.fine.reshape(-1)
    for where, tissue in (
        (parts.axon, Tissue.AXON),
        (parts.inner, Tissue.INNER_TONGUE),
        (parts.outer, Tissue.OUTER_TONGUE),
    ):
        anatomy.paint(where[flat[where] == Tissue.MYELIN], tissue, anatomy.new_owner())


def _open_gaps(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Part the cells: extracellular space of varying width, and one tear.

    A tear runs along cell borders inside a flat lens, where the gap is much wider.
    """
    frame = anatomy.frame
    s, fine = frame.scale, frame.lateral_nm
    depth = anatomy.depth()
    noise = smooth_noise(frame, 260.0 * s, rng)
    gap = 1.05 * fine + 30.0 * s * np.maximum(noise - 0.1, 0.0) ** 1.3
    gap = np.where(smooth_noise(frame, 330.0 * s, rng) < -0.7, 0.0, gap)  # cells that touch
    space = (depth <= gap) & (anatomy.fine != Tissue.MYELIN) & (anatomy.owner > 0)
    normal = random_direction(rng) * (1.0, 1.0, 0.3)
    normal = (normal / np.linalg.norm(normal)).astype(np.float32)
    for _ in range(max(1, round(frame.volume_um3 / 30.0))):
        middle = (0.2 + 0.6 * rng.random(3)) * frame.extent_nm
        offset = anatomy.position - middle.astype(np.float32)
        across = offset @ normal
        around = np.linalg.norm(offset - across[..., None] * normal, axis=-1)
        lens = 1.0 - (around / (520.0 * s)) ** 2 - (across / (130.0 * s)) ** 2
        lens += 0.25 * smooth_noise(frame, 200.0 * s, rng)
        wide = (lens > 0) & (depth <= 2.0 * fine + 42.0 * s * np.clip(lens, 0, 1))
        soft = ~np.isin(anatomy.fine, (Tissue.MYELIN, Tissue.SOMA))
        tear = wide & soft & (anatomy.owner > 0)
        anatomy.paint(np.flatnonzero(tear), Tissue.TEAR, 0)
        space &= ~tear
    anatomy.paint(np.flatnonzero(space), Tissue.EXTRACELLULAR, 0)
