"""The combined step: both modes from one pass through the backbone.

    features = backbone(image)                       once
    for each mode: heads(features [+ residual]) -> losses -> backward into the features
    backbone backward                                once, with the features' summed gradient

Automatic and proofread see the same image through the same weights, so this equals two whole
passes: the gradient of a sum is the sum of the gradients. A mode's activations are freed
before the next mode begins.

Source: spec/training-modes.md, sections 1 to 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lib.configs.settings import Mode, Settings
from lib.data.batches import Batch
from lib.engine.prompting import corrected_prompts, fractionary_samples
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.losses.criterion import Criterion
from lib.losses.mask import mask_loss
from lib.networks.devices import Autocast
from lib.networks.model import NeuropilNet
from lib.prompts.points import PointPrompts
from lib.prompts.sampling import SampledPrompts
from lib.targets.prepare import Targets, prepare_targets
from lib.targets.processes import sum_over_processes

LARGEST_TINY = 16
"""Voxels on a side up to which a patch is trained in float32 on the CPU."""


@dataclass(frozen=True)
class StepResult:
    """What a step gave, for the log.

    Args:
        losses: mode -> the criterion's values, detached scalars.
        loss: mean of the modes' losses, detached.
        residual_ratio: norm of the prompts' residual against the features', mean over the
            prompted samples; None where nothing was prompted.
        prompted: number of samples that had prompts.
        largest_weight: largest edge times bone weight of a voxel in the pull term.
    """

    losses: dict[Mode, dict[str, Tensor]]
    loss: Tensor
    residual_ratio: Tensor | None
    prompted: int
    largest_weight: Tensor


@dataclass(frozen=True)
class StepContext:
    """What stays the same from step to step.

    Args:
        net: the network, in training mode.
        criterion: of one mode's outputs.
        settings: modes, prompts, checkpointing.
        hierarchy: classes and groups.
        autocast: opens the mixed-precision region; losses stay outside.
        scale: multiplies a loss before backward (a gradient scaler's).
    """

    net: NeuropilNet
    criterion: Criterion
    settings: Settings
    hierarchy: LabelHierarchy
    autocast: Autocast = nullcontext
    scale: Callable[[Tensor], Tensor] = lambda loss: loss


def combined_step(
    context: StepContext,
    batch: Batch,
    prompts: SampledPrompts | None,
    share: float = 1.0,
    generators: Sequence[torch.Generator] = (),
) -> StepResult:
    """Forward and backward of one batch for all enabled modes.

    Gradients are added to the parameters' `.grad`.

    Args:
        context: network, criterion and settings.
        batch: on the network's device.
        prompts: from `draw_prompts`; None or without points: proofread equals automatic.
        share: of this batch in the optimiser step (1 / accumulated batches).
        generators: of each sample, for points in errors (`error_rounds`).
    """
    modes = context.settings.training.training_modes
    targets = prepare_targets(batch, context.hierarchy, context.settings.loss)
    classes = _classes_of_fractionary(batch, targets, context.hierarchy)
    context = _exact_if_small(context, batch["image"])
    with context.autocast():
        features = _features(context, batch["image"])
    leaf = features.detach().requires_grad_()
    weight = share / len(modes)
    losses: dict[Mode, dict[str, Tensor]] = {}
    ratio: Tensor | None = None
    if not _pointed_anywhere(prompts, leaf.device):
        # Without prompts proofread is automatic bit for bit: once, counted for every mode.
        once = _mode_losses(context, leaf, None, targets, classes)
        _backward(context.scale(once["loss"] * share))
        losses = {mode: _detached(once) for mode in modes}
    else:
        assert prompts is not None
        prompts = corrected_prompts(
            context.net, context.settings, context.autocast, leaf, prompts, generators
        )
        for mode in modes:
            if mode == "automatic":
                found = _mode_losses(context, leaf, None, targets, classes)
            else:
                found, ratio = _proofread_losses(context, leaf, prompts, targets, classes)
            _backward(context.scale(found["loss"] * weight))
            losses[mode] = _detached(found)
            del found
    assert leaf.grad is not None
    _backward(features, leaf.grad)
    total = torch.stack([losses[mode]["loss"] for mode in modes]).mean()
    count = int(prompts.prompts.prompted.sum()) if prompts is not None else 0
    return StepResult(losses, total, ratio, count, targets.largest_weight)


def separate_step(
    context: StepContext, batch: Batch, prompts: SampledPrompts | None, share: float = 1.0
) -> StepResult:
    """The same by a whole forward and backward pass for each mode: the plain reference."""
    modes = context.settings.training.training_modes
    targets = prepare_targets(batch, context.hierarchy, context.settings.loss)
    classes = _classes_of_fractionary(batch, targets, context.hierarchy)
    losses: dict[Mode, dict[str, Tensor]] = {}
    ratio: Tensor | None = None
    for mode in modes:
        with context.autocast():
            features = context.net.features(batch["image"])
        if mode == "automatic" or prompts is None or not prompts.prompts.any:
            found = _mode_losses(context, features, None, targets, classes)
        else:
            found, ratio = _proofread_losses(context, features, prompts, targets, classes)
        _backward(context.scale(found["loss"] * (share / len(modes))))
        losses[mode] = _detached(found)
    total = torch.stack([losses[mode]["loss"] for mode in modes]).mean()
    count = int(prompts.prompts.prompted.sum()) if prompts is not None else 0
    return StepResult(losses, total, ratio, count, targets.largest_weight)


def _pointed_anywhere(prompts: SampledPrompts | None, device: torch.device) -> bool:
    """Whether any sample of any process has prompts; the processes step together."""
    if prompts is None:
        return False
    pointed = torch.tensor(int(prompts.prompts.any), device=device)
    return bool(sum_over_processes(pointed) > 0)


def _backward(value: Tensor, gradient: Tensor | None = None) -> None:
    torch.autograd.backward([value], None if gradient is None else [gradient])


def _exact_if_small(context: StepContext, image: Tensor) -> StepContext:
    """Without mixed precision for tiny patches on the CPU.

    oneDNN's bfloat16 gradient of a 3x3x3 kernel reads memory it never wrote where the input
    has 2x2x2 voxels, which the deepest level of a patch of 16 has (torch 2.13: NaN now and
    then, other values on every run).
    """
    if image.is_cuda or max(image.shape[2:]) > LARGEST_TINY:
        return context
    return replace(context, autocast=nullcontext)


def _features(context: StepContext, image: Tensor) -> Tensor:
    if not context.settings.training.checkpoint_activations:
        return context.net.features(image)
    # Input without gradient: the non-reentrant form still reaches the parameters.
    out: Tensor = checkpoint(context.net.features, image, use_reentrant=False)
    return out


def _heads(
    context: StepContext, features: Tensor, prompts: PointPrompts | None
) -> dict[str, Tensor]:
    if not context.settings.training.checkpoint_activations:
        return context.net.heads(features, prompts)
    out: dict[str, Tensor] = checkpoint(context.net.heads, features, prompts, use_reentrant=False)
    return out


def _mode_losses(
    context: StepContext,
    features: Tensor,
    prompts: SampledPrompts | None,
    targets: Targets,
    classes: Tensor | None,
) -> dict[str, Tensor]:
    """The criterion of the heads on the given features (with any residual added already)."""
    with context.autocast():
        outputs = _heads(context, features, None if prompts is None else prompts.prompts)
    mask = outputs.pop("mask", None)
    if classes is not None:
        outputs["semantic_ids"] = classes
    losses = dict(context.criterion(outputs, targets))
    if mask is not None and prompts is not None:
        losses["loss_prompt"] = mask_loss(mask, prompts)
        losses["loss"] = losses["loss"] + (
            context.settings.loss.weight_prompt * losses["loss_prompt"]
        )
    return losses


def _proofread_losses(
    context: StepContext,
    features: Tensor,
    prompts: SampledPrompts,
    targets: Targets,
    classes: Tensor | None,
) -> tuple[dict[str, Tensor], Tensor | None]:
    with context.autocast():
        residual = context.net.sparse_residual(prompts.prompts, tuple(features.shape[2:]))
        prompted = features + residual.dense().to(features.dtype)
    losses = _mode_losses(context, prompted, prompts, targets, classes)
    who = prompts.prompts.prompted
    if not bool(who.any()):
        return losses, None
    norms = features.detach().float().flatten(1).norm(dim=1).clamp_min(1e-12)
    return losses, (residual.norm().detach().float() / norms)[who].mean()


def _classes_of_fractionary(
    batch: Batch, targets: Targets, hierarchy: LabelHierarchy
) -> Tensor | None:
    """`semantic_ids`, by which the instance loss of fractionary samples runs for each class.

    Fully annotated samples of a mixed batch get one class for all their objects.

    Returns:
        (B, *S) int64, None when no sample is fractionary.
    """
    partly = fractionary_samples(batch, hierarchy)
    if not bool(partly.any()):
        return None
    ids = targets.semantic_ids
    if bool(partly.all()):
        return ids
    return torch.where(partly.view(-1, *[1] * (ids.ndim - 1)), ids, IGNORE_INDEX)


def _detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in losses.items()}
