"""Random fields with a given length scale in nm, and where a voxel lies in the tissue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]

_SPLINE_STD = 0.692
"""Standard deviation, per axis, of a cubic B-spline with unit normal control values."""


@dataclass(frozen=True)
class Frame:
    """The voxel grid that is generated and the size of what is drawn in it.

    Args:
        shape: (X, Y, Z) voxels.
        voxel_nm: (x, y, z) in nm.
        scale: factor on the size of all structures; below 1 in volumes too small to hold
            every class at its natural size.
    """

    shape: tuple[int, int, int]
    voxel_nm: tuple[float, float, float]
    scale: float

    @cached_property
    def extent_nm(self) -> NDArray[np.float64]:
        """(3,) nm."""
        return np.asarray(np.multiply(self.shape, self.voxel_nm), np.float64)

    @property
    def volume_um3(self) -> float:
        """Volume in cubic micrometres at scale 1: what counts of structures go by."""
        return float(np.prod(self.extent_nm)) / (1e3 * self.scale) ** 3

    @property
    def lateral_nm(self) -> float:
        """The finer of the two in-plane voxel sizes."""
        return min(self.voxel_nm[:2])

    @property
    def sectioned(self) -> bool:
        """Whether the last axis is a stack of physical sections (thick, misaligned)."""
        return self.shape[2] > 1 and self.voxel_nm[2] > 1.5 * max(self.voxel_nm[:2])


def smooth_noise(frame: Frame, wavelength_nm: float, rng: np.random.Generator) -> Field:
    """A smooth random field: a cubic B-spline through random control values.

    Args:
        frame: the grid.
        wavelength_nm: distance between control values.
        rng: source of the control values.

    Returns:
        (X, Y, Z) float32 of mean 0 and about unit standard deviation.
    """
    bases = [
        _spline_basis(n, v / wavelength_nm)
        for n, v in zip(frame.shape, frame.voxel_nm, strict=True)
    ]
    control = rng.standard_normal([b.shape[1] for b in bases]).astype(np.float32)
    for axis, basis in enumerate(bases):
        control = np.moveaxis(np.tensordot(basis, control, (1, axis)), 0, axis)
    return np.ascontiguousarray(control, np.float32) / np.float32(_SPLINE_STD**3)


def grain(frame: Frame, sigma_nm: float, rng: np.random.Generator) -> Field:
    """White noise blurred to a grain of `sigma_nm`.

    Returns:
        (X, Y, Z) float32 of mean 0 and unit standard deviation.
    """
    field = rng.standard_normal(frame.shape, dtype=np.float32)
    for axis, voxel in enumerate(frame.voxel_nm):
        if sigma_nm > 0.3 * voxel and frame.shape[axis] > 1:
            field = ndimage.gaussian_filter1d(field, sigma_nm / voxel, axis=axis, truncate=3.0)
    return field / np.float32(field.std() + 1e-6)


def tissue_positions(frame: Frame, rng: np.random.Generator) -> Field:
    """Where each voxel lies in the undeformed tissue.

    Cells are drawn as simple shapes in tissue space; the deformation between it and the
    grid bends and wrinkles them, and shifts each physical section a little (the labels move
    with the image, as they do for an annotator who works on a misaligned stack).

    Returns:
        (X, Y, Z, 3) float32, nm.
    """
    axes = [
        (np.arange(n, dtype=np.float32) + 0.5) * np.float32(v)
        for n, v in zip(frame.shape, frame.voxel_nm, strict=True)
    ]
    position = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    for axis in range(3):
        for amplitude, wavelength in ((55.0, 420.0), (14.0, 110.0)):
            field = smooth_noise(frame, wavelength * frame.scale, rng)
            position[..., axis] += np.float32(amplitude * frame.scale) * field
    if frame.sectioned:
        shift = rng.normal(0.0, 0.7 * frame.lateral_nm, (frame.shape[2], 2))
        slips = rng.random(frame.shape[2]) < 0.04
        shift[slips] += rng.normal(0.0, 2.5 * frame.lateral_nm, (int(slips.sum()), 2))
        position[..., :2] += shift.astype(np.float32)
    return np.asarray(position, np.float32)


def _spline_basis(samples: int, spacing: float) -> NDArray[np.float32]:
    """(samples, controls) weights of a uniform cubic B-spline at (i + 0.5) * spacing."""
    at = (np.arange(samples) + 0.5) * spacing
    cell = np.floor(at).astype(int)
    t = at - cell
    weights = np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ],
        1,
    )
    basis = np.zeros((samples, int(cell.max()) + 4), np.float32)
    rows = np.arange(samples)
    for k in range(4):
        basis[rows, cell + k] = weights[:, k]
    return basis
