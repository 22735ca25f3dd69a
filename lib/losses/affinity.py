"""Affinities as outputs of their own: do a voxel and its partner belong to one cell?

Source: Turaga et al. 2010 (affinities to the next voxels); Lee et al. 2017 (long-range
    partners); balanced as in Funke et al. 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lib.targets.cells import APART, TOGETHER
from lib.targets.processes import process_count, sum_over_processes

LEAST_SHARE = 0.05
"""A kind of pairs rarer than this in its channel is weighted as if it were so frequent: a patch
with a corner of a boundary must not be about that corner."""


def affinity_term(logits: Tensor, pairs: Tensor) -> Tensor:
    """Binary cross-entropy of all known pairs, both kinds weighing alike in each channel.

    Args:
        logits: (B, A, *S) float32 or float64; above 0 for "one cell".
        pairs: (B, A, *S) int8 of `pair_targets`.

    Returns:
        Scalar: mean over the channels that have a known pair; 0 without any. Unknown pairs
        get exactly zero gradient.
    """
    together, apart = pairs == TOGETHER, pairs == APART
    axes = [0, *range(2, pairs.ndim)]
    counts = torch.stack([together.sum(axes), apart.sum(axes)])
    counts = sum_over_processes(counts).to(logits.dtype)  # one mean over all processes
    total = counts.sum(0)
    share = (counts / total.clamp_min(1)).clamp_min(LEAST_SHARE)
    used = (total > 0).to(logits.dtype)
    scale = used * process_count() / (used.sum() * total).clamp_min(1)
    each = (0.5 / share * scale).view(2, 1, -1, *[1] * (pairs.ndim - 2))
    weight = each[0] * together + each[1] * apart
    found = functional.binary_cross_entropy_with_logits(
        logits, together.to(logits.dtype), weight, reduction="sum"
    )
    return found
