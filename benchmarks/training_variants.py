"""Ways of training that were compared and are not part of the app (benchmarks/variants.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.configs.settings import LossSettings, ModelSettings
from lib.data.batches import Batch
from lib.data.sampler import Entry
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.losses.semantic import fine_terms
from lib.networks.model import NeuropilNet
from lib.targets.prepare import Targets, prepare_targets
from lib.volumes.boxes import Triple

AUXILIARY_WEIGHT = 0.5


class WithLoss(torch.autograd.Function):
    """Features passed through; whoever goes backward through them goes through a loss as well."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, loss: Tensor) -> Tensor:
        """The features."""
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Their gradient, and one for the loss."""
        (gradient,) = grad_outputs
        return gradient, gradient.new_ones(())


class DeeplySupervised(NeuropilNet):
    """Classes are asked of the decoder's second finest level too, as nnU-Net does."""

    targets: Targets | None = None

    def __init__(self, model: ModelSettings, loss: LossSettings, hierarchy: LabelHierarchy) -> None:
        super().__init__(model, loss, hierarchy)
        level: Any = self.backbone.network.up_layers[-2]
        level["blocks"].register_forward_hook(self._keep)
        self.auxiliary = nn.Conv3d(2 * model.feature_size, hierarchy.num_classes, 1)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._coarse = output

    def features(self, image: Tensor) -> Tensor:
        """As `NeuropilNet.features`; in training they carry the coarse level's loss."""
        features = super().features(image)
        if not self.training:
            return features
        assert self.targets is not None
        whole = functional.interpolate(
            self.auxiliary(self._coarse).float(), self.targets.fine.shape[1:], mode="trilinear"
        )
        ce, iou, dice = fine_terms(whole, self.targets, overlap=True, excluded=True)
        assert iou is not None and dice is not None
        loss = AUXILIARY_WEIGHT * (ce + iou + dice)
        carried: Tensor = WithLoss.apply(features, loss)  # type: ignore[no-untyped-call]
        return carried


@contextmanager
def deep_supervision() -> Iterator[None]:
    """Networks built inside are supervised at two levels."""

    def remember(batch: Batch, hierarchy: LabelHierarchy, loss: LossSettings) -> Targets:
        DeeplySupervised.targets = prepare_targets(batch, hierarchy, loss)
        return DeeplySupervised.targets

    with (
        patch("lib.networks.model.NeuropilNet", DeeplySupervised),
        patch("lib.engine.step.prepare_targets", remember),
    ):
        yield


def eroded(ids: Tensor) -> Tensor:
    """Objects without the voxels beside another id in their section, which become unknown.

    Args:
        ids: (B, X, Y, Z) int64, 0 none, -1 unknown.
    """
    border = torch.zeros_like(ids, dtype=torch.bool)
    for axis in (1, 2):
        low = ids.narrow(axis, 0, ids.shape[axis] - 1)
        high = ids.narrow(axis, 1, ids.shape[axis] - 1)
        apart = low != high
        border.narrow(axis, 0, ids.shape[axis] - 1).logical_or_(apart)
        border.narrow(axis, 1, ids.shape[axis] - 1).logical_or_(apart)
    return torch.where(border & (ids > 0), IGNORE_INDEX, ids)


@contextmanager
def boundary_erosion() -> Iterator[None]:
    """Objects lose a voxel all around in their losses, as if membranes were unknown."""

    def prepare(batch: Batch, hierarchy: LabelHierarchy, loss: LossSettings) -> Targets:
        changed: Any = {**batch, "instance": eroded(batch["instance"])}
        return prepare_targets(changed, hierarchy, loss)

    with patch("lib.engine.step.prepare_targets", prepare):
        yield


def choose_by_size(
    members: Sequence[Entry], generator: np.random.Generator
) -> tuple[Entry, Triple]:
    """A group as ever, then any known voxel of it, whatever its class."""
    groups = sorted({e.item.group for e in members})
    shares = np.array([sum(e.weight for e in members if e.item.group == g) for g in groups])
    group = groups[int(generator.choice(len(groups), p=shares / shares.sum()))]
    ways = [(e, s) for e in members if e.item.group == group for s in e.strata.values()]
    counts = np.array([stratum.count for _, stratum in ways], float)
    entry, stratum = ways[int(generator.choice(len(ways), p=counts / counts.sum()))]
    return entry, stratum.draw(generator)


@contextmanager
def unbalanced_classes() -> Iterator[None]:
    """Patches are drawn at voxels, not at classes."""
    with patch("lib.data.sampler._choose", choose_by_size):
        yield
