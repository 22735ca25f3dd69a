"""The loss of the mask head, weighted by `loss.weight_prompt` in proofread mode."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def prompt_mask_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice of the prompted object, mean over the prompted samples.

    Cross-entropy alone would let a small object vanish in a large patch; Dice alone has a
    poor gradient where the first answer misses the object.

    Args:
        logits: (B, 1, *S).
        target: (B, *S) bool, the object asked for; a sample whose target is empty is left out.
        known: (B, *S) bool, where the answer is known; nothing else counts.

    Returns:
        Scalar float32; 0 without any prompted sample.
    """
    rows = logits.squeeze(1).flatten(1).float()
    inside = (target & known).flatten(1).float()
    valid = known.flatten(1).float()
    entropy = functional.binary_cross_entropy_with_logits(rows, inside, reduction="none")
    # Where nothing is known the product must be 0 even for infinite logits.
    entropy = torch.where(valid > 0, entropy, 0.0).sum(1) / valid.sum(1).clamp(min=1.0)
    chance = torch.where(valid > 0, rows.sigmoid(), 0.0)
    overlap = 2.0 * (chance * inside).sum(1)
    dice = 1.0 - overlap / (chance.sum(1) + inside.sum(1)).clamp(min=1e-6)
    prompted = (inside.sum(1) > 0).float()
    return ((entropy + dice) * prompted).sum() / prompted.sum().clamp(min=1.0)
