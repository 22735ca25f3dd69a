"""Gate: a refit is used only where it beats what was there, on parts that it did not see.

Every row is judged by the heads that were fitted without its part. The figures are IoUs over
known voxels: of each class, and of each set of classes that was annotated as such. Blocks are
drawn anew many times, which says how sure a gain is. IoU grows by calling everything the class
where labels say nothing about the image, so the correlation of answer and label has to grow as
much. Where only one side of a class is known - one clicked cell and nothing said of the rest -
neither sees what is found too much: an answer that calls everything so has an IoU of 1. Such a
class cannot be judged and stays as it was, unless it lies inside of cells, as people paint
mitochondria and nothing else: there the recall's square over the predicted share has to grow.

Source: bootstrap over blocks, Efron 1979; correlation of two binary variables, Matthews 1975;
    positive and unlabelled data, Lee & Liu 2003 (recall^2 / P(found)).
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.adaptation.judged import Judged, correlation, iou, plausible, union
from lib.adaptation.one_sided import one_sided
from lib.adaptation.row_losses import Logits
from lib.adaptation.rows import Rows
from lib.labels.hierarchy import LabelHierarchy

LEAST_BLOCKS = 6
"""Blocks that must hold a class; fewer say nothing about the rest of the volume."""
LEAST_VOXELS = 200.0
SURE = 0.9
"""Share of the bootstrap's draws in which a class must gain enough."""
LEAST_GAIN = 0.03
"""IoU and correlation that a class must gain: blocks of one box are more alike than the rest of a
volume is, and a smaller gain within it has been a loss outside (benchmarks/first-day.md)."""
ONE_SIDED_GAIN = 0.1
"""IoU that an organelle must gain of which nothing is known that it is not."""
DRAWS = 300
LARGEST_LOSS = 0.005
"""IoU that a class may lose while others gain."""
STRENGTHS = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Figure:
    """What became of one class or annotated set on the held-back parts.

    Args:
        name: of the class or set.
        before, after: IoU.
        sure: share of the bootstrap's draws in which it gained enough.
        voxels: known voxels of it.
        used: whether the refit is used for it.
        one_sided: whether next to nothing is known that is not of it; the IoUs say only how much
            of it was found then.
    """

    name: str
    before: float
    after: float
    sure: float
    voxels: int
    used: bool
    one_sided: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Args:
        used: (C,) bool, the classes the refit is used for.
        groups: (K,) bool, the groups.
        strength: of the change.
        figures: of what was annotated.
        reason: why nothing is used; "" where something is.
    """

    used: Tensor
    groups: Tensor
    strength: float
    figures: tuple[Figure, ...] = ()
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the refit is used for anything."""
        return bool(self.used.any())


def judge(
    rows: Rows,
    before: Logits,
    changes: Tensor,
    hierarchy: LabelHierarchy,
    seed: int = 0,
) -> Verdict:
    """Decide for which classes, and how strongly, a refit is used.

    Args:
        rows: of the study, known and unknown ones.
        before: what the published heads say of them.
        changes: (N, C) what the refit adds to the classes' logits, each row by the heads that
            were fitted without it.
        hierarchy: classes and groups.
        seed: of the bootstrap.
    """
    _, block = torch.unique(rows.block, return_inverse=True)
    judged = Judged(rows, block, before.classes, changes, hierarchy)
    kinds, reason = _kinds(judged)
    nothing = Verdict(
        torch.zeros(hierarchy.num_classes, dtype=torch.bool),
        torch.zeros(hierarchy.num_groups, dtype=torch.bool),
        0.0,
        reason=reason,
    )
    allowed = [k for k in kinds if not (one_sided(rows, k, hierarchy) and of_cells(k, hierarchy))]
    if not allowed:
        return nothing if reason else replace(nothing, reason=_lacking(judged, kinds))
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(int(block.max()) + 1, (DRAWS, int(block.max()) + 1), generator=generator)
    times = torch.zeros((DRAWS, int(block.max()) + 1), dtype=torch.float64)
    times.scatter_add_(1, draws, torch.ones_like(draws, dtype=torch.float64))
    best = nothing
    best_gain = 0.0
    shown: tuple[Figure, ...] = ()
    for strength in STRENGTHS:
        verdict = _decide(judged, kinds, allowed, strength, times)
        shown = shown or verdict.figures
        gain = sum(f.after - f.before for f in verdict.figures if f.used)
        if verdict.passed and gain > best_gain:
            best, best_gain = verdict, gain
    if best.passed:
        return best
    refused = tuple(replace(figure, used=False) for figure in shown)
    return Verdict(nothing.used, nothing.groups, 0.0, refused, "no class is surely better")


def _kinds(judged: Judged) -> tuple[list[int], str]:
    """The annotated classes and small sets of classes that can be judged."""
    most = judged.hierarchy.num_classes // 2
    candidates = [
        int(s)
        for s in torch.unique(judged.sets[judged.known]).tolist()
        if int(s).bit_count() <= most
    ]
    kinds: list[int] = []
    few: list[int] = []
    for kind in candidates:
        hit = judged.sets == kind
        blocks = len(torch.unique(judged.block[hit]))
        enough = float(judged.weight[hit].sum()) >= LEAST_VOXELS and blocks >= LEAST_BLOCKS
        (kinds if enough else few).append(kind)
    if kinds:
        return kinds, ""
    if not few:
        return [], "no class or group is annotated"
    names = ", ".join(judged.hierarchy.describe(kind) for kind in few[:3])
    return [], (
        f"too little to tell: {names} in fewer than {LEAST_BLOCKS} places; annotate more of it, "
        "or farther apart"
    )


def of_cells(kind: int, hierarchy: LabelHierarchy) -> bool:
    """Whether a class or set may be a cell's, and not only an organelle's."""
    return bool(kind & ~hierarchy.inside_set)


def _lacking(judged: Judged, kinds: list[int]) -> str:
    """What is to be annotated before any of some one-sided kinds can be judged."""
    every = functools.reduce(operator.or_, kinds)
    widest = [k for k in kinds if not any(k != o and k & ~o == 0 for o in kinds)]
    names = " or ".join(judged.hierarchy.describe(kind) for kind in widest)
    if bool((judged.sets & every == 0).any()):
        what = f"hardly anything but {names} is annotated; mark more that is not {names}"
    else:
        what = f"only {names} is annotated; mark something that is not {names}"
    return f"{what}, then it can be judged"


def _decide(
    judged: Judged, kinds: list[int], able: list[int], strength: float, times: Tensor
) -> Verdict:
    """Use the change for all kinds that can be judged; leave out the worst until none is harmed."""
    classes = judged.hierarchy.num_classes
    whole = judged.guess(0.0, torch.zeros(classes, dtype=torch.bool))
    old = judged.counts(whole, kinds)
    allowed = list(able)
    figures: tuple[Figure, ...] = ()
    while True:
        used = union(allowed, classes)
        guess = judged.guess(strength, used)
        new = judged.counts(guess, kinds)
        figures, worst = _figures(judged, kinds, allowed, old, new, times)
        for kind in allowed:
            blind = one_sided(judged.rows, kind, judged.hierarchy)
            if blind and not plausible(judged, kind, whole, guess):
                worst = kind
        if worst is None:
            break
        if worst not in allowed:  # a class that is not changed suffers from those that are
            worst = min(allowed, key=lambda k: figures[kinds.index(k)].sure)
        allowed.remove(worst)
        if not allowed:
            break
    used = union(allowed, classes)
    groups = torch.tensor(
        [bool(used[list(m)].any()) for _, m in judged.hierarchy.groups], dtype=torch.bool
    )
    return Verdict(used, groups, strength, figures)


def _figures(
    judged: Judged,
    kinds: list[int],
    allowed: list[int],
    old: Tensor,
    new: Tensor,
    times: Tensor,
) -> tuple[tuple[Figure, ...], int | None]:
    """Figures of all kinds, and the kind that must go: the least sure one, or one harmed."""
    figures, worst, least = [], None, SURE
    for k, kind in enumerate(kinds):
        one, other = times @ old[k], times @ new[k]
        blind = one_sided(judged.rows, kind, judged.hierarchy)
        gained = iou(other) - iou(one) > (ONE_SIDED_GAIN if blind else LEAST_GAIN)
        if not blind:
            gained &= correlation(other) - correlation(one) > LEAST_GAIN
        sure = float(gained.double().mean())
        before, after = (float(iou(c[k].sum(0))) for c in (old, new))
        used = kind in allowed
        voxels = round(float(old[k][:, (0, 2)].sum()))
        name = judged.hierarchy.describe(kind)
        figures.append(Figure(name, before, after, sure, voxels, used, blind))
        harmed = not used and after < before - LARGEST_LOSS
        if (used and sure < least) or harmed:
            worst, least = kind, -1.0 if harmed else sure
    return tuple(figures), worst
