"""Where an image file's voxels lie, so that an answer lands on the image's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def file_affine(path: Path) -> Affine:
    """(4, 4): voxel [i, j, k, 1] of an image as loaded -> RAS coordinates, viewer units.

    Files without a frame (TIFF, PNG) get unit steps along the axes.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        loaded: Any = nib.load(path)
        return np.asarray(loaded.affine, np.float64)
    if name.endswith(".nrrd"):
        return _nrrd_affine(nrrd.read_header(str(path)))
    return np.eye(4)


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """(x, y, z) lengths of a voxel, viewer units."""
    x, y, z = (float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z


def _nrrd_affine(header: dict[str, Any]) -> Affine:
    affine = np.eye(4)
    directions = header.get("space directions")
    if directions is None:
        spacings = np.asarray(header.get("spacings", (1, 1, 1)), np.float64)[-3:]
        return np.diag([*spacings, *[1.0] * (4 - len(spacings))])
    rows = np.asarray(directions, np.float64)
    rows = rows[~np.isnan(rows).any(axis=1)]
    affine[:3, : len(rows)] = rows.T
    affine[:3, 3] = np.asarray(header.get("space origin", (0, 0, 0)), np.float64)
    space = str(header.get("space", "left-posterior-superior")).lower()
    ras = space in ("right-anterior-superior", "ras")
    las = space in ("left-anterior-superior", "las")
    flips = np.eye(4) if ras else np.diag([-1.0, 1.0, 1.0, 1.0]) if las else LPS_RAS
    return np.asarray(flips @ affine)
