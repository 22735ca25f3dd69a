"""Pairs of voxels: which belong to one cell, which do not, and of which nothing is known.

Objects have two levels, and pairs speak of cells: a mitochondrion or nucleus with an id of its
own belongs to the cell around it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.targets.objects import Objects
from lib.targets.pairs import Offset

REACH = (1, 3, 9)
"""Distances of the partners in voxels of the finest axis. Networks see voxels of about 10 nm
(`model.finest_nm`), so these are the next voxel, 30 nm and 90 nm."""

PAIR_CHANNELS = 3 * len(REACH)

TOGETHER, APART, UNKNOWN = 1, 0, -1


def affinity_offsets(voxel_size_nm: Sequence[float]) -> tuple[Offset, ...]:
    """The partner of each channel of the affinity head: v and v + offset.

    Channels come by distance, then axis: the next voxel along x, y, z, the one 3 voxels of the
    finest axis away along x, y, z, and 9. Along a coarser axis a partner lies equally far in
    nm, to the nearest voxel and at least one: across sections of 50 nm at 9.2 nm in plane the
    three are 1, 1 and 2 sections.

    Args:
        voxel_size_nm: (x, y, z), or (x, y) of a 2D network, which has no partner along z.

    Returns:
        PAIR_CHANNELS offsets.
    """
    finest = min(voxel_size_nm)
    sizes = [*voxel_size_nm, *[max(voxel_size_nm)] * (3 - len(voxel_size_nm))]
    offsets = []
    for distance in REACH:
        for axis, size in enumerate(sizes):
            steps = max(1, round(distance * finest / size))
            offsets.append(tuple(steps if a == axis else 0 for a in range(3)))
    return tuple((x, y, z) for x, y, z in offsets)


def pair_targets(
    cells: Tensor,
    class_sets: Tensor,
    voxel_size_nm: Tensor,
    hierarchy: LabelHierarchy,
    within_sections: Tensor | None = None,
) -> Tensor:
    """What is known of the pairs of each voxel.

    Two voxels of one cell are together. Two of different cells are apart, and so are a voxel
    of a cell and one of none, two of none (a membrane, extracellular space), and two voxels
    whose class sets rule each other out. A class that lies inside others says nothing of the
    cell.

    Args:
        cells: (B, *S) int64 ids of cells, 0 none, -1 unknown (see `cell_ids`).
        class_sets: (B, *S) int32 bit masks.
        voxel_size_nm: (B, S).
        hierarchy: the classes.
        within_sections: (B,) bool, samples whose ids hold within sections only: nothing is
            known of their pairs across sections.

    Returns:
        (B, PAIR_CHANNELS, *S) int8 of TOGETHER, APART, UNKNOWN; UNKNOWN where the partner
        lies outside.
    """
    flat = cells.ndim == 3
    if flat:
        cells, class_sets = cells.unsqueeze(-1), class_sets.unsqueeze(-1)
    inside = hierarchy.inside_set
    told = torch.where((class_sets & ~inside) == 0, hierarchy.unknown, class_sets)
    shape = (cells.shape[0], PAIR_CHANNELS, *cells.shape[1:])
    out = torch.full(shape, UNKNOWN, dtype=torch.int8, device=cells.device)
    for b, sizes in enumerate(voxel_size_nm.tolist()):
        derived = within_sections is not None and bool(within_sections[b])
        for channel, offset in enumerate(affinity_offsets(sizes)):
            if derived and offset[2]:
                continue
            one, other = pair_ends(cells[b], offset)
            if one.numel() == 0:
                continue
            known = (one >= 0) & (other >= 0)
            apart = known & ((one != other) | (one == 0))
            sets, sets_there = pair_ends(told[b], offset)
            apart |= ~known & ((sets & sets_there) == 0)
            found = torch.where(known & (one == other) & (one > 0), TOGETHER, UNKNOWN)
            to = pair_ends(out[b, channel], offset)[0]
            to.copy_(torch.where(apart, APART, found))
    return out.squeeze(-1) if flat else out


def cell_ids(
    instance: Tensor,
    objects: Objects,
    object_class: Tensor,
    class_sets: Tensor,
    hierarchy: LabelHierarchy,
) -> Tensor:
    """The cells of a batch: its objects, with each organelle's voxels given to the cell around it.

    The cell is the one that most faces of the organelle's voxels touch; an organelle without
    a cell beside it is unknown. Voxels of unknown id that can hold no object by their class
    have none.

    Args:
        instance: (B, *S) int64, 0 none, negative unknown.
        objects: of `instance`.
        object_class: (K,) int64, -1 unknown.
        class_sets: (B, *S) int32 bit masks.
        hierarchy: says which classes lie inside others, and which can be objects.

    Returns:
        (B, *S) int64 numbers of `objects`, 0 none, -1 unknown.
    """
    unknown = (instance < 0) & ((class_sets & hierarchy.object_set) != 0)
    cells = torch.where(unknown, IGNORE_INDEX, objects.labels)
    is_inside = torch.tensor([c.inside for c in hierarchy.classes] + [False], device=cells.device)
    organelle = torch.cat([is_inside.new_zeros(1), is_inside[object_class]])
    if not bool(organelle.any()):
        return cells
    owner = torch.arange(len(organelle), device=cells.device)
    owner[organelle] = IGNORE_INDEX
    keys = _contacts(objects.labels, organelle)
    if keys.numel():
        found, counts = torch.unique(keys, return_counts=True)
        order = torch.argsort(counts, stable=True)  # the last one written has the most faces
        inner, outer = found[order] // len(organelle), found[order] % len(organelle)
        for i, o in zip(inner.tolist(), outer.tolist(), strict=True):
            owner[i] = o
    painted = owner[objects.labels]
    return torch.where((objects.labels > 0) & organelle[objects.labels], painted, cells)


def _contacts(labels: Tensor, organelle: Tensor) -> Tensor:
    """Keys organelle * (K + 1) + cell, one a face between the two."""
    keys = []
    for axis in range(1, labels.ndim):
        size = labels.shape[axis] - 1
        one, other = labels.narrow(axis, 0, size), labels.narrow(axis, 1, size)
        for a, b in ((one, other), (other, one)):
            touching = organelle[a] & ~organelle[b] & (b > 0)
            keys.append(a[touching] * len(organelle) + b[touching])
    return torch.cat(keys)


def pair_ends(values: Tensor, offset: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Both ends of all pairs `offset` apart, as views; axes X, Y, Z are the last."""
    x, y, z = (max(n - d, 0) for n, d in zip(values.shape[-3:], offset, strict=True))
    dx, dy, dz = offset
    return values[..., :x, :y, :z], values[..., dx:, dy:, dz:]
