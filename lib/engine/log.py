"""TensorBoard: the keys of spec/training-modes.md section 6, and what was added to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from lib.engine.step import StepResult

RESIDUAL_RATIO = "train/proofread/residual_ratio"
LARGEST_WEIGHT = "train/largest_weight"


class TrainingLog:
    """Writes a run's scalars and pictures; silent in all processes but one.

    Args:
        folder: of the event files.
        active: whether this process writes.
        first_step: a resumed run's first step; later entries of a killed run are dropped.
    """

    def __init__(self, folder: Path, active: bool, first_step: int) -> None:
        self._writer: SummaryWriter | None = None
        if active:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = SummaryWriter(str(folder), purge_step=first_step if first_step else None)

    def scalars(self, values: Mapping[str, float | Tensor], step: int) -> None:
        """Write named figures of one step."""
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, float(value), step)

    def picture(self, key: str, picture: NDArray[np.float32], step: int) -> None:
        """Write a (3, height, width) picture."""
        if self._writer is not None:
            self._writer.add_image(key, picture, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()


def step_scalars(results: Sequence[StepResult]) -> dict[str, Tensor]:
    """The keys of one optimiser step: the mean over its accumulated batches.

    `train/loss` is the mean over modes, `train/{mode}/...` each mode's terms,
    `train/proofread/residual_ratio` the prompts' residual against the features,
    `train/largest_weight` the largest edge times bone weight (100 on thin neurites by default).
    """
    values: dict[str, list[Tensor]] = {"train/loss": [r.loss for r in results]}
    for result in results:
        for mode, losses in result.losses.items():
            for key, value in losses.items():
                values.setdefault(f"train/{mode}/{key}", []).append(value)
        if result.residual_ratio is not None:
            values.setdefault(RESIDUAL_RATIO, []).append(result.residual_ratio)
    means = {key: torch.stack(found).mean() for key, found in values.items()}
    return {**means, LARGEST_WEIGHT: torch.stack([r.largest_weight for r in results]).amax()}
