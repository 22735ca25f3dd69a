"""Held-back rows, what was and what would be said of them, and figures of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.adaptation.rows import Rows
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.study_heads import CLASSES, mixed

BETTER_THAN_ALL = 1.25
"""recall^2 / P(found) of calling everything the class is 1."""


@dataclass(frozen=True)
class Judged:
    """Rows with what was and what would be said of them.

    Args:
        rows: N rows.
        block: (N,) 0..B-1.
        old: (N, C) logits.
        change: (N, C) of the heads that did not see the row.
        hierarchy: classes.
    """

    rows: Rows
    block: Tensor
    old: Tensor
    change: Tensor
    hierarchy: LabelHierarchy

    @property
    def sets(self) -> Tensor:
        return self.rows.sets

    @property
    def weight(self) -> Tensor:
        return self.rows.weight

    @property
    def known(self) -> Tensor:
        return self.sets != self.hierarchy.unknown

    def guess(self, strength: float, used: Tensor) -> Tensor:
        """(N,) the likeliest class with the change at a strength."""
        return mixed(CLASSES, self.old, self.old + strength * self.change, used).argmax(-1)

    def counts(self, guess: Tensor, kinds: Sequence[int]) -> Tensor:
        """(kinds, B, 4) voxels: right, found too much, missed, rightly something else."""
        blocks = int(self.block.max()) + 1
        found = torch.zeros((len(kinds), blocks, 4), dtype=torch.float64)
        for k, kind in enumerate(kinds):
            inside = (kind >> guess) & 1 == 1
            true = self.known & ((self.sets & ~kind) == 0)
            false = self.known & ((self.sets & kind) == 0)
            hits = (true & inside, false & inside, true & ~inside, false & ~inside)
            for j, hit in enumerate(hits):
                found[k, :, j].index_add_(0, self.block[hit], self.weight[hit].double())
        return found


def plausible(judged: Judged, kind: int, old: Tensor, new: Tensor) -> bool:
    """Whether what is found grows no faster than what was missed, where no negatives are known."""
    true = judged.sets == kind
    weight = judged.weight.double()
    unknown = ~judged.known
    if not bool(unknown.any()):
        return False
    values = []
    for guess in (old, new):
        inside = (kind >> guess) & 1 == 1
        recall = float(weight[true & inside].sum() / weight[true].sum())
        share = float(weight[unknown & inside].sum() / weight[unknown].sum())
        values.append(recall**2 / max(share, 1e-4))
    return values[1] > max(values[0], BETTER_THAN_ALL)


def union(kinds: Sequence[int], classes: int) -> Tensor:
    """(classes,) bool, the members of any of some class sets."""
    bits = 0
    for kind in kinds:
        bits |= kind
    return torch.tensor([bool(bits >> c & 1) for c in range(classes)])


def iou(counts: Tensor) -> Tensor:
    """Of (..., 4) right, too much, missed, rest; 0 where there is nothing."""
    return counts[..., 0] / counts[..., :3].sum(-1).clamp_min(1e-9)


def correlation(counts: Tensor) -> Tensor:
    """Matthews' correlation of the same counts; 0 where answer or label never changes."""
    right, much, missed, rest = counts.unbind(-1)
    sides = (right + much) * (right + missed) * (rest + much) * (rest + missed)
    return (right * rest - much * missed) / sides.clamp_min(1e-9).sqrt()
