"""Semantic loss over class sets: cross-entropy, soft IoU, soft Dice and the coarse groups.

The three fine terms share one softmax and one gradient: `_FineTerms` returns the sums they
are made of and writes the gradient of any function of those sums in one pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lib.targets.prepare import Targets
from lib.targets.processes import add_over_processes


def fine_terms(
    logits: Tensor, targets: Targets, overlap: bool, excluded: bool = False
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Cross-entropy over class sets, 1 - soft IoU and 1 - soft Dice.

    Cross-entropy: -log of the summed probability of the voxel's class set, summed over known
    voxels / their number (at least 1). IoU and Dice: for each class over the batch's voxels
    of exactly one class, averaged over the classes present among them; 0 where there is none.

    Args:
        logits: (B, C, *S) float32 or float64.
        overlap: also compute IoU and Dice.
        excluded: IoU and Dice also count what is predicted as a class where that class is
            known to be absent, though the voxel is known to a set of several classes only.
            Without it a map that knows one class and "anything else" rewards painting all.

    Returns:
        Scalars (ce, iou, dice); the last two None without `overlap`.

    Source: spec/clarifications.md, "Class sets", "Normalisation", "IoU, Dice".
    """
    ce, both, predicted = _FineTerms.apply(logits, targets)  # type: ignore[no-untyped-call]
    if not overlap:
        return ce, None, None
    classes = logits.shape[1]
    size = torch.bincount(targets.fine.flatten() + 1, minlength=classes + 1)[1:].to(logits.dtype)
    if excluded:
        predicted = predicted + _predicted_where_excluded(logits, targets)
    size, both, predicted = add_over_processes(torch.stack((size, both, predicted)))
    present = (size > 0).to(logits.dtype)
    share = present / present.sum().clamp_min(1)
    union = torch.where(size > 0, predicted + size - both, 1.0)
    total = torch.where(size > 0, predicted + size, 1.0)
    iou = (share * (1 - both / union)).sum()
    dice = (share * (1 - 2 * both / total)).sum()
    return ce, iou, dice


def _predicted_where_excluded(logits: Tensor, targets: Targets) -> Tensor:
    """(C,) sum of p_c over voxels of several possible classes that c is not among."""
    classes = logits.shape[1]
    scores = logits.flatten(2).transpose(0, 1).reshape(classes, -1)
    p = scores.index_select(1, targets.set_voxels).softmax(0)
    return (p * targets.set_outside).sum(1)


def coarse_term(logits: Tensor, targets: Targets) -> Tensor:
    """Binary cross-entropy of the coarse groups.

    Averaged over the known groups of the voxel, summed over known voxels / their number. A
    known voxel without any known group contributes 0 and counts.

    Args:
        logits: (B, K, *S) float32 or float64.

    Source: spec/clarifications.md, "Normalisation of CE and BCE".
    """
    if logits.shape[1] == 0:
        return logits.sum()
    return F.binary_cross_entropy_with_logits(
        logits,
        targets.coarse.to(logits.dtype),
        weight=targets.coarse_weight.to(logits.dtype),
        reduction="sum",
    )


class _FineTerms(torch.autograd.Function):
    """(ce, sum of p_c over voxels of class c, sum of p_c over voxels of one class)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        classes = logits.shape[1]
        # Channel by channel over the voxels of all samples: (C, V).
        scores = torch.log_softmax(logits.flatten(2).transpose(0, 1).reshape(classes, -1), 0)
        fine = targets.fine.view(1, -1)
        single = fine >= 0
        label = fine.clamp_min(0)
        own = scores.gather(0, label).masked_fill_(~single, 0.0)  # log p of the voxel's class
        loss = 0.0 - own.sum(dtype=torch.float64)
        sets, set_slope = targets.set_voxels, None
        if sets.numel():
            inside = scores.index_select(1, sets)
            set_slope = inside.exp()
            inside.masked_fill_(targets.set_outside, -torch.inf)
            log_set = inside.logsumexp(0)  # log of the set's probability
            loss = loss - log_set.sum(dtype=torch.float64)
            set_slope -= inside.sub_(log_set).exp_()
        p = scores.exp_().mul_(single)  # only of voxels of one class from here on
        own = own.exp_().masked_fill_(~single, 0.0)
        both = torch.bincount(label.flatten(), own.flatten().double(), minlength=classes)
        predicted = p.sum(1).double()
        ctx.save_for_backward(p, own, targets.fine, sets, set_slope)
        ctx.count = targets.known_count
        ce = loss / targets.known_count
        return ce.to(p.dtype), both.to(p.dtype), predicted.to(p.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_ce: Tensor, g_both: Tensor, g_predicted: Tensor) -> tuple[Any, ...]:
        p, own, fine_map, sets, set_slope = ctx.saved_tensors
        fine = fine_map.view(1, -1)
        single, label = fine >= 0, fine.clamp_min(0)
        g_ce = g_ce / ctx.count.to(p.dtype)
        # s_c = d(sum terms) / d p_c at a voxel of class y: g_predicted_c + [c = y] g_both_y;
        # softmax: p_c (s_c - sum_k p_k s_k); cross-entropy: g_ce (p_c - [c = y]).
        own_both = own * g_both[label]
        mean = g_predicted @ p + own_both
        grad = g_predicted.unsqueeze(1) - (mean - g_ce)
        grad *= p
        grad.scatter_add_(0, label, torch.where(single, own_both - g_ce, 0.0))
        if sets.numel():
            grad.index_copy_(1, sets, g_ce * set_slope)
        batch, *shape = fine_map.shape
        return grad.view(p.shape[0], batch, *shape).transpose(0, 1), None
