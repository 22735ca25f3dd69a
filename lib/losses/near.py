"""Near pairs: neighbours in one object alike, neighbours across a boundary far apart.

The discriminative loss speaks of centroids only, and a young network satisfies much of it with
an embedding that changes smoothly with position: no boundary shows. This term asks of pairs a
few voxels apart what inference will ask of them (lib/prediction/affinities.py).

Source: Luther & Seung 2019, Lee et al. 2021 (metric learning judged by the affinities that
    embedding distances give); margins of De Brabandere et al. 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lib.configs.settings import LossSettings
from lib.targets.cells import pair_ends
from lib.targets.pairs import pair_offsets
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
    if not offsets:
        return embedding.flatten()[:0].sum()
    value: Tensor = _Pairs.apply(embedding, instance, offsets, loss)  # type: ignore[no-untyped-call]
    return value


class _Pairs(torch.autograd.Function):
    """The two hinges over all offsets; the gradient is made on the way, in one buffer."""

    @staticmethod
    def forward(
        ctx: Any,
        embedding: Tensor,
        instance: Tensor,
        offsets: Sequence[Sequence[int]],
        loss: LossSettings,
    ) -> Tensor:
        pairs = [pair_ends(instance, offset) for offset in offsets]
        known = [(one > 0) & (other > 0) for one, other in pairs]
        same = [one == other for one, other in pairs]
        counts = [(k & s).sum() for k, s in zip(known, same, strict=True)]
        counts += [(k & ~s).sum() for k, s in zip(known, same, strict=True)]
        # one mean over all processes, so that two of them equal one with twice the batch
        total = sum_over_processes(torch.stack(counts)).clamp_min(1).to(embedding.dtype)
        together, apart = (process_count() / (total * len(offsets))).chunk(2)
        value = embedding.new_zeros(())
        slope = torch.zeros_like(embedding)
        for k, offset in enumerate(offsets):
            one, other = pair_ends(embedding, offset)
            difference = one - other
            distance = (difference.square().sum(1) + SMALLEST).sqrt_()
            share = torch.where(same[k], together[k], APART_SHARE * apart[k]) * known[k]
            near, far = distance - loss.delta_v, distance - 2 * loss.delta_d
            excess = torch.where(same[k], near.clamp_min_(0), far.clamp_max_(0))
            scaled = excess * share
            value += torch.dot(scaled.flatten(), excess.flatten())
            difference *= (2 * scaled / distance).unsqueeze(1)
            to_one, to_other = pair_ends(slope, offset)
            to_one += difference
            to_other -= difference
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (slope,) = ctx.saved_tensors
        return slope * grad, None, None, None
