"""A table of an item's objects: what each is, where, how large, what it touches.

Lengths in nm, areas in um2, volumes in um3; places are those of the source volume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cc3d
import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.shapes.chosen import ItemObjects
from lib.shapes.fibres import Fibre, fibre
from lib.shapes.skeletons import skeletons_of
from lib.shapes.surface import surface_areas
from lib.volumes.boxes import Box, box_slices

AXON, MITOCHONDRIA = "axon", "mitochondria"
SHEATH = ("myelin", "myelin inner tongue", "myelin outer tongue")
SHEATHED = 0.5
"""Share of its contacts that an axon must have with sheaths to be myelinated."""
MARGIN = 2
"""Voxels around an object that are looked at with it."""

Row = dict[str, Any]
Progress = Callable[[int, int], None]


def measure(
    objects: ItemObjects,
    hierarchy: LabelHierarchy,
    only: Sequence[int] = (),
    progress: Progress | None = None,
) -> list[Row]:
    """A row for each object.

    `cell` is the cell that an organelle lies in: the one it has the largest contact with; a
    cell's own row names itself. `surface_um2` is the Crofton estimate (lib/shapes/surface.py):
    right to a percent for round bodies, a tenth too little for flat walls along the axes, up to
    a third where sections are ten times as thick as pixels.
    `contact_um2` sums the voxels' faces, which are larger than a smooth membrane. Diameters,
    myelin and g-ratio are lib/shapes/fibres.py's; an axon is myelinated when half of what it
    touches, organelles apart, is sheath.

    Args:
        objects: of the item.
        hierarchy: of the classes.
        only: ids to measure; all, where it is empty.
        progress: called with (axons done, axons in all).

    Returns:
        Rows by ascending id, all with the same keys; None where a figure has no meaning.
    """
    objects, real = _compact(objects)
    ids, size = objects.ids, np.asarray(objects.voxel_size_nm)
    found = cc3d.statistics(ids)
    counts = np.asarray(found["voxel_counts"], np.int64)
    surfaces = surface_areas(ids, objects.voxel_size_nm)
    touching = contacts_of(ids, objects.voxel_size_nm)
    present = [int(i) for i in np.flatnonzero(counts) if i > 0]
    cells = _cells(objects, present, touching, hierarchy)
    wanted = [i for i in present if not only or real[i] in set(only)]
    fibres = _fibres(objects, hierarchy, touching, cells, found["bounding_boxes"], wanted, progress)
    inside = _mitochondria(objects, hierarchy, cells)
    rows: list[Row] = []
    for i in wanted:
        box, centre = found["bounding_boxes"][i], found["centroids"][i]
        corners = np.array([[s.start for s in box], [s.stop for s in box]])
        low, high = corners * size + objects.offset_nm
        near = touching.get(i, {})
        measured = fibres.get(i, Fibre(math.nan))
        rows.append(
            {
                "object": real[i],
                "name": objects.names.get(i, ""),
                "class": _class_name(objects, i, hierarchy),
                "accepted": i in objects.accepted,
                "cell": real[cells[i]] if i in cells else None,
                "voxels": int(counts[i]),
                "volume_um3": float(counts[i] * size.prod() / 1e9),
                "surface_um2": float(surfaces[i] / 1e6),
                **_three("centre", (np.asarray(centre) + 0.5) * size + objects.offset_nm),
                **_three("low", low),
                **_three("high", high),
                "contacts": len(near),
                "contact_um2": sum(near.values()) / 1e6,
                "touches": ";".join(f"{real[n]}:{area / 1e6:.6g}" for n, area in near.items()),
                "diameter_nm": _or_none(measured.diameter_nm),
                "fibre_diameter_nm": _or_none(measured.fibre_diameter_nm),
                "myelin_nm": _or_none(measured.myelin_nm),
                "g_ratio": _or_none(measured.g_ratio),
                "mitochondria": inside.get(i, 0) if cells.get(i) == i else None,
            }
        )
    return sorted(rows, key=lambda row: int(row["object"]))


def _compact(objects: ItemObjects) -> tuple[ItemObjects, list[int]]:
    """The objects numbered 1..N, and the id that each number stands for."""
    ids, table = fastremap.renumber(objects.ids)
    numbers = {int(old): int(new) for old, new in table.items() if old}
    real = [0, *sorted(numbers, key=lambda old: numbers[old])]
    return replace(
        objects,
        ids=np.asfortranarray(ids.astype(np.uint32)),
        names={numbers[i]: n for i, n in objects.names.items() if i in numbers},
        classes={numbers[i]: c for i, c in objects.classes.items() if i in numbers},
        accepted=frozenset(numbers[i] for i in objects.accepted if i in numbers),
    ), real


def contacts_of(
    ids: NDArray[np.uint32], voxel_size_nm: Sequence[float]
) -> dict[int, dict[int, float]]:
    """The contacts of all objects of a map (X, Y, Z).

    Returns:
        object -> neighbour -> nm^2 of the voxels' faces between them, the largest first.
    """
    x, y, z = (float(v) for v in voxel_size_nm)
    areas = cc3d.contacts(ids, connectivity=6, surface_area=True, anisotropy=(x, y, z))
    near: dict[int, dict[int, float]] = {}
    for (a, b), area in areas.items():
        near.setdefault(int(a), {})[int(b)] = float(area)
        near.setdefault(int(b), {})[int(a)] = float(area)
    return {i: dict(sorted(n.items(), key=lambda pair: -pair[1])) for i, n in near.items()}


def _cells(
    objects: ItemObjects,
    present: Sequence[int],
    touching: dict[int, dict[int, float]],
    hierarchy: LabelHierarchy,
) -> dict[int, int]:
    """Object -> the cell that it is or lies in."""
    cells = {}
    for i in present:
        if not _is_organelle(objects, i, hierarchy):
            cells[i] = i
            continue
        around = [n for n in touching.get(i, {}) if not _is_organelle(objects, n, hierarchy)]
        if around:
            cells[i] = around[0]
    return cells


def _mitochondria(
    objects: ItemObjects, hierarchy: LabelHierarchy, cells: dict[int, int]
) -> dict[int, int]:
    count: dict[int, int] = {}
    for i, cell in cells.items():
        if _class_name(objects, i, hierarchy) == MITOCHONDRIA and cell != i:
            count[cell] = count.get(cell, 0) + 1
    return count


def _fibres(
    objects: ItemObjects,
    hierarchy: LabelHierarchy,
    touching: dict[int, dict[int, float]],
    cells: dict[int, int],
    boxes: Sequence[tuple[slice, slice, slice]],
    wanted: Sequence[int],
    progress: Progress | None,
) -> dict[int, Fibre]:
    """Of each axon."""
    axons = [i for i in wanted if _class_name(objects, i, hierarchy) == AXON]
    inside: dict[int, list[int]] = {}
    for i, cell in cells.items():
        if cell != i:
            inside.setdefault(cell, []).append(i)
    found = {}
    for done, axon in enumerate(axons, 1):
        mine, near = inside.get(axon, []), touching.get(axon, {})
        sheaths = [n for n in near if _class_name(objects, n, hierarchy) in SHEATH]
        outside = sum(a for n, a in near.items() if n not in mine)
        share = sum(near[n] for n in sheaths) / outside if outside else 0.0
        around = sheaths if share >= SHEATHED else []
        # A sheath's outer parts need not touch the axon.
        around += [
            n for s in around for n in touching.get(s, {})
            if _class_name(objects, n, hierarchy) in SHEATH and n not in around
        ]  # fmt: skip
        box = _hull_of([boxes[i] for i in (axon, *mine, *around)], objects.ids.shape)
        part = np.asfortranarray(objects.ids[box_slices(box)])
        lines = skeletons_of(part, objects.voxel_size_nm, [axon])
        if axon in lines:
            found[axon] = fibre(part, axon, mine, around, lines[axon], objects.voxel_size_nm)
        if progress is not None:
            progress(done, len(axons))
    return found


def _hull_of(boxes: Sequence[tuple[slice, slice, slice]], shape: Sequence[int]) -> Box:
    x, y, z = (
        (
            max(0, min(b[a].start for b in boxes) - MARGIN),
            min(shape[a], max(b[a].stop for b in boxes) + MARGIN),
        )
        for a in range(3)
    )
    return x, y, z


def _is_organelle(objects: ItemObjects, object_id: int, hierarchy: LabelHierarchy) -> bool:
    fine = objects.classes.get(object_id)
    return fine is not None and bool(hierarchy.inside_set >> fine & 1)


def _class_name(objects: ItemObjects, object_id: int, hierarchy: LabelHierarchy) -> str:
    fine = objects.classes.get(object_id)
    return "" if fine is None else hierarchy.class_names[fine]


def _three(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    return {f"{name}_{axis}_nm": float(v) for axis, v in zip("xyz", values, strict=True)}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
