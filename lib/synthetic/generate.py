"""Procedural neuropil: an image that looks like electron microscopy, with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.labels.hierarchy import IGNORE_INDEX
from lib.synthetic.anatomy import Anatomy, build_cells
from lib.synthetic.classes import CELLS, ORGANELLES, Tissue
from lib.synthetic.imaging import acquire
from lib.synthetic.noise import Field, Frame, smooth_noise, tissue_positions
from lib.synthetic.organelles import add_organelles
from lib.synthetic.texture import paint_tissue

_NATURAL_EXTENT_NM = 2150.0
"""Volumes with at least this mean extent hold every class at its natural size."""


@dataclass(frozen=True)
class SyntheticVolume:
    """A generated volume.

    Args:
        image: (X, Y, Z) uint8.
        fine: (X, Y, Z) int8 class 0..11, -1 uncertain.
        instance: (X, Y, Z) int64 object ids 1..N over all classes, 0 none, -1 uncertain.
        voxel_size_nm: (x, y, z).
    """

    image: NDArray[np.uint8]
    fine: NDArray[np.int8]
    instance: NDArray[np.int64]
    voxel_size_nm: tuple[float, float, float]


def generate(
    shape_xyz: tuple[int, int, int],
    voxel_size_nm: tuple[float, float, float],
    seed: int,
    *,
    uncertain_share: float = 0.015,
    scale: float | None = None,
) -> SyntheticVolume:
    """Make a volume of neuropil.

    The same arguments give the same volume. Every class occurs in volumes of about 2 um
    a side and more; in smaller ones structures are drawn smaller so that they fit.

    Args:
        shape_xyz: voxels; the last axis is the section axis.
        voxel_size_nm: (x, y, z) nm.
        seed: any non-negative integer.
        uncertain_share: share of voxels in patches nobody could label, 0 for none.
        scale: size of all structures; None chooses 1 or, for small volumes, less.

    Returns:
        Image and labels.

    Raises:
        ValueError: a size below 16 voxels in x or y, or a voxel size that is not positive.
    """
    frame = _frame(shape_xyz, voxel_size_nm, scale)
    rngs = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
    position = tissue_positions(frame, rngs[0])
    anatomy = build_cells(frame, position, rngs[1])
    axes = add_organelles(anatomy, rngs[2])
    _tidy(anatomy)
    grey = paint_tissue(anatomy, axes, rngs[3])
    vague = _vague(frame, uncertain_share, rngs[4])
    image = acquire(grey, np.clip(vague, 0.0, 1.0), frame, rngs[5])
    instance = _number(anatomy)
    fine = anatomy.fine.copy()
    fine[vague > 0.5] = IGNORE_INDEX
    instance[vague > 0.5] = IGNORE_INDEX
    return SyntheticVolume(image, fine, instance, frame.voxel_nm)


def _frame(
    shape: tuple[int, int, int], voxel_nm: tuple[float, float, float], scale: float | None
) -> Frame:
    if len(shape) != 3 or min(shape[:2]) < 16 or shape[2] < 1:
        raise ValueError(f"shape {shape}: expected (X, Y, Z) of at least 16 x 16 x 1 voxels")
    if len(voxel_nm) != 3 or not all(0 < v < 1e4 for v in voxel_nm):
        raise ValueError(f"voxel size {voxel_nm}: expected three lengths in nm, above 0")
    size = tuple(float(v) for v in voxel_nm)
    extent = [n * v for n, v in zip(shape, size, strict=True)]
    if scale is None:
        sides = sorted(extent)[1:] if shape[2] == 1 else extent
        mean = float(np.prod(sides)) ** (1.0 / len(sides))
        finest = min(size[:2]) / 16.0  # below this no structure has voxels enough
        scale = float(np.clip(mean / _NATURAL_EXTENT_NM, max(0.35, finest), max(1.0, finest)))
    return Frame((shape[0], shape[1], shape[2]), (size[0], size[1], size[2]), scale)


def _tidy(anatomy: Anatomy) -> None:
    """Split objects that fell apart, and give crumbs to what surrounds them."""
    frame = anatomy.frame
    pieces = cc3d.connected_components(anatomy.owner, connectivity=26)
    count = np.bincount(pieces.reshape(-1))
    smallest = max(12, int(1.5e5 * frame.scale**3 / np.prod(frame.voxel_nm)))
    crumbs = (count < smallest)[pieces] & (pieces > 0)
    organelle = crumbs & np.isin(anatomy.fine, ORGANELLES)
    for where in (organelle, crumbs & ~organelle):
        _absorb(anatomy, where)


def _absorb(anatomy: Anatomy, crumbs: NDArray[np.bool_]) -> None:
    """Paint crumbs with the nearest cell body (organelles) or extracellular space (the rest)."""
    if not crumbs.any():
        return
    organelle = np.isin(anatomy.fine[crumbs], ORGANELLES).any()
    if not organelle:
        anatomy.paint(np.flatnonzero(crumbs), Tissue.EXTRACELLULAR, 0)
        return
    body = np.isin(anatomy.fine, CELLS)
    _, near = ndimage.distance_transform_edt(
        ~body, sampling=anatomy.frame.voxel_nm, return_indices=True
    )
    source = tuple(axis[crumbs] for axis in near)
    anatomy.fine[crumbs] = anatomy.fine[source]
    anatomy.owner[crumbs] = anatomy.owner[source]


def _number(anatomy: Anatomy) -> NDArray[np.int64]:
    """Ids 1..N, one for each connected object."""
    return np.asarray(cc3d.connected_components(anatomy.owner, connectivity=26), np.int64)


def _vague(frame: Frame, share: float, rng: np.random.Generator) -> Field:
    """A field that exceeds 0.5 in `share` of the volume, in smooth patches."""
    if share <= 0:
        return np.zeros(frame.shape, np.float32)
    noise = smooth_noise(frame, 300.0 * frame.scale, rng)
    level = np.quantile(noise[::2, ::2], 1.0 - min(share, 1.0))
    return np.asarray(0.5 + 1.5 * (noise - level), np.float32)
