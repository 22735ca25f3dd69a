"""Where a run computes: device, mixed precision, processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import ignite.distributed as idist
import torch
from torch import Tensor, nn

from lib.configs.settings import TrainingSettings
from lib.networks.model import NeuropilNet

Autocast = Callable[[], AbstractContextManager[object]]
"""Opens a region of mixed precision."""


def choose_device(name: str | None = None) -> torch.device:
    """The device a run uses: the one named, else the local GPU, else the CPU.

    Raises:
        ValueError: a GPU is named and there is none.
    """
    if name and name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name}: no GPU found here; expected cpu")
    if name:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", idist.get_local_rank())
    return torch.device("cpu")


def amp_type(training: TrainingSettings, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision; None for float32 throughout.

    `auto` takes bfloat16 where the hardware computes in it, float16 on older GPUs.
    """
    if training.amp == "off":
        return None
    if training.amp != "auto":
        return torch.bfloat16 if training.amp == "bfloat16" else torch.float16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # An emulated bfloat16 is slower than float32.
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else None


def autocast_for(device: torch.device, dtype: torch.dtype | None) -> Autocast:
    """Opens a region of mixed precision on a device."""
    if dtype is None:
        return nullcontext
    return partial(torch.autocast, device.type, dtype=dtype)


def compile_backbone(net: NeuropilNet, training: TrainingSettings) -> None:
    """Compile the backbone if the settings say so; heads are few products already.

    In place, so that the names of the weights stay. Patches have a few shapes, each compiled.
    """
    if training.compile != "off":
        net.backbone.compile(backend=training.compile, dynamic=False)


def average_gradients(net: nn.Module) -> None:
    """Replace each gradient by its mean over the processes; nothing with one process.

    A parameter that no process used keeps no gradient, as in one process.
    """
    world = idist.get_world_size()
    if world == 1:
        return
    params = [p for p in net.parameters() if p.requires_grad]
    used = torch.tensor([float(p.grad is not None) for p in params], device=params[0].device)
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in params]
    )
    torch.distributed.all_reduce(used)
    torch.distributed.all_reduce(flat)
    flat /= world
    start = 0
    for p, count in zip(params, used.tolist(), strict=True):
        part = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
        if count == 0:
            p.grad = None
        elif p.grad is None:
            p.grad = part.clone(memory_format=torch.preserve_format)
        else:
            p.grad.copy_(part)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes."""
    if idist.get_world_size() == 1:
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / idist.get_world_size()
