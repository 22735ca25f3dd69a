"""The combined step equals two whole passes; sub-modes are chosen for each sample."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import HIERARCHY, cells, classes_of, tiny_settings
from torch import Tensor

from lib.data.batches import Batch
from lib.engine.prompting import draw_prompts, fractionary_samples
from lib.engine.step import (
    StepContext,
    StepResult,
    combined_step,
    separate_step,
)
from lib.losses.criterion import Criterion
from lib.losses.mask import mask_loss
from lib.networks.model import build_network
from lib.prompts.points import PADDING

SHAPE = (16, 16, 8)


def batch_of(*partly: bool) -> Batch:
    """One sample for each flag; a fractionary one lacks the labels of a corner."""
    ids = np.stack([cells(SHAPE)] * len(partly))
    sets = np.stack([classes_of(cells(SHAPE))] * len(partly))
    for b, part in enumerate(partly):
        if part:
            ids[b, :6, :6], sets[b, :6, :6] = -1, HIERARCHY.unknown
    torch.manual_seed(0)
    return Batch(
        image=torch.rand(len(partly), 1, *SHAPE),
        class_sets=torch.from_numpy(sets),
        instance=torch.from_numpy(ids),
        voxel_size_nm=torch.tensor([[10.0, 10.0, 40.0]] * len(partly)),
        item=["a"] * len(partly),
    )


def context_of(double: bool = True, **changes: Any) -> StepContext:
    settings = tiny_settings(**changes)
    torch.manual_seed(1)
    net = build_network(settings.model, settings.loss, HIERARCHY)
    with torch.no_grad():
        net.prompt_encoder.gate.normal_()  # as after some training
        net.prompt_encoder.conv.weight.normal_(std=0.3)
    net = net.double() if double else net
    return StepContext(net, Criterion(settings.loss, HIERARCHY), settings, HIERARCHY)


def prompts_of(batch: Batch, context: StepContext) -> Any:
    generators = [torch.Generator().manual_seed(b) for b in range(len(batch["item"]))]
    return draw_prompts(batch, HIERARCHY, context.settings, generators)


def in_double(batch: Batch) -> Batch:
    return {**batch, "image": batch["image"].double()}  # type: ignore[typeddict-item]


def gradients(
    step: Any, context: StepContext, batch: Batch, prompts: Any, share: float = 1.0
) -> tuple[StepResult, dict[str, Tensor]]:
    context.net.zero_grad(set_to_none=True)
    result = step(context, batch, prompts, share)
    found = {n: p.grad.clone() for n, p in context.net.named_parameters() if p.grad is not None}
    return result, found


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("partly", "fractionary_prompts"),
    [((False, False), False), ((True, False), False), ((True, True), True), ((True,), False)],
)
def test_one_backbone_pass_equals_two_whole_passes(
    norm: str, checkpointing: bool, partly: tuple[bool, ...], fractionary_prompts: bool
) -> None:
    context = context_of(
        model__norm=norm,
        training__checkpoint_activations=checkpointing,
        training__fractionary_prompts=fractionary_prompts,
    )
    plain = context_of(model__norm=norm, training__fractionary_prompts=fractionary_prompts)
    plain.net.load_state_dict(context.net.state_dict())
    batch = in_double(batch_of(*partly))
    prompts = prompts_of(batch, context)
    one, mine = gradients(combined_step, context, batch, prompts)
    two, theirs = gradients(separate_step, plain, batch, prompts)
    assert set(one.losses) == {"automatic", "proofread"}
    for mode, losses in one.losses.items():
        assert losses.keys() == two.losses[mode].keys() or not prompts.prompts.any
        for key, value in losses.items():
            torch.testing.assert_close(value, two.losses[mode][key], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(one.loss, two.loss, rtol=1e-9, atol=1e-12)
    assert mine.keys() == theirs.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-6, atol=1e-9, msg=name)
    prompted = [n for n in mine if n.startswith("prompt_encoder")]
    assert bool(prompted) == prompts.prompts.any
    assert one.prompted == int(prompts.prompts.prompted.sum())


@pytest.mark.parametrize("mode", ["automatic", "proofread"])
def test_each_mode_trains_alone(mode: str) -> None:
    both, alone = context_of(), context_of(training__training_modes=[mode])
    batch = in_double(batch_of(False))
    prompts = prompts_of(batch, both)
    together, _ = gradients(combined_step, both, batch, prompts)
    single, _ = gradients(combined_step, alone, batch, prompts)
    assert list(single.losses) == [mode]
    torch.testing.assert_close(single.loss, single.losses[mode]["loss"])  # type: ignore[index]
    torch.testing.assert_close(
        single.losses[mode]["loss"],  # type: ignore[index]
        together.losses[mode]["loss"],  # type: ignore[index]
    )


def test_the_loss_is_the_mean_over_the_modes() -> None:
    context = context_of()
    batch = in_double(batch_of(False))
    result, _ = gradients(combined_step, context, batch, prompts_of(batch, context))
    mean = sum(losses["loss"] for losses in result.losses.values()) / 2
    torch.testing.assert_close(result.loss, mean)
    assert result.losses["automatic"]["loss"] != result.losses["proofread"]["loss"]
    assert result.residual_ratio is not None and result.residual_ratio > 0


def test_sub_modes_are_chosen_for_each_sample() -> None:
    batch = batch_of(True, False)
    assert fractionary_samples(batch, HIERARCHY).tolist() == [True, False]
    strict = context_of(training__fractionary_prompts=False)
    drawn = prompts_of(batch, strict).prompts
    assert drawn.prompted.tolist() == [False, True]
    assert prompts_of(batch, context_of()).prompts.prompted.tolist() == [True, True]


def test_prompts_of_a_sample_do_not_depend_on_its_neighbours() -> None:
    context = context_of()
    batch = batch_of(False, False)
    both = prompts_of(batch, context).prompts
    second = {k: v[1:] for k, v in batch.items()}
    alone = draw_prompts(
        second,  # type: ignore[arg-type]
        HIERARCHY,
        context.settings,
        [torch.Generator().manual_seed(1)],
    ).prompts
    assert torch.equal(both.coords[1:], alone.coords)


def test_prompted_points_lie_on_known_voxels_of_fractionary_samples() -> None:
    context = context_of()
    batch = batch_of(True)
    drawn = prompts_of(batch, context).prompts
    real = drawn.coords[0][drawn.labels[0] != PADDING]
    assert len(real) and (batch["instance"][0][tuple(real.unbind(1))] >= 0).all()


def test_a_fractionary_pass_without_prompts_is_the_automatic_one() -> None:
    context = context_of(training__fractionary_prompts=False)
    batch = in_double(batch_of(True))
    result, found = gradients(combined_step, context, batch, prompts_of(batch, context))
    assert result.losses["automatic"] == result.losses["proofread"]
    assert result.residual_ratio is None and result.prompted == 0
    assert not any(name.startswith("prompt_encoder") for name in found)


def test_a_patch_of_unknown_voxels_gives_loss_zero_and_no_nan() -> None:
    context = context_of()
    batch = in_double(batch_of(False))
    batch["instance"].fill_(-1)
    batch["class_sets"].fill_(HIERARCHY.unknown)
    result, found = gradients(combined_step, context, batch, prompts_of(batch, context))
    assert float(result.loss) == 0.0
    assert all((gradient == 0).all() for gradient in found.values())


def test_accumulated_shares_add_up() -> None:
    context = context_of()
    batch = in_double(batch_of(False))
    prompts = prompts_of(batch, context)
    _, whole = gradients(combined_step, context, batch, prompts)
    _, half = gradients(combined_step, context, batch, prompts, 0.5)
    for name, gradient in whole.items():
        torch.testing.assert_close(2 * half[name], gradient, rtol=1e-9, atol=1e-12)


def test_the_mask_loss_counts_known_voxels_of_prompted_samples_only() -> None:
    batch = batch_of(True, False)
    prompts = prompts_of(batch, context_of(training__fractionary_prompts=False))
    logits = torch.zeros((2, 1, *SHAPE), requires_grad=True)
    loss = mask_loss(logits, prompts)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[0] == 0).all() and (gradient[1] != 0).any()
    sure = torch.where(prompts.target.unsqueeze(1), 30.0, -30.0)
    assert float(mask_loss(sure, prompts)) < 1e-3 < loss.item()


def test_tiny_patches_give_the_same_finite_gradient_every_time() -> None:
    """bfloat16 would read memory that nobody wrote; freed NaN lies where it would read."""
    context = replace(
        context_of(double=False), autocast=partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    )
    batch = batch_of(False)
    batch = {
        k: v.repeat_interleave(2, -1) if k in ("image", "class_sets", "instance") else v
        for k, v in batch.items()
    }  # type: ignore[assignment, attr-defined]
    prompts = prompts_of(batch, context)
    _, first = gradients(combined_step, context, batch, prompts)
    for size in (1000, 30_000, 300_000):
        freed = [torch.full((size,), float("nan")) for _ in range(20)]
        del freed
        _, again = gradients(combined_step, context, batch, prompts)
        assert all(torch.equal(again[name], value) for name, value in first.items())


def test_points_in_errors_change_the_prompted_pass_alone() -> None:
    """With rounds drawn, proofread trains on a session's points and automatic on the same."""
    batch = in_double(batch_of(False))
    context = context_of(loss__weight_prompt=1.0, training__error_rounds=3)
    prompts = prompts_of(batch, context)

    def run(generators: list[torch.Generator]) -> StepResult:
        context.net.zero_grad(set_to_none=True)
        return combined_step(context, batch, prompts, 1.0, generators)

    none, some = next(
        (plain, changed)
        for seed in range(20)
        if (changed := run([torch.Generator().manual_seed(seed)])).prompted
        and (plain := run([_never()])).losses["proofread"]["loss_prompt"]
        != changed.losses["proofread"]["loss_prompt"]
    )
    assert torch.equal(none.losses["automatic"]["loss"], some.losses["automatic"]["loss"])
    assert torch.isfinite(some.loss)


def _never() -> torch.Generator:
    """A generator whose first draw from 0..3 is 0: no round."""
    for seed in range(100):
        if int(torch.randint(4, (1,), generator=torch.Generator().manual_seed(seed))) == 0:
            return torch.Generator().manual_seed(seed)
    raise AssertionError("no such seed")
