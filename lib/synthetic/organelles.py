"""Mitochondria and fat globules inside the cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.synthetic.anatomy import Anatomy
from lib.synthetic.classes import CELLS, Tissue
from lib.synthetic.curves import Points, random_direction, through
from lib.synthetic.noise import Field

_HOSTS = (Tissue.AXON, Tissue.DENDRITE, Tissue.GLIA)


@dataclass(frozen=True)
class Mitochondrion:
    """A bent rod.

    Args:
        points: (N, 3) nm centreline.
        radius: nm.
        host: object number of the cell it lies in, 0 for whichever cell it is in.
    """

    points: Points
    radius: float
    host: int


def add_organelles(anatomy: Anatomy, rng: np.random.Generator) -> dict[int, Points]:
    """Draw mitochondria and fat globules deep enough inside cells.

    Returns:
        The long axis (3,) of each mitochondrion's object number, for its cristae.
    """
    depth = anatomy.depth()
    rods = _place_mitochondria(anatomy, depth, rng)
    axes = _draw_mitochondria(anatomy, depth, rods)
    _draw_globules(anatomy, depth, rng)
    return axes


def _place_mitochondria(
    anatomy: Anatomy, depth: Field, rng: np.random.Generator
) -> list[Mitochondrion]:
    """Rods along centrelines of neurites, and scattered in cell bodies and other cells."""
    frame = anatomy.frame
    s = frame.scale
    rods = []
    for cell, points, radius in anatomy.skeleton.stretches(_HOSTS):
        kind = anatomy.skeleton.kind[cell - 1]
        step = float(np.linalg.norm(points[1] - points[0])) if len(points) > 1 else 1.0
        share = {Tissue.AXON: 0.6, Tissue.DENDRITE: 1.6, Tissue.GLIA: 0.5}[kind]
        if radius < 45.0 * s or len(points) < 3:
            continue
        for _ in range(rng.poisson(share * len(points) * step / (900.0 * s))):
            size = int(np.clip(rng.uniform(350.0, 1200.0) * s / step, 3, len(points)))
            start = rng.integers(0, len(points) - size + 1)
            shift = random_direction(rng) * rng.uniform(0.0, 0.45) * radius
            thick = s * rng.uniform(75.0, 135.0)
            rods.append(Mitochondrion(points[start : start + size] + shift, thick, cell))
    roomy = np.isin(anatomy.fine, (Tissue.SOMA, Tissue.AXON)) & (depth > 70.0 * s)
    roomy &= anatomy.owner > len(anatomy.skeleton.kind)
    spots = np.flatnonzero(roomy)
    count = int(len(spots) * np.prod(frame.voxel_nm) / (3.2e7 * s**3))
    for spot in rng.choice(spots, min(count, len(spots)), replace=False) if len(spots) else ():
        middle = anatomy.position.reshape(-1, 3)[spot].astype(float)
        length = s * rng.uniform(250.0, 700.0)
        points = through(middle, random_direction(rng), length, 30.0 * s, 0.08, rng)
        host = int(anatomy.owner.reshape(-1)[spot])
        rods.append(Mitochondrion(points, s * rng.uniform(70.0, 110.0), host))
    return _apart(rods, 35.0 * s)


def _apart(rods: list[Mitochondrion], gap_nm: float) -> list[Mitochondrion]:
    """Drop rods that come too near to an earlier one in the same cell."""
    kept: dict[int, list[Mitochondrion]] = {}
    for rod in rods:
        others = kept.setdefault(rod.host, [])
        clear = (
            cKDTree(o.points).query(rod.points)[0].min() > o.radius + rod.radius + gap_nm
            for o in others
        )
        if all(clear):
            others.append(rod)
    return [rod for group in kept.values() for rod in group]


def _draw_mitochondria(
    anatomy: Anatomy, depth: Field, rods: list[Mitochondrion]
) -> dict[int, Points]:
    """Paint each rod where it is inside its own cell and off the membrane."""
    if not rods:
        return {}
    frame = anatomy.frame
    counts = [len(r.points) for r in rods]
    radius = np.repeat([r.radius for r in rods], counts)
    which = np.repeat(np.arange(len(rods)), counts)
    lift = np.sqrt(radius.max() ** 2 - radius**2)
    tree = cKDTree(np.column_stack([np.concatenate([r.points for r in rods]), lift]))
    margin = max(20.0 * frame.scale, 2.2 * frame.lateral_nm)
    hosts = np.isin(anatomy.fine, CELLS) & (depth > margin)
    index = np.flatnonzero(hosts)
    at = np.column_stack([anatomy.position.reshape(-1, 3)[index], np.zeros(len(index))])
    _, nearest = tree.query(at, distance_upper_bound=float(radius.max()))
    hit = nearest < len(which)
    index, rod = index[hit], which[nearest[hit]]
    own = anatomy.owner.reshape(-1)[index] == np.array([r.host for r in rods])[rod]
    index, rod = index[own], rod[own]
    axes = {}
    for i in np.unique(rod):
        owner = anatomy.new_owner()
        anatomy.paint(index[rod == i], Tissue.MITOCHONDRIA, owner)
        axis = rods[i].points[-1] - rods[i].points[0]
        axes[owner] = axis / (np.linalg.norm(axis) + 1e-9)
    return axes


def _draw_globules(anatomy: Anatomy, depth: Field, rng: np.random.Generator) -> None:
    """Paint round fat globules where a cell other than an axon has room."""
    frame = anatomy.frame
    s = frame.scale
    margin = max(18.0 * s, 2.0 * frame.lateral_nm)
    for _ in range(max(3, round(frame.volume_um3 / 4.0))):
        body = np.isin(anatomy.fine, (Tissue.GLIA, Tissue.SOMA, Tissue.DENDRITE))
        room = np.where(body, depth, 0.0).reshape(-1)
        if not room.any():
            return
        candidates = rng.choice(np.flatnonzero(room > 0.4 * float(room.max())), 6)
        spot = candidates[int(np.argmax(room[candidates]))]
        host = anatomy.owner.reshape(-1)[spot]
        middle = anatomy.position.reshape(-1, 3)[spot]
        radius = min(s * rng.uniform(80.0, 150.0), 1.5 * float(room[spot]))
        inside = np.linalg.norm(anatomy.position - middle, axis=-1) < radius
        inside &= (anatomy.owner == host) & (depth > margin) & body
        anatomy.paint(np.flatnonzero(inside), Tissue.FAT_GLOBULE, anatomy.new_owner())
