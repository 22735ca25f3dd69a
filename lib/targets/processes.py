"""Totals over the processes of a distributed run, so that N processes train as one.

Each process divides by the total over all processes, times their number: the mean of the
processes' losses and gradients, which is what distributed training takes, is then exactly the
loss and the gradient of one process with the whole batch. In a single process nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def one_process() -> Iterator[None]:
    """Inside, nothing is added up: for work that the processes do not do together, such as
    validation, of which each has places of its own."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def process_count() -> int:
    """How many processes train together."""
    if _alone.get():
        return 1
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size()


def sum_over_processes(values: Tensor) -> Tensor:
    """The elementwise sum over the processes; without a gradient. Every process must call it."""
    if process_count() == 1:
        return values
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def shared_count(count: Tensor) -> Tensor:
    """What to divide a process's sum by: the total count (at least 1) / number of processes.

    Args:
        count: scalar, this process's count.

    Returns:
        scalar float64.
    """
    return sum_over_processes(count.double()).clamp_min(1) / process_count()


def add_over_processes(values: Tensor) -> Tensor:
    """The elementwise sum over the processes, through which gradients flow back to each."""
    if process_count() == 1:
        return values
    total: Tensor = _Add.apply(values)  # type: ignore[no-untyped-call]
    return total


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_processes(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return sum_over_processes(grad)
