"""Simulated clicks: a target drawn from the ground truth, points inside it and elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.configs.settings import TrainingSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.prompts.points import NEGATIVE, PADDING, POSITIVE, PointPrompts


@dataclass(frozen=True)
class SampledPrompts:
    """Points and what they ask for.

    Args:
        prompts: the points; samples without a target have none.
        target: (B, *S) bool, the voxels of the chosen object or class.
        known: (B, *S) bool, where it is known whether a voxel belongs to the target.
    """

    prompts: PointPrompts
    target: Tensor
    known: Tensor


@dataclass(frozen=True)
class _Target:
    inside: Tensor
    known: Tensor
    class_id: int
    instance: bool


def sample_prompts(
    class_sets: Tensor,
    instance: Tensor,
    hierarchy: LabelHierarchy,
    training: TrainingSettings,
    generator: torch.Generator | None = None,
    voxel_size_nm: Tensor | None = None,
    samples: Tensor | None = None,
) -> SampledPrompts:
    """Draw one target a sample and points for it.

    Positive points are uniform over the target, negative ones over all other voxels that are
    known not to belong to it. A sample without any object (class) gets no points.

    Args:
        class_sets: (B, *S) integer bit masks.
        instance: (B, *S) int64; > 0 objects, 0 none, -1 unknown.
        hierarchy: names the classes.
        training: number of points and `point_sample_mode`.
        generator: a CPU generator; None uses the default one.
        voxel_size_nm: (B, S), handed on to the prompts.
        samples: (B,) bool, which samples to prompt; None: all.

    Source: spec/training-modes.md 2a.1-2.
    """
    targets: list[_Target | None] = []
    for b in range(len(instance)):
        wanted = samples is None or bool(samples[b])
        if not wanted:
            targets.append(None)
        elif training.point_sample_mode == "instance":
            targets.append(_draw_instance(class_sets[b], instance[b], hierarchy, generator))
        else:
            targets.append(_draw_class(class_sets[b], hierarchy, generator))
    dims = instance[0].ndim
    points = [_draw_points(t, training, dims, generator) for t in targets]
    device = instance.device
    classes = torch.tensor([-1 if t is None else t.class_id for t in targets])
    of_instance = torch.tensor([t is not None and t.instance for t in targets])
    labels = torch.stack([label for _, label in points])
    prompts = PointPrompts(
        torch.stack([coords for coords, _ in points]).to(device),
        labels.to(device),
        classes.unsqueeze(1).expand(labels.shape).to(device),
        of_instance.unsqueeze(1).expand(labels.shape).to(device),
        voxel_size_nm,
    )
    nothing = torch.zeros_like(instance[0], dtype=torch.bool)
    return SampledPrompts(
        prompts,
        torch.stack([nothing if t is None else t.inside for t in targets]),
        torch.stack([nothing if t is None else t.known for t in targets]),
    )


def _draw_instance(
    class_sets: Tensor,
    instance: Tensor,
    hierarchy: LabelHierarchy,
    generator: torch.Generator | None,
) -> _Target | None:
    ids = torch.unique(instance)
    ids = ids[ids > 0]
    if not len(ids):
        return None
    chosen = ids[_draw(len(ids), 1, generator)]
    inside = instance == chosen.to(ids.device)
    return _Target(inside, instance >= 0, _main_class(class_sets[inside], hierarchy), True)


def _draw_class(
    class_sets: Tensor, hierarchy: LabelHierarchy, generator: torch.Generator | None
) -> _Target | None:
    present = set(torch.unique(class_sets).tolist())
    classes = [c for c in range(hierarchy.num_classes) if 1 << c in present]
    if not classes:
        return None
    chosen = classes[int(_draw(len(classes), 1, generator))]
    inside = class_sets == 1 << chosen
    known = inside | ((class_sets & (1 << chosen)) == 0)
    return _Target(inside, known, chosen, False)


def _main_class(class_sets: Tensor, hierarchy: LabelHierarchy) -> int:
    """The fine class most of an object's fully known voxels have; -1 when none is."""
    values, counts = torch.unique(class_sets, return_counts=True)
    best, most = -1, 0
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        members = hierarchy.members(value)
        if len(members) == 1 and count > most:
            best, most = members[0], count
    return best


def _draw_points(
    target: _Target | None,
    training: TrainingSettings,
    dims: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Positive then negative points, padded to the settings' numbers: (N, S), (N,) int64."""
    count = (training.num_pos_points, training.num_neg_points)
    coords = torch.zeros((sum(count), dims), dtype=torch.int64)
    labels = torch.full((sum(count),), PADDING, dtype=torch.int64)
    if target is None:
        return coords, labels
    regions = (target.inside, target.known & ~target.inside)
    start = 0
    for region, most, label in zip(regions, count, (POSITIVE, NEGATIVE), strict=True):
        least = 1 if label == POSITIVE else 0
        number = most
        if training.vary_points:
            number = least + int(_draw(most - least + 1, 1, generator))
        candidates = region.nonzero()
        if len(candidates) and number:
            drawn = candidates[_draw(len(candidates), number, generator).to(candidates.device)]
            coords[start : start + number] = drawn.cpu()
            labels[start : start + number] = label
        start += most
    return coords, labels


def _draw(size: int, number: int, generator: torch.Generator | None) -> Tensor:
    """(number,) int64 uniform over range(size), with replacement, on the CPU."""
    return torch.randint(size, (number,), generator=generator)
