"""Optimiser, learning rate, averaged weights, and the guard against NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from lib.configs.settings import TrainingSettings
from lib.data.batches import Batch
from lib.engine.step import StepResult
from lib.volumes.atomic import StagedFiles

FAULTS_IN_A_ROW = 3
"""So many steps with NaN or Inf end the run."""

FINAL_RATE = 0.01
"""Share of the learning rate at the end of the cosine."""


def build_optimiser(net: nn.Module, training: TrainingSettings) -> AdamW:
    """AdamW; norms, biases and gates (vectors and scalars) are not decayed."""
    matrices = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=training.learning_rate)


def build_schedule(optimiser: AdamW, training: TrainingSettings, steps: int) -> LambdaLR:
    """Linear warm-up, then constant or cosine to FINAL_RATE at `steps`."""

    def factor(step: int) -> float:
        if step < training.warmup_steps:
            return (step + 1) / (training.warmup_steps + 1)
        if training.schedule == "constant":
            return 1.0
        passed = (step - training.warmup_steps) / max(steps - training.warmup_steps, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(passed, 1.0)))
        return FINAL_RATE + (1 - FINAL_RATE) * cosine

    return LambdaLR(optimiser, factor)


class AveragedWeights:
    """Exponential moving average of a network's state, in float32.

    Args:
        net: the network it follows.
        decay: share kept at each step; smaller in the first steps, so that the start is
            forgotten. 0: follows nothing, the network's own state is used.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay, self.steps = net, decay, 0
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's state after a step."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        for key, value in self.net.state_dict().items():
            if key in self.average:
                held = self.average[key]
                if held.is_floating_point():
                    held.lerp_(value, 1 - decay)
                else:
                    held.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """The weights to evaluate and publish."""
        return dict(self.average) if self.decay else dict(self.net.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """From the checkpoint; a run that had no average starts it from the network."""
        self.steps = int(saved["steps"])
        for key, value in saved["average"].items():
            if key in self.average:
                self.average[key].copy_(value)


class NotFiniteError(RuntimeError):
    """NaN or Inf in several steps in a row."""


class Guard:
    """Counts steps with NaN or Inf, writes down what caused them, ends a run that is lost.

    Args:
        folder: where the dumps go.
        write: whether this process writes.
    """

    def __init__(self, folder: Path, write: bool = True) -> None:
        self.folder, self.write = folder, write
        self.in_a_row = 0

    def passed(self) -> None:
        """A good step."""
        self.in_a_row = 0

    def failed(
        self, step: int, net: nn.Module, batches: list[Batch], results: list[StepResult]
    ) -> None:
        """A step with NaN or Inf: dump, count, and stop after FAULTS_IN_A_ROW.

        Raises:
            NotFiniteError: the last of several in a row; names the step and the dumps.
        """
        self.in_a_row += 1
        path = self.folder / f"step_{step:07d}.pt"
        faulty = {
            f"{mode}/{key}": float(value)
            for result in results
            for mode, losses in result.losses.items()
            for key, value in losses.items()
            if not math.isfinite(float(value))
        }
        if self.write:
            dump = {
                "step": step,
                "losses": faulty,
                "gradients": [
                    name
                    for name, p in net.named_parameters()
                    if p.grad is not None and not bool(torch.isfinite(p.grad).all())
                ],
                "batches": [dict(batch) for batch in batches],
            }
            with StagedFiles() as staged:
                torch.save(dump, staged.create(path))
                staged.commit()
        if self.in_a_row >= FAULTS_IN_A_ROW:
            items = sorted({name for batch in batches for name in batch["item"]})
            raise NotFiniteError(
                f"NaN or Inf in {self.in_a_row} steps in a row, the last at step {step} "
                f"(items {', '.join(items)}; losses {', '.join(faulty) or 'finite'}); "
                f"what caused it is in {path}. The last good checkpoint is kept. Try a lower "
                "training.learning_rate or training.amp=off"
            )


def clip_gradients(net: nn.Module, limit: float) -> Tensor:
    """Scale all gradients so that their common norm is at most `limit`.

    Returns:
        the norm before; NaN or Inf when a gradient is.
    """
    return nn.utils.clip_grad_norm_(
        [p for p in net.parameters() if p.grad is not None], limit, error_if_nonfinite=False
    )
