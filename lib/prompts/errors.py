"""Prompts as annotators give them: each further point lies in an error of the answer so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lib.prompts.points import NEGATIVE, PADDING, POSITIVE, PointPrompts
from lib.prompts.sampling import SampledPrompts

Answer = Callable[[PointPrompts], Tensor]
"""Prompts -> (B, 1, *S) logits of belonging to the prompted object."""


def draw_rounds(most: int, generators: Sequence[torch.Generator]) -> list[int]:
    """How many corrections each sample gets: 0 .. most, all alike."""
    return [int(torch.randint(most + 1, (1,), generator=g)) for g in generators]


def correct_errors(
    sampled: SampledPrompts,
    answer: Answer,
    rounds: Sequence[int],
    generators: Sequence[torch.Generator],
) -> SampledPrompts:
    """Points of a short session: the first positive one, then one in an error of each answer.

    A correction falls on any voxel of the more common kind of error: missed voxels get a
    positive point, voxels too many a negative one. A perfect answer gets none.

    Args:
        sampled: points drawn from the truth, of which the first positive one is kept.
        answer: of the network as it is.
        rounds: corrections of each sample; 0 leaves its points as they are.
        generators: of each sample, on the CPU.

    Returns:
        The same targets with as many slots for points.
    """
    prompts = sampled.prompts
    labels, coords = prompts.labels.clone(), prompts.coords.clone()
    for b, count in enumerate(rounds):
        if count:
            labels[b, 1:] = PADDING
    assert max(rounds, default=0) < labels.shape[1], "a slot for each correction"
    for slot in range(1, max(rounds, default=0) + 1):
        now = replace(prompts, labels=labels.clone(), coords=coords.clone())
        with torch.no_grad():
            found = answer(now)[:, 0] > 0
        for b, generator in enumerate(generators):
            if slot > rounds[b] or labels[b, 0] != POSITIVE:
                continue
            point = _point_in_error(found[b], sampled.target[b], sampled.known[b], generator)
            if point is not None:
                coords[b, slot], labels[b, slot] = point
    return replace(sampled, prompts=replace(prompts, labels=labels, coords=coords))


def _point_in_error(
    found: Tensor, target: Tensor, known: Tensor, generator: torch.Generator
) -> tuple[Tensor, int] | None:
    """A voxel (S,) of the more common kind of error, and the label of a point there."""
    missed = (target & ~found & known).nonzero()
    extra = (found & ~target & known).nonzero()
    wrong, label = (missed, POSITIVE) if len(missed) >= len(extra) else (extra, NEGATIVE)
    if not len(wrong):
        return None
    return wrong[int(torch.randint(len(wrong), (1,), generator=generator))], label
