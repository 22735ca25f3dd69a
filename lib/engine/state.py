"""What changes during a run, and how it is saved and restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.configs.settings import Settings
from lib.engine.checkpoints import random_states, restore_random_states, save_checkpoint
from lib.engine.optimise import AveragedWeights, build_optimiser, build_schedule
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import build_network


class RunState:
    """Network, optimiser, schedule, scaler, averaged weights, counters.

    Args:
        settings: resolved configuration.
        hierarchy: classes and groups.
        total: optimiser steps of the whole run, for the schedule.
        device: where the network lives.
        dtype: of mixed precision, None for none.
    """

    def __init__(
        self,
        settings: Settings,
        hierarchy: LabelHierarchy,
        total: int,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.settings, self.hierarchy, self.dtype = settings, hierarchy, dtype
        torch.manual_seed(settings.training.seed)
        self.net = build_network(settings.model, settings.loss, hierarchy).to(device)
        if device.type == "cpu":
            # Channels last predicts faster, but the gradient of its group norm is slow there.
            self.net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.optimiser = build_optimiser(self.net, settings.training)
        self.schedule = build_schedule(self.optimiser, settings.training, total)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        self.average = AveragedWeights(self.net, settings.training.ema_decay)
        self.step, self.epoch, self.validated_at = 0, 0, -1
        self.best: float | None = None
        self.places: list[str] = []  # where `best` was scored
        self.origins: Mapping[str, str] = {}  # where each setting comes from

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take over weights; counters and optimiser start anew."""
        self.net.load_state_dict(dict(weights))
        self.average = AveragedWeights(self.net, self.settings.training.ema_decay)

    def advance(self) -> None:
        """The optimiser's step, with everything that goes with it."""
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update()
        self.skip()

    def skip(self) -> None:
        """Count a step without changing the weights."""
        self.schedule.step()
        self.step += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network holds the averaged weights."""
        if not self.average.decay:
            yield
            return
        own = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.net.load_state_dict(self.average.state())
        try:
            yield
        finally:
            self.net.load_state_dict(own)

    def save(self, path: Path, finished: bool) -> None:
        """Write everything that a run needs to go on from here."""
        save_checkpoint(
            path,
            {
                "model": self.net.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": self.average.state_dict(),
                "step": self.step,
                "epoch": self.epoch,
                "validated_at": self.validated_at,
                "best": self.best,
                "places": self.places,
                "finished": finished,
                # Patches and prompts are functions of the seed and the step.
                "sampler": {"seed": self.settings.training.seed, "step": self.step},
                "random": random_states(),
                "settings": self.settings.model_dump(mode="json"),
                "hierarchy": self.hierarchy.to_dict(),
                "meta": {"step": self.step, "score": self.best, **self.net.fitted},
            },
            self.settings,
            self.origins,
        )

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's content.

        Raises:
            ValueError: the file holds weights only.
        """
        if "optimiser" not in data:
            raise ValueError("a weights file, no checkpoint: start from it instead of resuming")
        self.net.load_state_dict(data["model"])
        self.net.take_fitted(data["meta"])
        self.optimiser.load_state_dict(data["optimiser"])
        self.schedule.load_state_dict(data["schedule"])
        self._set_rates(int(data["step"]))
        self.scaler.load_state_dict(data["scaler"])
        self.average.load_state_dict(data["average"])
        self.step, self.epoch = int(data["step"]), int(data["epoch"])
        self.validated_at = int(data["validated_at"])
        self.best = None if data["best"] is None else float(data["best"])
        self.places = [str(place) for place in data.get("places", ())]
        restore_random_states(data["random"])

    def _set_rates(self, step: int) -> None:
        """The learning rate is the settings', not the checkpoint's: runs are drawn out with it."""
        rate = self.settings.training.learning_rate
        groups = self.optimiser.param_groups
        self.schedule.base_lrs = [rate] * len(groups)
        for group, factor in zip(groups, self.schedule.lr_lambdas, strict=True):
            group["initial_lr"], group["lr"] = rate, rate * factor(step)
