"""Prompts of a training step: who gets them, where they fall, and what seeds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.configs.settings import Settings
from lib.data.batches import Batch
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.devices import Autocast
from lib.networks.model import NeuropilNet
from lib.prompts.errors import correct_errors, draw_rounds, every_second, thinned
from lib.prompts.points import PointPrompts
from lib.prompts.sampling import SampledPrompts, sample_prompts


def prompt_generators(seed: int, step: int, places: Sequence[int]) -> list[torch.Generator]:
    """Generators of the samples at some places of the global batch, on the CPU.

    Args:
        seed: of the run.
        step: number of the batch in the run.
        places: of this process.
    """
    return [torch.Generator().manual_seed(_prompt_seed(seed, step, p)) for p in places]


def fractionary_samples(batch: Batch, hierarchy: LabelHierarchy) -> Tensor:
    """Which samples hold unknown voxels: instance or class labels that are not there.

    Returns:
        (B,) bool. False: fully annotated, the interactive sub-mode.

    Source: spec/training-modes.md 2; spec/clarifications.md "One sub-mode for a batch".
    """
    unknown = batch["instance"] < 0
    unknown |= batch["class_sets"] == hierarchy.unknown
    return unknown.flatten(1).any(1)


def draw_prompts(
    batch: Batch,
    hierarchy: LabelHierarchy,
    settings: Settings,
    generators: Sequence[torch.Generator],
) -> SampledPrompts:
    """Prompts for the samples that train with them, each sample with its own generator.

    Interactive samples get prompts; fractionary ones only with `fractionary_prompts`.
    """
    training = settings.training
    wanted = ~fractionary_samples(batch, hierarchy) | training.fractionary_prompts
    drawn = [
        sample_prompts(
            batch["class_sets"][b : b + 1],
            batch["instance"][b : b + 1],
            hierarchy,
            training,
            generator,
            batch["voxel_size_nm"][b : b + 1],
            wanted[b : b + 1],
        )
        for b, generator in enumerate(generators)
    ]
    prompts = [d.prompts for d in drawn]
    together = PointPrompts(
        torch.cat([p.coords for p in prompts]),
        torch.cat([p.labels for p in prompts]),
        torch.cat([p.class_ids for p in prompts]),
        torch.cat([p.instance for p in prompts]),
        batch["voxel_size_nm"],
    )
    return SampledPrompts(
        together, torch.cat([d.target for d in drawn]), torch.cat([d.known for d in drawn])
    )


def corrected_prompts(
    net: NeuropilNet,
    settings: Settings,
    autocast: Autocast,
    features: Tensor,
    prompts: SampledPrompts,
    generators: Sequence[torch.Generator],
) -> SampledPrompts:
    """The prompts, some of them as a session with the network as it is would give them.

    Args:
        net: whose mask head answers; without one nothing changes.
        settings: `training.error_rounds`.
        autocast: opens the mixed-precision region.
        features: (B, F, *S) of the batch.
        prompts: from `draw_prompts`.
        generators: of each sample.
    """
    most = settings.training.error_rounds
    if not most or net.mask_head is None or not prompts.prompts.any:
        return prompts
    shape = tuple(features.shape[2:])
    thin = every_second(features, 2)

    def answer(points: PointPrompts) -> Tensor:
        with autocast():
            residual = every_second(net.prompt_residual(points, shape), 2)
            return net.heads(thin + residual.to(thin.dtype), thinned(points), ("instance",))["mask"]

    return correct_errors(prompts, answer, draw_rounds(most, generators), generators)


def _prompt_seed(seed: int, step: int, place: int) -> int:
    """A seed for one sample's prompts, from the run's seed, the step and the place."""
    return (seed * 1_000_003 + step * 4099 + place) % 2**63
