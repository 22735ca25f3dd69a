"""Refit: study heads learned from rows, several at once.

One model for each part of the rows that is held back, and one that learns from all of them, learn
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lib.adaptation.rows import Rows
from lib.adaptation.stack import Stack
from lib.labels.class_sets import coarse_targets, set_members
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import CLASSES, StudyHeads, with_study_heads

GROUPS = "coarse"
BATCH = 512
ONE_SIDED = 0.1
"""Voxels known not to be of a class, as a share of those known to be, below which IoU is blind,
unless they are of two kinds and lie in so many places, each kind in half as many:"""
ENOUGH_PLACES = 12
WARMUP = 0.05
"""Of the steps, over which the rate rises."""


@dataclass(frozen=True)
class RefitOptions:
    """How heads are refitted.

    Args:
        steps: of the optimiser.
        rate: learning rate at its height.
        decay: of the weights, towards the published heads.
        width: of the hidden layer.
        rehearsal: weight of the rehearsal rows' loss beside the study's.
        unknown: weight of unknown voxels, which are asked to stay as they are where a class is
            annotated one-sidedly (see `one_sided`).
        coarse: weight of the groups' loss.
        seed: of every draw.
    """

    steps: int = 200
    rate: float = 3e-2
    decay: float = 1e-3
    width: int = 64
    rehearsal: float = 0.5
    unknown: float = 1.0
    coarse: float = 0.2
    seed: int = 0


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
        """Of (N, F) features, by the network without any study's heads; on the CPU."""
        device = next(net.parameters()).device
        heads = with_study_heads(net, None).task_heads
        with torch.no_grad():
            out = heads.rows(features.to(device), (CLASSES, GROUPS))
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
        return Targets(*(_at(t, index) for t in (self.members, self.known, self.bits, self.told)))


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


def refit(
    rows: Rows,
    before: Logits,
    rehearsal: tuple[Tensor, Tensor, Logits] | None,
    held_back: Sequence[int | None],
    hierarchy: LabelHierarchy,
    options: RefitOptions,
) -> list[StudyHeads]:
    """Study heads, one for each part that is held back.

    Args:
        rows: of the study.
        before: what the published heads say of them.
        rehearsal: features (M, F), class sets (M,) and the published heads' logits of rows of
            the training data; None: there are none.
        held_back: folds; None: learn from everything.
        hierarchy: classes and groups.
        options: how.

    Returns:
        modules without gradients, in the order of `held_back`.
    """
    known = rows.sets != hierarchy.unknown
    outputs = {CLASSES: before.classes.shape[1], GROUPS: before.groups.shape[1]}
    outputs = {name: size for name, size in outputs.items() if size}
    stack = Stack(rows.features, outputs, len(held_back), options.width, options.seed)
    study = _Known.of(stack, rows.features, before, rows.sets, hierarchy)
    trained = None if rehearsal is None else _trained(stack, rehearsal, hierarchy, options)
    generator = torch.Generator().manual_seed(options.seed)
    draws = [
        _ends(rows.weight * known * (1.0 if fold is None else rows.trains(fold)))
        for fold in held_back
    ]
    quiet = _ends(rows.weight * ~known)
    pulled = options.unknown > 0 and not bool(known.all()) and _one_sided(rows, hierarchy)
    optimiser = torch.optim.AdamW(
        stack.parameters, options.rate, weight_decay=options.decay, fused=True
    )
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * _schedule(step, options.steps)
        index = torch.stack([_draw(ends, BATCH, generator) for ends in draws])
        loss = study.loss(stack, index, options.coarse)
        if pulled:
            same = _draw(quiet, BATCH // 4, generator)
            loss = loss + options.unknown * study.divergence(stack, same)
        if trained is not None:
            at = torch.randint(len(trained.targets.known), (BATCH,), generator=generator)
            old = trained.loss(stack, at, options.coarse)
            loss = loss + options.rehearsal * old
        optimiser.zero_grad()
        torch.autograd.backward([loss.sum()])
        optimiser.step()
    return stack.modules()


@dataclass(frozen=True)
class _Known:
    """Rows as the optimiser draws them.

    Args:
        standard: (N, F) features as the models take them.
        before: the published heads' logits.
        targets: of their class sets.
    """

    standard: Tensor
    before: Logits
    targets: Targets

    @staticmethod
    def of(
        stack: Stack, features: Tensor, before: Logits, sets: Tensor, hierarchy: LabelHierarchy
    ) -> _Known:
        return _Known(stack.standard(features), before, Targets.of(sets, hierarchy))

    def logits(self, stack: Stack, index: Tensor) -> tuple[Tensor, Tensor]:
        """(M, n, C) and (M, n, K) of the rows at (M, n) places, or at (n,) places for all."""
        change = stack(_at(self.standard, index))
        classes = self.before.classes.shape[1]
        return (
            _at(self.before.classes, index) + change[..., :classes],
            _at(self.before.groups, index) + change[..., classes:],
        )

    def loss(self, stack: Stack, index: Tensor, coarse: float) -> Tensor:
        """(M,) of each model, the mean over its rows."""
        return voxel_losses(*self.logits(stack, index), self.targets[index], coarse).mean(1)

    def divergence(self, stack: Stack, index: Tensor) -> Tensor:
        """(M,) how far each model's classes are from the published heads', on average."""
        return _divergence(_at(self.before.classes, index), self.logits(stack, index)[0])


def _trained(
    stack: Stack,
    rehearsal: tuple[Tensor, Tensor, Logits],
    hierarchy: LabelHierarchy,
    options: RefitOptions,
) -> _Known | None:
    """Rows of the training data; None where they count for nothing."""
    features, sets, logits = rehearsal
    return _Known.of(stack, features, logits, sets, hierarchy) if options.rehearsal else None


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


def _one_sided(rows: Rows, hierarchy: LabelHierarchy) -> bool:
    """Of any class that was annotated as such."""
    kinds = [int(s) for s in torch.unique(rows.sets).tolist() if int(s).bit_count() == 1]
    return any(one_sided(rows, kind, hierarchy) for kind in kinds)


def scaled(heads: StudyHeads, strength: float) -> StudyHeads:
    """The same change, `strength` times as large."""
    made = heads.alike()
    made.load_state_dict(heads.state_dict())
    for parameter in made.outer.parameters():
        parameter.data.mul_(strength)
    return made.requires_grad_(False).eval()


def change_of(heads: StudyHeads, features: Tensor) -> Mapping[str, Tensor]:
    """What the heads add to the logits of (N, F) features, whichever channels are used."""
    with torch.no_grad():
        parts = torch.split(heads.change(features), list(heads.outputs.values()), -1)
    return dict(zip(heads.outputs, parts, strict=True))


def _at(values: Tensor, index: Tensor) -> Tensor:
    """(*index.shape, ...) rows of (N, ...) values, much faster than by subscription."""
    return values.index_select(0, index.reshape(-1)).view(*index.shape, *values.shape[1:])


def _ends(weight: Tensor) -> Tensor:
    """(N,) where each row's stretch ends, as long as its weight, for `_draw`."""
    return weight.double().cumsum(0)


def _draw(ends: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows drawn by their weights, as the voxels occur, in ascending order."""
    at = torch.rand(count, generator=generator, dtype=torch.float64).sort()[0] * ends[-1]
    return torch.searchsorted(ends, at, right=True).clamp_max(len(ends) - 1)


def _divergence(before: Tensor, after: Tensor) -> Tensor:
    """Kullback-Leibler divergence of (M, n, C) logits, its mean over the rows: (M,)."""
    old = before.log_softmax(-1)
    return (old.exp() * (old - after.log_softmax(-1))).sum(-1).mean(1)


def _schedule(step: int, steps: int) -> float:
    """Rises for a while, then falls to nothing along half a cosine."""
    done = step / max(steps, 1)
    rise = min(1.0, done / WARMUP) if WARMUP else 1.0
    return float(rise * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done))))
