"""Semantic targets: what is known of each voxel's class, once labels of both kinds meet."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.labels.hierarchy import LabelHierarchy
from lib.targets.objects import Objects


def resolve_class_sets(class_sets: Tensor, instance: Tensor, hierarchy: LabelHierarchy) -> Tensor:
    """Use instance ids where the class is unknown.

    A voxel of an object may be any class that can be an object. Without a hierarchy (two
    classes, no groups) the object is foreground and a voxel known to hold no object is
    background; with one, a voxel without object stays unknown, since objects of any class may
    simply not be traced.

    Args:
        class_sets: (B, *S) int32 bit masks.
        instance: (B, *S) int64, 0 none, negative unknown.

    Returns:
        (B, *S) int32 bit masks.

    Source: spec/clarifications.md, "Semantic target when only instances are known".
    """
    assert class_sets.is_cuda or bool((class_sets > 0).all()), "a class set holds a class"
    unknown = class_sets == hierarchy.unknown
    resolved = torch.where(unknown & (instance > 0), hierarchy.object_set, class_sets)
    if hierarchy.num_classes == 2 and hierarchy.num_groups == 0:
        background = hierarchy.unknown & ~hierarchy.object_set
        if background:
            resolved = torch.where(unknown & (instance == 0), background, resolved)
    return resolved.to(class_sets.dtype)


def object_classes(fine: Tensor, objects: Objects, num_classes: int) -> Tensor:
    """The class of each object: the one most of its voxels of known class have.

    Args:
        fine: (B, *S) int64, -1 where the class is not known to one class.

    Returns:
        (K,) int64 in 0..num_classes-1, or -1 for an object of unknown class. Ties go to the
        lower class.
    """
    return majority_classes(fine, objects.labels, objects.count, num_classes)


def majority_classes(fine: Tensor, labels: Tensor, count: int, num_classes: int) -> Tensor:
    """`object_classes` for plain labels (B, *S) int64 in 0..count."""
    if count == 0:
        return torch.zeros(0, dtype=torch.int64, device=fine.device)
    # Column 0 collects voxels of unknown class, row 0 voxels of no object.
    cells = labels.flatten() * (num_classes + 1) + fine.flatten() + 1
    votes = torch.bincount(cells, minlength=(count + 1) * (num_classes + 1))
    most, best = votes.view(count + 1, num_classes + 1)[1:, 1:].max(dim=1)
    return torch.where(most > 0, best, -1)


def paint_objects(values: Tensor, labels: Tensor, empty: int = -1) -> Tensor:
    """Give every voxel its object's value.

    Args:
        values: (K,) of any dtype.
        labels: (B, *S) int64 in 0..K.

    Returns:
        (B, *S), `empty` where there is no object.
    """
    return torch.cat([values.new_full((1,), empty), values])[labels]
