"""Prompts as annotators give them: each further point lies in an error of the answer so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lib.prompts.points import NEGATIVE, PADDING, POSITIVE, PointPrompts
from lib.prompts.sampling import SampledPrompts

Answer = Callable[[PointPrompts], Tensor]
"""Prompts -> (B, 1, *S) logits of belonging to the prompted object, of every STRIDE-th voxel."""
STRIDE = 2
"""Errors are looked for in every second column and row: a quarter of the cost."""


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
        answer: of the network as it is, on `every_second` voxel.
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
    target, known = (every_second(t) for t in (sampled.target, sampled.known))
    steps = strides(target.ndim - 1).to(coords.device)
    assert max(rounds, default=0) < labels.shape[1], "a slot for each correction"
    for slot in range(1, max(rounds, default=0) + 1):
        now = replace(prompts, labels=labels.clone(), coords=coords.clone())
        with torch.no_grad():
            found = answer(now)[:, 0] > 0
        for b, generator in enumerate(generators):
            if slot > rounds[b] or labels[b, 0] != POSITIVE:
                continue
            point = _point_in_error(found[b], target[b], known[b], generator)
            if point is not None:
                coords[b, slot], labels[b, slot] = point[0] * steps, point[1]
    return replace(sampled, prompts=replace(prompts, labels=labels, coords=coords))


def strides(dims: int) -> Tensor:
    """(S,) voxels between those looked at: STRIDE in plane, 1 across the sections."""
    return torch.tensor([STRIDE, STRIDE] + [1] * (dims - 2))


def every_second(volume: Tensor, leading: int = 1) -> Tensor:
    """Every STRIDE-th voxel in plane, after so many leading axes."""
    return volume[(slice(None),) * leading + (slice(None, None, STRIDE),) * 2]


def thinned(prompts: PointPrompts) -> PointPrompts:
    """The points in voxels of `every_second`."""
    steps = strides(prompts.coords.shape[2]).to(prompts.coords.device)
    size = prompts.voxel_size_nm
    size = torch.ones_like(prompts.coords[:, 0], dtype=torch.float32) if size is None else size
    return replace(prompts, coords=prompts.coords // steps, voxel_size_nm=size * steps)


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
