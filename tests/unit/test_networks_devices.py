"""Where a run computes, and in which precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib.configs.settings import TrainingSettings
from lib.networks import devices
from lib.networks.devices import (
    amp_type,
    autocast_for,
    average_gradients,
    choose_device,
    mean_over_processes,
)

CPU = torch.device("cpu")


def test_a_named_device_is_taken_and_a_missing_gpu_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == choose_device("cpu") == CPU
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"device {name}: no GPU found here; expected cpu"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda", 0)
    assert choose_device("cuda:1") == torch.device("cuda", 1) and choose_device("cpu") == CPU


@pytest.mark.parametrize(
    ("able", "expected"),
    [({}, None), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)],
)
def test_mixed_precision_only_where_the_cpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert amp_type(TrainingSettings(amp="auto"), CPU) == expected
    assert amp_type(TrainingSettings(amp="off"), CPU) is None
    assert amp_type(TrainingSettings(amp="bfloat16"), CPU) == torch.bfloat16
    assert amp_type(TrainingSettings(amp="float16"), CPU) == torch.float16


def test_old_gpus_take_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for able, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able: able)
        assert amp_type(TrainingSettings(amp="auto"), gpu) == expected


def test_the_region_of_mixed_precision() -> None:
    a = torch.rand(3, 3)
    with autocast_for(CPU, None)():
        assert (a @ a).dtype == torch.float32
    with autocast_for(CPU, torch.bfloat16)():
        assert (a @ a).dtype == torch.bfloat16


class TwoProcesses:
    """Stands for torch.distributed: the other process has given tensors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, others: list[torch.Tensor]) -> None:
        self.others = iter(others)
        monkeypatch.setattr(devices.idist, "get_world_size", lambda: 2)
        monkeypatch.setattr(torch.distributed, "all_reduce", self.all_reduce, raising=False)

    def all_reduce(self, tensor: torch.Tensor, *_: Any) -> None:
        tensor += next(self.others)


def test_gradients_are_averaged_and_what_nobody_used_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = torch.nn.ParameterList([torch.zeros(2) for _ in range(3)])
    net[0].grad = torch.tensor([2.0, 4.0])
    used, flat = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 2.0, 6.0, 8.0, 0.0, 0.0])
    TwoProcesses(monkeypatch, [used, flat])
    average_gradients(net)
    assert net[0].grad.tolist() == [1.0, 3.0]
    assert net[1].grad is not None and net[1].grad.tolist() == [3.0, 4.0], "the other one's alone"
    assert net[2].grad is None


def test_one_process_changes_nothing() -> None:
    net = torch.nn.ParameterList([torch.zeros(2)])
    net[0].grad = torch.tensor([2.0, 4.0])
    average_gradients(net)
    value = torch.tensor(3.0)
    assert net[0].grad.tolist() == [2.0, 4.0] and mean_over_processes(value) is value


def test_the_mean_of_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    TwoProcesses(monkeypatch, [torch.tensor(5.0)])
    value = torch.tensor(3.0)
    assert mean_over_processes(value) == 4.0 and value == 3.0, "the value itself stays"
