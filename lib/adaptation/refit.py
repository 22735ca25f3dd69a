"""Refit: study heads learned from rows, several at once.

One model for each part of the rows that is held back, and one that learns from all of them, are
trained in the same matrix products: small heads cost less in the arithmetic than in the calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lib.adaptation.rows import Rows
from lib.labels.class_sets import coarse_targets, set_members
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import CLASSES, StudyHeads, with_study_heads

GROUPS = "coarse"
BATCH = 512
ONE_SIDED = 0.1
"""Voxels known not to be of a class, as a share of those known to be, below which IoU is blind."""
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


def voxel_losses(
    classes: Tensor, groups: Tensor, sets: Tensor, hierarchy: LabelHierarchy, coarse: float
) -> Tensor:
    """Loss of each row: the criterion's masked cross-entropy and its coarse term, unaveraged.

    -log of the summed probability of the row's class set, plus `coarse` times the binary
    cross-entropy averaged over the groups that the set makes known. Exactly zero, and without
    gradient, where nothing is known.

    Args:
        classes: (..., N, C) logits.
        groups: (..., N, K) logits.
        sets: (..., N) class sets.

    Returns:
        (..., N).

    Source: spec/clarifications.md, "Class sets"; lib/losses/semantic.py.
    """
    shape = sets.shape
    flat = sets.reshape(1, -1)
    members = set_members(flat, hierarchy.num_classes)[0].T.view(*shape, -1)
    inside = classes.log_softmax(-1).masked_fill(~members, -torch.inf).logsumexp(-1)
    loss = torch.where(flat.view(shape) != hierarchy.unknown, -inside, 0.0)
    if groups.shape[-1]:
        bits, known = (t[0].T.view(*shape, -1) for t in coarse_targets(flat, hierarchy))
        each = functional.binary_cross_entropy_with_logits(groups, bits.float(), reduction="none")
        loss = loss + coarse * (each * known).sum(-1) / known.sum(-1).clamp_min(1)
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
    stack = _Stack(rows.features, before, len(held_back), options)
    generator = torch.Generator().manual_seed(options.seed)
    draws = [
        rows.weight.double() * known * (1.0 if fold is None else rows.trains(fold))
        for fold in held_back
    ]
    quiet = rows.weight.double() * ~known
    pulled = options.unknown > 0 and bool(quiet.any()) and _one_sided(rows, hierarchy)
    parameters = stack.parameters
    optimiser = torch.optim.AdamW(parameters, options.rate, weight_decay=options.decay)
    for step in range(options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * _schedule(step, options.steps)
        index = torch.stack([_draw(weight, BATCH, generator) for weight in draws])
        classes, groups = stack(rows.features[index], before, index)
        loss = voxel_losses(classes, groups, rows.sets[index], hierarchy, options.coarse).mean(1)
        if pulled:
            same = _draw(quiet, BATCH // 4, generator).expand(len(draws), -1)
            classes, _ = stack(rows.features[same], before, same)
            loss = loss + options.unknown * _divergence(before.classes[same], classes)
        if rehearsal is not None and options.rehearsal:
            features, sets, logits = rehearsal
            at = torch.randint(len(sets), (BATCH,), generator=generator).expand(len(draws), -1)
            classes, groups = stack(features[at], logits, at)
            old = voxel_losses(classes, groups, sets[at], hierarchy, options.coarse).mean(1)
            loss = loss + options.rehearsal * old
        optimiser.zero_grad()
        torch.autograd.backward([loss.sum()])
        optimiser.step()
    return stack.modules()


def one_sided(rows: Rows, kind: int, hierarchy: LabelHierarchy) -> bool:
    """Whether a class or set was painted and next to nothing is said of where it is not."""
    known = rows.sets != hierarchy.unknown
    true = known & ((rows.sets & ~kind) == 0)
    false = known & ((rows.sets & kind) == 0)
    negatives, positives = (float(rows.weight[where].sum()) for where in (false, true))
    return negatives < ONE_SIDED * positives


def _one_sided(rows: Rows, hierarchy: LabelHierarchy) -> bool:
    """Of any class that was annotated as such."""
    kinds = [int(s) for s in torch.unique(rows.sets).tolist() if int(s).bit_count() == 1]
    return any(one_sided(rows, kind, hierarchy) for kind in kinds)


class _Stack:
    """Models of one shape, evaluated together: every tensor has their number first."""

    def __init__(self, features: Tensor, before: Logits, count: int, options: RefitOptions) -> None:
        self.outputs = {CLASSES: before.classes.shape[1], GROUPS: before.groups.shape[1]}
        self.outputs = {name: size for name, size in self.outputs.items() if size}
        torch.manual_seed(options.seed)
        self.template = StudyHeads(features.shape[1], self.outputs, options.width)
        self.template.mean = features.mean(0)
        self.template.scale = features.std(0, correction=0) + 1e-3
        self.parameters = [
            p.detach().expand(count, *p.shape).clone().requires_grad_()
            for p in self.template.parameters()
        ]

    def __call__(self, features: Tensor, before: Logits, index: Tensor) -> tuple[Tensor, Tensor]:
        """(M, n, C) and (M, n, K) logits of (M, n, F) features, whose old logits are at `index`."""
        inner, inner_bias, outer, outer_bias = self.parameters
        x = (features - self.template.mean) / self.template.scale
        hidden = functional.relu(torch.baddbmm(inner_bias[:, None], x, inner.transpose(1, 2)))
        change = torch.baddbmm(outer_bias[:, None], hidden, outer.transpose(1, 2))
        classes = before.classes.shape[1]
        return (
            before.classes[index] + change[..., :classes],
            before.groups[index] + change[..., classes:],
        )

    def modules(self) -> list[StudyHeads]:
        """One module for each model."""
        made = []
        for number in range(len(self.parameters[0])):
            module = StudyHeads(
                self.template.inner.in_features, self.outputs, self.template.inner.out_features
            )
            module.mean, module.scale = self.template.mean, self.template.scale
            for own, stacked in zip(module.parameters(), self.parameters, strict=True):
                own.data.copy_(stacked[number].detach())
            made.append(module.requires_grad_(False).eval())
        return made


def scaled(heads: StudyHeads, strength: float) -> StudyHeads:
    """The same change, `strength` times as large."""
    made = StudyHeads(heads.inner.in_features, heads.outputs, heads.inner.out_features)
    made.load_state_dict(heads.state_dict())
    for parameter in made.outer.parameters():
        parameter.data.mul_(strength)
    return made.requires_grad_(False).eval()


def change_of(heads: StudyHeads, features: Tensor) -> Mapping[str, Tensor]:
    """What the heads add to the logits of (N, F) features, whichever channels are used."""
    with torch.no_grad():
        standard = (features - heads.mean) / heads.scale
        change = heads.outer(functional.relu(heads.inner(standard)))
    return dict(zip(heads.outputs, torch.split(change, list(heads.outputs.values()), -1)))  # noqa: B905


def _draw(weight: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows drawn by their weights, as the voxels occur."""
    ends = weight.cumsum(0)
    at = torch.rand(count, generator=generator, dtype=torch.float64) * ends[-1]
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
