"""Logits of pairs of voxels: what the embedding's distance says, corrected by the affinity head.

The head is pointwise: it sees a voxel's features, not its partner's. The distance of the two
embeddings sees both. A new head corrects nothing, so the logits begin where the embedding is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.targets.cells import affinity_offsets, pair_ends
from lib.targets.pairs import Offset

STEEPNESS = 4.0
"""Logit of two equal embeddings before any correction."""

MARGIN = 1.95
"""Distance of embeddings at which their logit is 0 before any correction."""

START = -1.5
"""What a new head adds everywhere: embeddings of one cell are seldom half a margin apart."""

SMALLEST = 1e-6
"""Added to squared distances, whose root has no slope at 0."""


def pair_logits(correction: Tensor, embedding: Tensor, voxel_size_nm: Tensor) -> Tensor:
    """Logits of all pairs of a batch; above 0 for "one cell".

    Args:
        correction: (B, PAIR_CHANNELS, *S), output of the affinity head.
        embedding: (B, E, *S).
        voxel_size_nm: (B, S), by which the partners are known.

    Returns:
        (B, PAIR_CHANNELS, *S); the correction alone where the partner lies outside.
    """
    flat = embedding.ndim == 4
    if flat:
        correction, embedding = correction.unsqueeze(-1), embedding.unsqueeze(-1)
    samples = []
    for sizes, own, points in zip(voxel_size_nm.tolist(), correction, embedding, strict=True):
        channels = [
            offset_logits(own[channel], points, offset)
            for channel, offset in enumerate(affinity_offsets(sizes))
        ]
        samples.append(torch.stack(channels))
    out = torch.stack(samples)
    return out.squeeze(-1) if flat else out


def offset_logits(correction: Tensor, embedding: Tensor, offset: Offset | Sequence[int]) -> Tensor:
    """The same for one offset of one sample: (X, Y, Z) and (E, X, Y, Z) -> (X, Y, Z)."""
    one, other = pair_ends(embedding, offset)
    if one.numel() == 0:
        return correction
    distance = ((one - other).square().sum(0) + SMALLEST).sqrt()
    said = STEEPNESS * (1.0 - distance / MARGIN)
    padding = [n for step in reversed(offset) for n in (0, step)]
    return correction + torch.nn.functional.pad(said, padding)
