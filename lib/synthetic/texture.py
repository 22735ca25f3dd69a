"""What the inside of each class looks like: grey values before the microscope's noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from lib.synthetic.anatomy import Anatomy
from lib.synthetic.classes import CELLS, Tissue
from lib.synthetic.curves import Points
from lib.synthetic.noise import Field, Frame, grain, smooth_noise

_GREY = {
    Tissue.EXTRACELLULAR: 205.0,
    Tissue.TEAR: 243.0,
    Tissue.DENDRITE: 182.0,
    Tissue.AXON: 160.0,
    Tissue.SOMA: 150.0,
    Tissue.GLIA: 196.0,
    Tissue.MYELIN: 52.0,
    Tissue.INNER_TONGUE: 150.0,
    Tissue.OUTER_TONGUE: 140.0,
    Tissue.NUCLEUS: 158.0,
    Tissue.MITOCHONDRIA: 108.0,
    Tissue.FAT_GLOBULE: 66.0,
}
_SPREAD = {
    Tissue.DENDRITE: 6.0,
    Tissue.AXON: 10.0,
    Tissue.GLIA: 5.0,
    Tissue.MITOCHONDRIA: 9.0,
    Tissue.FAT_GLOBULE: 10.0,
}
_GRAIN = {  # amplitude of the cytoplasm's grain: (12 nm, 28 nm)
    Tissue.EXTRACELLULAR: (7.0, 5.0),
    Tissue.TEAR: (0.5, 0.0),
    Tissue.DENDRITE: (7.0, 5.0),
    Tissue.AXON: (10.0, 9.0),
    Tissue.SOMA: (12.0, 19.0),
    Tissue.GLIA: (6.0, 11.0),
    Tissue.MYELIN: (8.0, 4.0),
    Tissue.INNER_TONGUE: (9.0, 8.0),
    Tissue.OUTER_TONGUE: (9.0, 8.0),
    Tissue.NUCLEUS: (9.0, 13.0),
    Tissue.MITOCHONDRIA: (8.0, 6.0),
    Tissue.FAT_GLOBULE: (2.0, 2.0),
}


def paint_tissue(anatomy: Anatomy, axes: dict[int, Points], rng: np.random.Generator) -> Field:
    """Grey values of the tissue, before imaging.

    Args:
        anatomy: finished labels.
        axes: long axis of each mitochondrion.
        rng: source of the textures.

    Returns:
        (X, Y, Z) float32, about 20 (stained) to 245 (empty resin).
    """
    frame = anatomy.frame
    fine = anatomy.fine
    depth = anatomy.depth()
    grey = _per_class(_GREY)[fine] + _owner_shift(anatomy, rng)[anatomy.owner]
    small, large = grain(frame, 12.0, rng), grain(frame, 28.0, rng)
    amplitude = np.array([_GRAIN[t] for t in Tissue], np.float32)
    grey += amplitude[fine, 0] * small + amplitude[fine, 1] * large
    _cristae(grey, anatomy, axes, depth, rng)
    _chromatin(grey, anatomy, depth, rng)
    _reticulum(grey, anatomy, depth, rng)
    _microtubules(grey, anatomy, depth, rng)
    density = _synapses_and_vesicles(grey, anatomy, depth, rng)
    _lamellae(grey, anatomy)
    return _membranes(grey, anatomy, depth, density, rng)


def _per_class(values: dict[Tissue, float]) -> NDArray[np.float32]:
    return np.array([values.get(t, 0.0) for t in Tissue], np.float32)


def _owner_shift(anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.float32]:
    """Each object's own brightness, by object number."""
    tissue = np.zeros(anatomy.next_owner, np.int8)
    tissue[anatomy.owner.reshape(-1)] = anatomy.fine.reshape(-1)
    shift = _per_class(_SPREAD)[tissue] * rng.standard_normal(len(tissue), dtype=np.float32)
    shift[0] = 0.0
    return shift


def _cristae(
    grey: Field, anatomy: Anatomy, axes: dict[int, Points], depth: Field, rng: np.random.Generator
) -> None:
    """Light and dark folds across each mitochondrion."""
    frame = anatomy.frame
    where = np.flatnonzero((anatomy.fine == Tissue.MITOCHONDRIA) & (depth > frame.lateral_nm))
    if not len(where):
        return
    lut = np.zeros((anatomy.next_owner, 3), np.float32)
    for owner, axis in axes.items():
        lut[owner] = axis
    axis = lut[anatomy.owner.reshape(-1)[where]]
    period = max(38.0, 4.2 * frame.lateral_nm)
    along = np.einsum("ij,ij->i", anatomy.position.reshape(-1, 3)[where], axis) / period
    bend = smooth_noise(frame, 90.0, rng).reshape(-1)[where]
    stripes = np.sin(2 * np.pi * along + 2.4 * bend)
    grey.reshape(-1)[where] += 26.0 * np.clip(1.6 * stripes, -1.0, 1.0)


def _chromatin(grey: Field, anatomy: Anatomy, depth: Field, rng: np.random.Generator) -> None:
    """Dark clumps in the nucleus, most of them along its envelope."""
    inside = anatomy.fine == Tissue.NUCLEUS
    s = anatomy.frame.scale
    clumps = smooth_noise(anatomy.frame, 130.0 * s, rng)
    rim = np.exp(-((depth - 55.0 * s) ** 2) / (2 * (35.0 * s) ** 2))
    level = clumps + 1.5 * rim - 0.75
    grey[inside] -= (42.0 / (1.0 + np.exp(-6.0 * level)))[inside]


def _reticulum(grey: Field, anatomy: Anatomy, depth: Field, rng: np.random.Generator) -> None:
    """Endoplasmic reticulum: thin dark sheets in cell bodies and some dendrites and axons."""
    frame = anatomy.frame
    sheet = smooth_noise(frame, 95.0 * max(frame.scale, 0.6), rng)
    where = smooth_noise(frame, 400.0 * frame.scale, rng)
    need = np.full(len(Tissue), np.inf, np.float32)
    need[[Tissue.SOMA, Tissue.DENDRITE, Tissue.GLIA]] = (-0.2, 0.7, 1.0)
    lines = (np.abs(sheet) < 0.13) & (where > need[anatomy.fine]) & (depth > 3 * frame.lateral_nm)
    grey[lines] -= 48.0


def _microtubules(grey: Field, anatomy: Anatomy, depth: Field, rng: np.random.Generator) -> None:
    """Fine dark filaments along dendrites, dots where they are cut across."""
    frame = anatomy.frame
    inside = (anatomy.fine == Tissue.DENDRITE) & (depth > 2.5 * frame.lateral_nm)
    curves = anatomy.skeleton.stretches((Tissue.DENDRITE,))
    main = [(p, r) for _, p, r in curves if len(p) > 20]
    if not main or not inside.any():
        return
    nearest = _nearest_tangent(anatomy, inside, [p for p, _ in main])
    where, tangent = nearest
    normal = np.cross(tangent, np.array([0.31, 0.55, 0.77], np.float32))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    binormal = np.cross(tangent, normal)
    at = anatomy.position.reshape(-1, 3)[where]
    spacing = max(85.0 * frame.scale, 8.0 * frame.lateral_nm)
    wobble = smooth_noise(frame, 250.0 * frame.scale, rng).reshape(-1)[where]
    u = np.einsum("ij,ij->i", at, normal) / spacing + 0.9 * wobble
    v = np.einsum("ij,ij->i", at, binormal) / spacing - 0.7 * wobble
    reach = np.hypot(u - np.round(u), v - np.round(v)) * spacing
    width = max(13.0, 1.1 * frame.lateral_nm)
    grey.reshape(-1)[where] -= 62.0 * np.exp(-((reach / width) ** 2))


def _nearest_tangent(
    anatomy: Anatomy, inside: NDArray[np.bool_], curves: list[Points]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Flat indices of `inside`, and the direction (M, 3) of the curve nearest to each."""
    where = np.flatnonzero(inside)
    coarse = [np.linspace(0, len(p) - 1, max(3, len(p) // 12)).astype(int) for p in curves]
    picked = [p[i] for p, i in zip(curves, coarse, strict=True)]
    tangent = np.concatenate([np.gradient(p, axis=0) for p in picked])
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    _, nearest = cKDTree(np.concatenate(picked)).query(anatomy.position.reshape(-1, 3)[where])
    return where, tangent[nearest].astype(np.float32)


def _synapses_and_vesicles(
    grey: Field, anatomy: Anatomy, depth: Field, rng: np.random.Generator
) -> Field:
    """Clusters of vesicles in axons, next to thickened membranes; lone ones elsewhere.

    Returns:
        (X, Y, Z) float32 >= 0: extra density of the membrane at synapses.
    """
    frame = anatomy.frame
    s = frame.scale
    density = np.zeros(frame.shape, np.float32)
    neurite = anatomy.owner <= len(anatomy.skeleton.kind)
    axon = (anatomy.fine == Tissue.AXON) & neurite
    border = np.flatnonzero(axon & (depth < 2.0 * frame.lateral_nm))
    if not len(border):
        return density
    position = anatomy.position.reshape(-1, 3)
    pool = np.zeros(frame.shape, np.float32)
    for spot in rng.choice(border, max(2, round(2.2 * frame.volume_um3))):
        box = _box_around(frame, spot, 420.0 * s)
        near = np.linalg.norm(anatomy.position[box] - position[spot], axis=-1)
        density[box] = np.maximum(density[box], np.exp(-((near / (120.0 * s)) ** 4)))
        own = anatomy.owner[box] == anatomy.owner.reshape(-1)[spot]
        pool[box] += own * np.exp(-((near / (260.0 * s)) ** 2))
    radius = max(17.0, 2.1 * frame.lateral_nm)
    room = axon & (depth > 1.2 * radius)
    chance = np.where(room, 0.07 + np.minimum(pool, 1.0), 0.0).astype(np.float32)
    chance *= np.float32(min(1.0, float(np.prod(frame.voxel_nm)) * 0.8 / (2 * radius) ** 3))
    _stamp_vesicles(grey, frame, rng.random(frame.shape, dtype=np.float32) < chance, radius)
    return density


def _box_around(frame: Frame, spot: int, reach: float) -> tuple[slice, ...]:
    """The slices of a box that holds everything nearer than `reach` nm, deformation included."""
    at = np.unravel_index(spot, frame.shape)
    half = [int(1.5 * reach / v) + 2 for v in frame.voxel_nm]
    return tuple(slice(max(0, int(a) - h), int(a) + h + 1) for a, h in zip(at, half, strict=True))


def _stamp_vesicles(grey: Field, frame: Frame, centres: NDArray[np.bool_], radius: float) -> None:
    """Dark-rimmed light spheres at the centres."""
    half = [
        min(int(radius / v) + 1, n - 1) for v, n in zip(frame.voxel_nm, frame.shape, strict=True)
    ]
    if not centres.any():
        return
    kernel_axes = [np.arange(-h, h + 1) * v for h, v in zip(half, frame.voxel_nm, strict=True)]
    far = np.linalg.norm(np.stack(np.meshgrid(*kernel_axes, indexing="ij"), -1), axis=-1)
    profile = -58.0 * np.exp(-(((far - 0.8 * radius) / (0.38 * radius)) ** 2))
    profile += 16.0 * np.exp(-((far / (0.4 * radius)) ** 2))
    at = np.argwhere(centres)
    top = np.array(frame.shape) - 1
    for offset, value in zip(np.argwhere(far >= 0) - half, profile.reshape(-1), strict=True):
        if abs(value) > 2.0:
            x, y, z = np.clip(at + offset, 0, top).T
            grey[x, y, z] += np.float32(value)


def _lamellae(grey: Field, anatomy: Anatomy) -> None:
    """Alternating major dense and intraperiod lines of the sheath."""
    period = max(22.0 * anatomy.frame.scale, 2.6 * anatomy.frame.lateral_nm)
    inside = anatomy.fine == Tissue.MYELIN
    phase = np.nan_to_num(anatomy.lamella[inside]) / period
    grey[inside] += 30.0 * np.sin(2 * np.pi * phase).astype(np.float32)


def _membranes(
    grey: Field, anatomy: Anatomy, depth: Field, density: Field, rng: np.random.Generator
) -> Field:
    """Dark lines along the borders of cells and organelles, blurred where cut at a slant."""
    frame = anatomy.frame
    strength = _per_class(
        {
            **dict.fromkeys(CELLS, 105.0),
            Tissue.INNER_TONGUE: 80.0,
            Tissue.OUTER_TONGUE: 85.0,
            Tissue.NUCLEUS: 90.0,
            Tissue.MITOCHONDRIA: 62.0,
            Tissue.FAT_GLOBULE: 26.0,
        }
    )
    width = np.float32(max(9.0, 1.15 * float(frame.lateral_nm)))
    edge = np.maximum(depth - np.float32(0.8 * frame.lateral_nm), 0.0)
    swollen = width * (1.0 + 1.6 * density)
    dark = np.exp(-((edge / swollen) ** 2)) * strength[anatomy.fine]
    dark *= 1.0 + 0.12 * grain(frame, 15.0, rng)
    if frame.sectioned:
        # A thick section shows a slanted membrane as a grey veil.
        dark = ndimage.convolve1d(dark, [0.17, 0.66, 0.17], axis=2, mode="nearest")
    return np.asarray(np.maximum(grey - dark, 18.0), np.float32)
