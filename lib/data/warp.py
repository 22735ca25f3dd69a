"""Geometric augmentation: turns and flips, in-plane warps, shifted sections.

Image, class sets and instance ids move together; what comes from beyond the patch read is
unknown. Targets such as directions are derived afterwards, so they follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lib.data.items import Patch
from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.boxes import Triple

ROTATION_DEGREES = 8.0
SCALE = 0.1
ELASTIC_VOXELS = 4.0
ELASTIC_GRID = 5
JITTER_VOXELS = 1.0
SHIFT_VOXELS = 6.0


@dataclass(frozen=True)
class Turn:
    """An exact rearrangement: axes permuted, then some flipped.

    Args:
        axes: turned axis i is source axis `axes[i]`.
        flips: whether turned axis i is reversed.
    """

    axes: Triple
    flips: tuple[bool, bool, bool] = (False, False, False)

    def source_extent(self, extent: Triple) -> Triple:
        """Extents along the source axes that give `extent` after the turn."""
        source = [0, 0, 0]
        for i, axis in enumerate(self.axes):
            source[axis] = extent[i]
        return source[0], source[1], source[2]

    def apply(self, patch: Patch) -> Patch:
        """The turned patch, its voxel size with it."""
        step = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        a, b, c = self.axes
        size = patch.voxel_size_nm
        return Patch(
            image=np.transpose(patch.image, self.axes)[step],
            class_sets=np.transpose(patch.class_sets, self.axes)[step],
            instance=np.transpose(patch.instance, self.axes)[step],
            voxel_size_nm=(size[a], size[b], size[c]),
            item=patch.item,
            within_sections=patch.within_sections,
        )


def draw_turn(
    shape: Triple, bounds: Triple, isotropic: bool, generator: np.random.Generator
) -> Turn:
    """A random turn of a patch of `shape` that still fits into an item of `bounds`.

    Isotropic volumes turn about all axes, others in plane only; every axis may flip.
    """
    fitting = []
    for axes in permutations(range(3)) if isotropic else ((0, 1, 2), (1, 0, 2)):
        turn = Turn((axes[0], axes[1], axes[2]))
        extent = turn.source_extent(shape)
        if all(e <= n for e, n in zip(extent, bounds, strict=True)):
            fitting.append(turn)
    turn = fitting[int(generator.integers(len(fitting)))] if fitting else Turn((0, 1, 2))
    x, y, z = (bool(flip) for flip in generator.integers(2, size=3))
    return replace(turn, flips=(x, y, z))


@dataclass(frozen=True)
class Warp:
    """An in-plane deformation, the same for all sections but for a shift of each.

    Args:
        margin: voxels that the patch it is applied to is larger by, on each side in plane.
        field: (2, X, Y) float32, where each voxel of the result comes from in that patch.
        shifts: (Z, 2) float32 voxels, added for each section.
        scale: source voxels per voxel of the result, in plane.
    """

    margin: int
    field: NDArray[np.float32]
    shifts: NDArray[np.float32]
    scale: float

    def apply(self, patch: Patch, unknown: int) -> Patch:
        """The warped patch; labels from beyond the given patch are unknown.

        Args:
            patch: `margin` larger on each side in plane than the result.
            unknown: the class set of an unknown voxel.
        """
        shape = (self.field.shape[1], self.field.shape[2], len(self.shifts))
        image = np.empty(shape, np.float32)
        sets = np.empty(shape, np.int32)
        ids = np.empty(shape, np.int64)
        for z, shift in enumerate(self.shifts):
            where = self.field + shift[:, None, None]
            image[..., z] = _bilinear(patch.image[..., z], where)
            near = np.rint(where).astype(np.int32)
            x, y = (np.clip(near[i], 0, patch.image.shape[i] - 1) for i in range(2))
            inside = (near[0] == x) & (near[1] == y)
            sets[..., z] = np.where(inside, patch.class_sets[x, y, z], unknown)
            ids[..., z] = np.where(inside, patch.instance[x, y, z], IGNORE_INDEX)
        a, b, c = patch.voxel_size_nm
        size = (a * self.scale, b * self.scale, c)
        return Patch(image, sets, ids, size, patch.item, patch.within_sections)


def draw_warp(shape: Triple, sections_move: bool, generator: np.random.Generator) -> Warp:
    """A random warp whose result has `shape`.

    Args:
        shape: (X, Y, Z) of the result.
        sections_move: whether sections are shifted against each other (volumes cut into
            sections; a block-face or FIB image does not jump).
        generator: of every draw.
    """
    margin = max(8, round(0.12 * max(shape[:2])))
    scale = float(1 + generator.uniform(-SCALE, SCALE))
    angle = np.deg2rad(generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    half = [(n - 1) / 2 for n in shape[:2]]
    x, y = np.meshgrid(np.arange(shape[0]) - half[0], np.arange(shape[1]) - half[1], indexing="ij")
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    field = np.stack([cos * x - sin * y + half[0] + margin, sin * x + cos * y + half[1] + margin])
    field += _elastic(shape, generator)
    shifts = np.zeros((shape[2], 2))
    if sections_move and shape[2] > 1:
        shifts += generator.normal(0, JITTER_VOXELS / 2, shifts.shape)
        if generator.random() < 0.5:
            start = int(generator.integers(1, shape[2]))
            shifts[start:] += generator.uniform(-SHIFT_VOXELS, SHIFT_VOXELS, 2)
    return Warp(margin, field.astype(np.float32), shifts.astype(np.float32), scale)


def _elastic(shape: Triple, generator: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random displacement, (2, X, Y) voxels."""
    coarse = generator.normal(0, ELASTIC_VOXELS / 2, (2, ELASTIC_GRID, ELASTIC_GRID))
    at = np.meshgrid(
        np.linspace(0, ELASTIC_GRID - 1, shape[0]),
        np.linspace(0, ELASTIC_GRID - 1, shape[1]),
        indexing="ij",
    )
    parts = [ndimage.map_coordinates(part, at, order=3, mode="nearest") for part in coarse]
    return np.stack(parts)


def _bilinear(section: NDArray[np.float32], where: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of a section between its voxels; the edge repeats beyond it."""
    sampled: NDArray[np.float32] = ndimage.map_coordinates(
        section, where, order=1, mode="nearest", output=np.float32
    )
    return sampled
