"""Class sets as tensors: which fine and coarse targets a voxel's set gives.

All functions take `class_sets`, an integer tensor of any shape whose bits are the fine
classes a voxel may be (see lib/labels/hierarchy.py).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy


def known_mask(class_sets: Tensor, hierarchy: LabelHierarchy) -> Tensor:
    """True where something is known: the set is not "all classes".

    Args:
        class_sets: (B, *S) integer bit masks.

    Returns:
        (B, *S) bool; the `valid_mask` of the losses and metrics.
    """
    return class_sets != hierarchy.unknown


def set_members(class_sets: Tensor, num_classes: int) -> Tensor:
    """Which classes each voxel's set holds.

    Returns:
        (B, C, *S) bool from (B, *S) bit masks.
    """
    bits = torch.arange(num_classes, device=class_sets.device, dtype=class_sets.dtype)
    shifted = class_sets.unsqueeze(1) >> bits.view(1, -1, *([1] * (class_sets.ndim - 1)))
    return (shifted & 1).bool()


def fine_labels(class_sets: Tensor, hierarchy: LabelHierarchy) -> Tensor:
    """The fine class where the set holds exactly one, IGNORE_INDEX elsewhere.

    Returns:
        (B, *S) int64.
    """
    fine = torch.full_like(class_sets, IGNORE_INDEX, dtype=torch.int64)
    for c in range(hierarchy.num_classes):
        fine[class_sets == 1 << c] = c
    return fine


def coarse_targets(class_sets: Tensor, hierarchy: LabelHierarchy) -> tuple[Tensor, Tensor]:
    """The coarse bits a set implies: known where all its classes agree.

    Returns:
        (bits, known), both (B, K, *S) bool; bits is False where not known. A voxel whose
        set is "all classes" has no known bit.

    Source: spec/hierarchical-supervision.md "Mapping fine to coarse", for sets.
    """
    bits, known = [], []
    for group in hierarchy.group_sets:
        inside, outside = class_sets & group, class_sets & ~group
        bits.append((inside != 0) & (outside == 0))
        known.append((inside == 0) ^ (outside == 0))
    if not bits:
        empty = class_sets.new_zeros((class_sets.shape[0], 0, *class_sets.shape[1:])).bool()
        return empty, empty
    valid = known_mask(class_sets, hierarchy).unsqueeze(1)
    return torch.stack(bits, 1) & valid, torch.stack(known, 1) & valid


def cells_only(
    ids: NDArray[np.int64], sets: NDArray[np.int32], hierarchy: LabelHierarchy
) -> NDArray[np.int64]:
    """True ids as predicted cells are compared with them.

    A predicted cell holds its organelles; where organelles have ids of their own, their voxels
    say nothing of the cell.

    Args:
        ids: any shape, 0 none, -1 unknown.
        sets: class sets of the same voxels.
        hierarchy: says which classes lie inside others.
    """
    return np.where((sets & ~hierarchy.inside_set) == 0, IGNORE_INDEX, ids)
