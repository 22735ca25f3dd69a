"""What rows lose by logits: the losses of training, row by row, unaveraged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lib.labels.class_sets import coarse_targets, set_members
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import CLASSES, with_study_heads

GROUPS = "coarse"


@dataclass(frozen=True)
class Logits:
    """What the published heads say of rows.

    Args:
        classes: (N, C).
        groups: (N, K), K = 0 for a network without groups.
    """

    classes: Tensor
    groups: Tensor

    @staticmethod
    def of(net: NeuropilNet, features: Tensor) -> Logits:
        """Of (N, F or more) features, by the network without any study's heads; on the CPU."""
        device = next(net.parameters()).device
        heads = with_study_heads(net, None).task_heads
        with torch.no_grad():
            own = features[:, : net.feature_channels].to(device)
            out = heads.rows(own, (CLASSES, GROUPS))
        groups = out.get(GROUPS, features.new_zeros((len(features), 0)))
        return Logits(out[CLASSES].float().cpu(), groups.float().cpu())


@dataclass(frozen=True)
class Targets:
    """What class sets ask of logits.

    Args:
        members: (..., C) bool, classes that are in a row's set.
        known: (...) bool, whether the set says anything.
        bits: (..., K) whether a row is in each group.
        told: (..., K) bool, whether the set says so.
    """

    members: Tensor
    known: Tensor
    bits: Tensor
    told: Tensor

    @staticmethod
    def of(sets: Tensor, hierarchy: LabelHierarchy) -> Targets:
        """Of (...) class sets."""
        flat, shape = sets.reshape(1, -1), sets.shape
        members = set_members(flat, hierarchy.num_classes)[0].T.view(*shape, -1)
        bits, told = (t[0].T.view(*shape, -1) for t in coarse_targets(flat, hierarchy))
        return Targets(
            members.contiguous(), sets != hierarchy.unknown, bits.float(), told.contiguous()
        )

    def __getitem__(self, index: Tensor) -> Targets:
        """Of some rows."""
        return Targets(
            *(rows_at(t, index) for t in (self.members, self.known, self.bits, self.told))
        )


def voxel_losses(classes: Tensor, groups: Tensor, targets: Targets, coarse: float) -> Tensor:
    """Loss of each row: the criterion's masked cross-entropy and its coarse term, unaveraged.

    -log of the summed probability of the row's class set, plus `coarse` times the binary
    cross-entropy averaged over the groups that the set makes known. Exactly zero, and without
    gradient, where nothing is known.

    Args:
        classes: (..., N, C) logits.
        groups: (..., N, K) logits.
        targets: of the rows' class sets, (..., N) or (N,).

    Returns:
        (..., N).

    Source: spec/clarifications.md, "Class sets"; lib/losses/semantic.py.
    """
    inside = classes.log_softmax(-1).masked_fill(~targets.members, -torch.inf).logsumexp(-1)
    loss = torch.where(targets.known, -inside, 0.0)
    if groups.shape[-1]:
        bits = targets.bits.expand_as(groups)
        each = functional.binary_cross_entropy_with_logits(groups, bits, reduction="none")
        told = targets.told
        loss = loss + coarse * (each * told).sum(-1) / told.sum(-1).clamp_min(1)
    return loss


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """Kullback-Leibler divergence of (M, n, C) logits, its mean over the rows: (M,)."""
    old = before.log_softmax(-1)
    return (old.exp() * (old - after.log_softmax(-1))).sum(-1).mean(1)


def is_group(targets: Targets) -> Tensor:
    """(...) bool: sets of more than one class, and of no more than half of them."""
    count = targets.members.sum(-1)
    return (count > 1) & (count <= targets.members.shape[-1] // 2)


def within_groups(before: Tensor, after: Tensor, targets: Targets) -> Tensor:
    """How far the shares of the classes of each row's group are from what they were.

    A label that leaves open which class of a group it is asks for the group alone: without this
    the heads called every neurite an axon that was known to be one or a dendrite. Sets of more
    than half the classes, as objects of unknown class have, ask for next to nothing.

    Args:
        before, after: (..., N, C) logits.
        targets: of the rows' class sets.

    Returns:
        (..., N) Kullback-Leibler divergence; exactly 0 for sets that are no group.
    """
    out = ~targets.members
    old, new = (x.masked_fill(out, -torch.inf).log_softmax(-1) for x in (before, after))
    each = torch.where(out, 0.0, old.exp() * (old - new).masked_fill(out, 0.0))
    return torch.where(is_group(targets), each.sum(-1), 0.0)


def rows_at(values: Tensor, index: Tensor) -> Tensor:
    """(*index.shape, ...) rows of (N, ...) values, much faster than by subscription."""
    return values.index_select(0, index.reshape(-1)).view(*index.shape, *values.shape[1:])
