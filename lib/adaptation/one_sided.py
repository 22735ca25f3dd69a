"""Whether an annotation says where a class is not, or only where it is."""

from __future__ import annotations

import torch

from lib.adaptation.rows import Rows
from lib.labels.hierarchy import LabelHierarchy

ONE_SIDED = 0.1
"""Voxels known not to be of a class, as a share of those known to be, below which IoU is blind,
unless they are of two kinds and lie in so many places, each kind in half as many:"""
ENOUGH_PLACES = 12


def one_sided(rows: Rows, kind: int, hierarchy: LabelHierarchy) -> bool:
    """Whether a class or set was painted and next to nothing is said of where it is not.

    Of a class that is nearly everything, little is known not to be it however much was painted:
    what counts then is of how many kinds the rest is, and in how many places.
    """
    known = rows.sets != hierarchy.unknown
    true = known & ((rows.sets & ~kind) == 0)
    false = known & ((rows.sets & kind) == 0)
    negatives, positives = (float(rows.weight[where].sum()) for where in (false, true))
    if negatives >= ONE_SIDED * positives:
        return False
    other = known & ((rows.sets & ~kind) != 0)  # surely or perhaps not it
    kinds, kind_of = torch.unique(rows.sets[other], return_inverse=True)
    blocks, block_of = torch.unique(rows.block[other], return_inverse=True)
    places = torch.unique(kind_of * max(len(blocks), 1) + block_of)
    each = torch.bincount(places // max(len(blocks), 1), minlength=len(kinds))
    often = int((each >= ENOUGH_PLACES // 2).sum())
    return often < 2 or len(blocks) < ENOUGH_PLACES


def any_one_sided(rows: Rows, hierarchy: LabelHierarchy) -> bool:
    """Of any class that was annotated as such."""
    kinds = [int(s) for s in torch.unique(rows.sets).tolist() if int(s).bit_count() == 1]
    return any(one_sided(rows, kind, hierarchy) for kind in kinds)
