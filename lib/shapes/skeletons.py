"""Skeletons of objects, and what is measured along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kimimaro
import numpy as np
import xs3d
from numpy.typing import NDArray
from osteoid import Skeleton

from lib.volumes.atomic import write_bytes

SCALE, CONST_NM = 1.5, 300.0
"""TEASAR: a branch is its own when it leaves the trunk's ball of SCALE radii and CONST_NM."""
DUST = 100
"""Voxels below which an object has no skeleton."""
ALONG = 3.0
"""Radii along which the direction of a skeleton is taken, to each side: voxels make it zigzag."""
MOST_SECTIONS = 25
"""Cross-sections of one object."""
LEAST = 1e-9
"""Parts of a unit vector that are smaller are none."""


@dataclass(frozen=True)
class Station:
    """A place on a skeleton where its object is cut.

    Args:
        voxel: (x, y, z).
        direction: (x, y, z) unit vector along the skeleton, in space.
    """

    voxel: tuple[int, int, int]
    direction: tuple[float, float, float]


def skeletons_of(
    ids: NDArray[np.uint32], voxel_size_nm: Sequence[float], object_ids: Sequence[int]
) -> dict[int, Skeleton]:
    """Centre lines of some objects.

    Args:
        ids: (X, Y, Z).
        voxel_size_nm: (x, y, z).

    Returns:
        id -> skeleton, vertices and radii in nm from the first voxel's corner; objects too small
        for one are missing.

    Source: TEASAR (Sato et al. 2000), by the package `kimimaro`.
    """
    with _WithNumpy1():
        found: dict[int, Skeleton] = kimimaro.skeletonize(
            ids,
            teasar_params={"scale": SCALE, "const": CONST_NM},
            anisotropy=tuple(float(v) for v in voxel_size_nm),
            object_ids=[int(i) for i in object_ids],
            dust_threshold=DUST,
            progress=False,
            parallel=1,
        )
    return found


def stations(skeleton: Skeleton, voxel_size_nm: Sequence[float]) -> list[Station]:
    """Places to cut an object at, evenly along its longest way and away from its ends.

    Args:
        skeleton: of `skeletons_of`.
        voxel_size_nm: (x, y, z).
    """
    path = np.asarray(max(skeleton.paths(), key=len), np.float64)
    if len(path) < 3:
        return []
    size = np.asarray(voxel_size_nm)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    reach = max(ALONG * float(np.median(skeleton.radii)), 4.0 * float(size.max()))
    inside = np.flatnonzero((along >= reach) & (along <= along[-1] - reach))
    if not len(inside):
        return []
    found = []
    for at in inside[np.unique(np.linspace(0, len(inside) - 1, MOST_SECTIONS).astype(int))]:
        before, after = np.searchsorted(along, [along[at] - reach, along[at] + reach])
        step = path[min(int(after), len(path) - 1)] - path[int(before)]
        x, y, z = (float(v) for v in step / np.linalg.norm(step))
        i, j, k = (int(v) for v in np.rint(path[at] / size))
        found.append(Station((i, j, k), (x, y, z)))
    return found


def cross_section(
    mask: NDArray[np.bool_], station: Station, voxel_size_nm: Sequence[float]
) -> float:
    """The area of an object where a plane across its skeleton cuts it.

    Args:
        mask: (X, Y, Z) the object.
        station: inside it.
        voxel_size_nm: (x, y, z).

    Returns:
        nm^2; 0 where the border of the volume cuts the section.

    Source: the package `xs3d`: the exact area of the voxels that the plane cuts. It takes the
    plane in voxels, so its normal there is the direction times the voxel size. A hair off an axis
    (1e-25) ends the process, so what is less than LEAST counts as none.
    """
    normal = np.asarray(station.direction) * np.asarray(voxel_size_nm)
    normal /= np.linalg.norm(normal)
    area, contact = xs3d.cross_sectional_area(
        mask,
        station.voxel,
        np.where(np.abs(normal) < LEAST, 0.0, normal).astype(np.float32),
        np.asarray(voxel_size_nm, np.float32),
        return_contact=True,
    )
    return 0.0 if contact else float(area)


def write_swc(path: Path, skeleton: Skeleton, offset_nm: Sequence[float]) -> None:
    """Write a skeleton as SWC, in nm of the source volume.

    Args:
        offset_nm: (x, y, z) of the item's first voxel in its source.
    """
    moved = skeleton.clone()
    moved.vertices = moved.vertices + np.asarray(offset_nm, np.float32)
    write_bytes(path, moved.to_swc().encode())


class _WithNumpy1:
    """osteoid 0.7.4 adds a 64-bit number to a 32-bit one in place, which NumPy 1 refuses."""

    def __enter__(self) -> None:
        self._own = Skeleton.__dict__["simple_merge"]
        if np.lib.NumpyVersion(np.__version__) < "2.0.0":
            Skeleton.simple_merge = staticmethod(_simple_merge)

    def __exit__(self, *_: Any) -> None:
        Skeleton.simple_merge = self._own


def _simple_merge(skeletons: Sequence[Skeleton]) -> Skeleton:
    """Some skeletons as one, without edges between them."""
    parts = [s for s in skeletons if not s.empty()]
    if not parts:
        return Skeleton()
    starts = np.cumsum([0, *(len(s.vertices) for s in parts[:-1])])
    edges = [s.edges.astype(np.int64) + start for s, start in zip(parts, starts, strict=True)]
    merged = Skeleton(
        vertices=np.concatenate([s.vertices for s in parts]),
        edges=np.concatenate(edges).astype(np.uint32),
        segid=parts[0].id,
        extra_attributes=parts[0].extra_attributes,
        space=parts[0].space,
        transform=parts[0].transform,
    )
    for attribute in parts[0].extra_attributes:  # radii among them
        values = np.concatenate([getattr(s, attribute["id"]) for s in parts])
        setattr(merged, attribute["id"], values)
    return merged
