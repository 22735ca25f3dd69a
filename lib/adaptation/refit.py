"""Refit: study heads learned from rows, several at once.

One model for each part of the rows that is held back, and one that learns from all of them, learn
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.adaptation.one_sided import any_one_sided
from lib.adaptation.row_losses import (
    GROUPS,
    Logits,
    Targets,
    divergence,
    is_group,
    rows_at,
    voxel_losses,
    within_groups,
)
from lib.adaptation.rows import Rows
from lib.adaptation.stack import Stack
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.study_heads import CLASSES, StudyHeads
from lib.prediction.filters import COUNT as FILTERS

BATCH = 512
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
        beside: how many columns of the rows are filter responses; they come last.
    """

    steps: int = 200
    rate: float = 3e-2
    decay: float = 1e-3
    width: int = 64
    rehearsal: float = 0.5
    unknown: float = 1.0
    coarse: float = 0.2
    seed: int = 0
    beside: int = FILTERS


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
        rehearsal: features (M, F + FILTERS), class sets (M,) and the published heads' logits of
            rows of the training data; None: there are none.
        held_back: folds; None: learn from everything.
        hierarchy: classes and groups.
        options: how.

    Returns:
        modules without gradients, in the order of `held_back`.
    """
    known = rows.sets != hierarchy.unknown
    outputs = {CLASSES: before.classes.shape[1], GROUPS: before.groups.shape[1]}
    outputs = {name: size for name, size in outputs.items() if size}
    stack = Stack(
        rows.features, outputs, len(held_back), options.width, options.seed, options.beside
    )
    study = _Known.of(stack, rows.features, before, rows.sets, hierarchy)
    study = replace(study, groups=bool(is_group(study.targets).any()))
    trained = None if rehearsal is None else _trained(stack, rehearsal, hierarchy, options)
    generator = torch.Generator().manual_seed(options.seed)
    draws = [
        _ends(rows.weight * known * (1.0 if fold is None else rows.trains(fold)))
        for fold in held_back
    ]
    quiet = _ends(rows.weight * ~known)
    pulled = options.unknown > 0 and not bool(known.all()) and any_one_sided(rows, hierarchy)
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
            loss = loss + options.unknown * study.far(stack, same)
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
        groups: some of the sets are groups, whose classes keep their shares.
    """

    standard: Tensor
    before: Logits
    targets: Targets
    groups: bool = False

    @staticmethod
    def of(
        stack: Stack, features: Tensor, before: Logits, sets: Tensor, hierarchy: LabelHierarchy
    ) -> _Known:
        return _Known(stack.standard(features), before, Targets.of(sets, hierarchy))

    def logits(self, stack: Stack, index: Tensor) -> tuple[Tensor, Tensor]:
        """(M, n, C) and (M, n, K) of the rows at (M, n) places, or at (n,) places for all."""
        change = stack(rows_at(self.standard, index))
        classes = self.before.classes.shape[1]
        return (
            rows_at(self.before.classes, index) + change[..., :classes],
            rows_at(self.before.groups, index) + change[..., classes:],
        )

    def loss(self, stack: Stack, index: Tensor, coarse: float) -> Tensor:
        """(M,) of each model, the mean over its rows."""
        classes, groups = self.logits(stack, index)
        targets = self.targets[index]
        each = voxel_losses(classes, groups, targets, coarse)
        if self.groups:
            each = each + within_groups(rows_at(self.before.classes, index), classes, targets)
        return each.mean(1)

    def far(self, stack: Stack, index: Tensor) -> Tensor:
        """(M,) how far each model's classes are from the published heads', on average."""
        return divergence(rows_at(self.before.classes, index), self.logits(stack, index)[0])


def _trained(
    stack: Stack,
    rehearsal: tuple[Tensor, Tensor, Logits],
    hierarchy: LabelHierarchy,
    options: RefitOptions,
) -> _Known | None:
    """Rows of the training data; None where they count for nothing."""
    features, sets, logits = rehearsal
    return _Known.of(stack, features, logits, sets, hierarchy) if options.rehearsal else None


def scaled(heads: StudyHeads, strength: float) -> StudyHeads:
    """The same change, `strength` times as large."""
    made = heads.alike()
    made.load_state_dict(heads.state_dict())
    for parameter in made.outer.parameters():
        parameter.data.mul_(strength)
    return made.requires_grad_(False).eval()


def change_of(heads: StudyHeads, features: Tensor) -> Mapping[str, Tensor]:
    """What the heads add to the logits of rows' features, whichever channels are used."""
    sizes = [features.shape[1] - heads.beside, heads.beside]
    own, beside = torch.split(features, sizes, -1)
    with torch.no_grad():
        change = heads.change(own, beside if heads.beside else None)
        parts = torch.split(change, list(heads.outputs.values()), -1)
    return dict(zip(heads.outputs, parts, strict=True))


def _ends(weight: Tensor) -> Tensor:
    """(N,) where each row's stretch ends, as long as its weight, for `_draw`."""
    return weight.double().cumsum(0)


def _draw(ends: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows drawn by their weights, as the voxels occur, in ascending order."""
    at = torch.rand(count, generator=generator, dtype=torch.float64).sort()[0] * ends[-1]
    return torch.searchsorted(ends, at, right=True).clamp_max(len(ends) - 1)


def _schedule(step: int, steps: int) -> float:
    """Rises for a while, then falls to nothing along half a cosine."""
    done = step / max(steps, 1)
    rise = min(1.0, done / WARMUP) if WARMUP else 1.0
    return float(rise * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done))))
