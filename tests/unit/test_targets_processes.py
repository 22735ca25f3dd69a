"""Several processes train as one: their means are the mean of the whole batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lib.targets import processes
from lib.targets.processes import (
    add_over_processes,
    one_process,
    process_count,
    shared_count,
    sum_over_processes,
)


class Processes:
    """Stands for torch.distributed: what the other processes hold is added."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.others: list[Tensor] = []
        distributed = processes.torch.distributed
        monkeypatch.setattr(distributed, "is_available", lambda: True)
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda: count)
        monkeypatch.setattr(distributed, "all_reduce", self.all_reduce)

    def all_reduce(self, tensor: Tensor) -> None:
        for other in self.others:
            tensor += other


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    yield Processes(monkeypatch, 3)


def test_alone_nothing_changes() -> None:
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    assert process_count() == 1
    assert sum_over_processes(value) is value and add_over_processes(value) is value
    assert shared_count(torch.tensor(5)) == 5
    assert shared_count(torch.tensor(0)) == 1, "never divides by nothing"


def test_the_mean_of_the_processes_is_the_mean_of_the_whole(three: Processes) -> None:
    parts = [torch.rand(n, dtype=torch.float64) for n in (3, 0, 8)]
    losses = []
    for i, part in enumerate(parts):
        three.others = [torch.tensor(float(len(p))) for j, p in enumerate(parts) if j != i]
        losses.append(part.sum() / shared_count(torch.tensor(len(part))))
    whole = torch.cat(parts).mean()
    assert torch.stack(losses).mean() == pytest.approx(whole.item())


def test_a_batch_that_is_unknown_everywhere_divides_by_a_share_of_one(three: Processes) -> None:
    three.others = [torch.tensor(0.0)] * 2
    assert shared_count(torch.tensor(0)) == pytest.approx(1 / 3)


def test_sums_carry_no_gradient_unless_asked(three: Processes) -> None:
    three.others = [torch.tensor([10.0, 20.0])]
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    total = sum_over_processes(value)
    assert total.tolist() == [11.0, 22.0] and not total.requires_grad
    assert value.tolist() == [1.0, 2.0], "the value itself stays"
    through = add_over_processes(value)
    assert through.tolist() == [11.0, 22.0]
    three.others = [torch.tensor([0.5, 0.5])]  # the other processes' gradients
    through.sum().backward()
    assert value.grad is not None and value.grad.tolist() == [1.5, 1.5]


def test_what_a_process_does_by_itself_is_not_added_up(three: Processes) -> None:
    three.others = [torch.tensor(100.0)]
    assert process_count() == 3
    with one_process():
        assert process_count() == 1
        assert sum_over_processes(torch.tensor(1.0)) == 1.0
    assert process_count() == 3
    with pytest.raises(KeyError), one_process():
        raise KeyError
    assert process_count() == 3, "also after a fault"
