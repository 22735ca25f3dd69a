"""Surfaces of objects as triangles, for Neuroglancer and for programs that read PLY."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from zmesh import Mesh, Mesher

from lib.volumes.atomic import write_bytes, write_json

MeshFormat = Literal["ply", "precomputed"]
REDUCTION = 20
"""How many triangles become one, at most, ..."""
ERROR_VOXELS = 1.0
"""... as long as the surface moves by no more than this, in the finest voxels."""
FRAGMENTS = "mesh"


def meshes_of(
    ids: NDArray[np.uint32], voxel_size_nm: Sequence[float], object_ids: Sequence[int]
) -> Iterator[tuple[int, Mesh]]:
    """Simplified surfaces of some objects.

    Args:
        ids: (X, Y, Z).
        voxel_size_nm: (x, y, z).

    Returns:
        (id, mesh), vertices in nm from the first voxel's corner. Objects that end with the
        volume are closed there.

    Source: marching cubes and quadric simplification, by the package `zmesh`.
    """
    mesher = Mesher(tuple(float(v) for v in voxel_size_nm))
    wanted = np.where(np.isin(ids, list(object_ids)), ids, 0).astype(np.uint32)
    mesher.mesh(np.pad(wanted, 1))  # closed where the volume ends
    error = ERROR_VOXELS * min(voxel_size_nm)
    for object_id in object_ids:
        if object_id not in mesher.ids():
            continue
        mesh = mesher.get(object_id, reduction_factor=REDUCTION, max_error=error)
        mesh.vertices = mesh.vertices - np.asarray(voxel_size_nm, np.float32)
        mesher.erase(object_id)
        yield object_id, mesh


def write_mesh(
    folder: Path, object_id: int, mesh: Mesh, offset_nm: Sequence[float], kind: MeshFormat
) -> Path:
    """Write one mesh, in nm of the source volume.

    Args:
        folder: `<id>.ply` goes there; or it becomes a Precomputed segmentation's mesh folder
            (`<folder>/mesh`), which Neuroglancer shows beside the voxels.
        offset_nm: (x, y, z) of the item's first voxel in its source.
    """
    mesh.vertices = mesh.vertices + np.asarray(offset_nm, np.float32)
    if kind == "ply":
        path = folder / f"{object_id}.ply"
        write_bytes(path, mesh.to_ply())
        return path
    place = folder / FRAGMENTS
    path = place / f"{object_id}.mesh"
    write_bytes(path, mesh.to_precomputed())
    write_json(place / f"{object_id}:0", {"fragments": [path.name]})
    write_json(place / "info", {"@type": "neuroglancer_legacy_mesh"})
    return path


def name_meshes(folder: Path) -> None:
    """Enter the meshes in the `info` of a Precomputed volume that lies in the same folder."""
    path = folder / "info"
    if path.exists():
        info = json.loads(path.read_text(encoding="utf-8"))
        if info.get("mesh") != FRAGMENTS:
            write_json(path, {**info, "mesh": FRAGMENTS})
