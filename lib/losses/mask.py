"""Loss of the mask head: the object that was clicked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lib.prompts.sampling import SampledPrompts
from lib.targets.processes import shared_count


def mask_loss(logits: Tensor, prompts: SampledPrompts) -> Tensor:
    """Cross-entropy and soft Dice of the clicked object, over known voxels of prompted samples.

    Args:
        logits: (B, 1, *S) of the mask head.
        prompts: target and known voxels.

    Returns:
        scalar; the mean over the prompted samples (of all processes, see
        lib/targets/processes.py).
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = []
    for b in torch.nonzero(prompts.prompts.prompted).flatten().tolist():
        known = prompts.known[b]
        value, target = logits[b, 0][known], prompts.target[b][known].to(logits.dtype)
        entropy = functional.binary_cross_entropy_with_logits(value, target)
        chance = value.sigmoid()
        dice = (2 * (chance * target).sum() + 1) / (chance.sum() + target.sum() + 1)
        losses.append(entropy + 1 - dice)
    count = torch.tensor(len(losses), device=logits.device)
    total = torch.stack(losses).sum() if losses else logits.flatten()[:0].sum()
    return total / shared_count(count).to(logits.dtype)
