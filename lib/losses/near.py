"""Near pairs: neighbours in one object alike, neighbours across a boundary far apart.

The discriminative loss speaks of centroids only, and a young network satisfies much of it with
an embedding that changes smoothly with position: no boundary shows. This term asks of pairs a
few voxels apart what inference will ask of them (lib/decoding/affinities.py).

Source: Luther & Seung 2019, Lee et al. 2021 (metric learning judged by the affinities that
    embedding distances give); margins of De Brabandere et al. 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.configs.settings import LossSettings
from lib.decoding.affinities import pair_offsets
from lib.targets.prepare import Targets
from lib.targets.processes import process_count, sum_over_processes

APART_SHARE = 0.5
"""Weight of pairs across boundaries: at the start their hinge is an order above the other's."""

SMALLEST = 1e-6
"""Added to squared distances, whose root has no slope at 0."""


def near_term(embedding: Tensor, targets: Targets, loss: LossSettings) -> Tensor:
    """Mean over partner offsets of the two hinges' means over all known pairs.

    Together: relu(distance - delta_v)^2 for two voxels of one object. Apart:
    relu(2 delta_d - distance)^2 for voxels of two objects. Pairs with background or unknown
    voxels do not count.

    Args:
        embedding: (B, E, *S) float32 or float64.
        targets: of the batch.
        loss: `near_reach` and the margins.

    Returns:
        Scalar; 0 without any pair.
    """
    instance = targets.instance
    if instance.ndim == 3:  # two-dimensional: as one section
        embedding, instance = embedding.unsqueeze(-1), instance.unsqueeze(-1)
    sizes = targets.voxel_size_nm.double().mean(0).tolist()
    sizes += [max(sizes)] * (3 - len(sizes))
    offsets = pair_offsets(sizes, loss.near_reach, instance.shape[1:])
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    for offset in offsets:
        x, y, z = (n - d for n, d in zip(instance.shape[1:], offset, strict=True))
        dx, dy, dz = offset
        one, other = instance[:, :x, :y, :z], instance[:, dx:, dy:, dz:]
        known = (one > 0) & (other > 0)
        together = known & (one == other)
        apart = known & (one != other)
        difference = embedding[:, :, :x, :y, :z] - embedding[:, :, dx:, dy:, dz:]
        distance = (difference.square().sum(1) + SMALLEST).sqrt()
        sums.append((distance - loss.delta_v).clamp_min(0).square()[together].sum())
        sums.append((2 * loss.delta_d - distance).clamp_min(0).square()[apart].sum())
        counts += [together.sum(), apart.sum()]
    if not sums:
        return embedding.flatten()[:0].sum()
    # one mean over all processes, so that two of them equal one with twice the batch
    total = sum_over_processes(torch.stack(counts)).clamp_min(1)
    means = torch.stack(sums) * process_count() / total.to(embedding.dtype)
    weight = means.new_tensor([1.0, APART_SHARE]).repeat(len(offsets))
    return (means * weight).sum() / len(offsets)
