"""Learning rate, averaged weights, clipping, and what happens at NaN."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib.configs.settings import TrainingSettings
from lib.engine.optimise import (
    FAULTS_IN_A_ROW,
    FINAL_RATE,
    AveragedWeights,
    Guard,
    NotFiniteError,
    build_optimiser,
    build_schedule,
    clip_gradients,
)
from lib.engine.step import StepResult


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def rates(steps: int, **settings: Any) -> list[float]:
    training = TrainingSettings(learning_rate=0.1, **settings)
    optimiser = build_optimiser(network(), training)
    schedule = build_schedule(optimiser, training, steps)
    found = []
    for _ in range(steps + 1):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_only_matrices_are_decayed() -> None:
    net = network()
    matrices, vectors = build_optimiser(net, TrainingSettings(weight_decay=0.5)).param_groups
    assert {id(p) for p in matrices["params"]} == {id(net[0].weight), id(net[2].weight)}
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.5, 0.0)
    assert all(p.ndim == 1 for p in vectors["params"])


def test_frozen_parameters_are_left_out() -> None:
    net = network()
    for p in net[0].parameters():
        p.requires_grad = False
    held = [p for g in build_optimiser(net, TrainingSettings()).param_groups for p in g["params"]]
    assert len(held) == 4


def test_the_rate_warms_up_and_follows_the_cosine_to_its_end() -> None:
    found = rates(20, warmup_steps=4)
    assert found[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert found[12] == pytest.approx(0.1 * (FINAL_RATE + (1 - FINAL_RATE) / 2)), "half way"
    assert found[20] == pytest.approx(0.1 * FINAL_RATE)
    assert found[4:] == sorted(found[4:], reverse=True)


def test_a_constant_rate_stays() -> None:
    assert rates(9, warmup_steps=1, schedule="constant") == pytest.approx([0.05, *[0.1] * 9])


def test_the_average_is_the_plain_recursion() -> None:
    net, decay = network(), 0.8
    average = AveragedWeights(net, decay)
    expected = net[0].weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            net[0].weight += torch.randn(4, 3)
        net[1](torch.rand(8, 4))
        average.update()
        kept = min(decay, step / (step + 9))  # the start is forgotten faster
        expected = kept * expected + (1 - kept) * net[0].weight.detach()
    assert torch.allclose(average.state()["0.weight"], expected, atol=1e-5)
    counted = average.state()["1.num_batches_tracked"]
    assert counted == net[1].num_batches_tracked == 29, "whole numbers are copied"


def test_without_decay_the_state_is_the_networks_own() -> None:
    net = network()
    average = AveragedWeights(net, 0.0)
    with torch.no_grad():
        net[0].weight.zero_()
    average.update()
    assert torch.equal(average.state()["0.weight"], net[0].weight)


def test_an_average_goes_on_from_its_checkpoint() -> None:
    net = network()
    one, other = AveragedWeights(net, 0.9), AveragedWeights(net, 0.9)
    for held in (one, other):
        with torch.no_grad():
            net[0].weight += 1
        held.update()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        net[0].weight += 1
    one.update()
    other.update()
    assert all(torch.equal(v, other.state()[k]) for k, v in one.state().items())


def faulty_step() -> tuple[list[Any], list[StepResult]]:
    nan, one = torch.tensor(math.nan), torch.tensor(1.0)
    result = StepResult({"automatic": {"loss": nan, "loss_sem": one}}, nan, None, 0, one)
    return [{"item": ["a-train"], "image": torch.zeros(1)}], [result]


def test_faults_are_dumped_and_several_in_a_row_end_the_run(tmp_path: Path) -> None:
    net, guard = network(), Guard(tmp_path / "faults")
    net[2].weight.grad = torch.full((2, 4), math.inf)
    batches, results = faulty_step()
    for step in range(1, FAULTS_IN_A_ROW):
        guard.failed(step, net, batches, results)
    guard.passed()
    for step in range(11, 10 + FAULTS_IN_A_ROW):
        guard.failed(step, net, batches, results)
    with pytest.raises(NotFiniteError) as caught:
        guard.failed(20, net, batches, results)
    for told in ("3 steps in a row", "step 20", "a-train", "automatic/loss", "step_0000020.pt"):
        assert told in str(caught.value)
    dump = torch.load(tmp_path / "faults" / "step_0000001.pt", weights_only=True)
    assert dump["gradients"] == ["2.weight"] and list(dump["losses"]) == ["automatic/loss"]
    assert dump["batches"][0]["item"] == ["a-train"] and dump["step"] == 1


def test_only_the_leading_process_writes_dumps(tmp_path: Path) -> None:
    batches, results = faulty_step()
    Guard(tmp_path, write=False).failed(1, network(), batches, results)
    assert list(tmp_path.iterdir()) == []


def test_gradients_are_scaled_to_the_limit_and_the_norm_before_is_told() -> None:
    net = network()
    net[0].bias.grad, net[2].bias.grad = torch.full((4,), 3.0), torch.full((2,), 0.0)
    assert clip_gradients(net, 1.5) == pytest.approx(6.0)
    assert net[0].bias.grad.norm() == pytest.approx(1.5)
    assert clip_gradients(net, 100.0) == pytest.approx(1.5), "a short one stays"
    net[0].bias.grad[0] = math.nan
    assert torch.isnan(clip_gradients(net, 1.0))
