"""A learner for the simulation of annotation: the shipped network, whose class heads learn on.

The backbone and the point-prompt encoder stay as they are, so features are computed once for
each volume and a round costs seconds; all strategies work, also the comparison of automatic
with prompted classes.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.active_learners import Learner, Volume, fit_rows
from lib.configs.settings import Settings
from lib.networks.model import NeuropilNet
from lib.networks.weights import load_network
from lib.prompts.points import PointPrompts
from lib.queries.store import weights_version
from lib.volumes.contrast import intensity_window, normalize
from lib.volumes.frames import viewer_frame
from lib.volumes.study import Study

SHIPPED = Path(__file__).resolve().parents[1] / "model" / "neuropil.pt"
WEIGHTS = Path(os.environ.get("NEUROPIL_WEIGHTS", SHIPPED))
RATE = 1e-2
TRAINED = ("semantic", "coarse")

_FEATURES: dict[tuple[Any, ...], Tensor] = {}


class FrozenBackbone(nn.Module):
    """A network whose features are kept by the image's content; the interface of NeuropilNet."""

    spatial_dims = 3

    def __init__(self, net: NeuropilNet) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        self.feature_channels, self.task_heads = net.feature_channels, net.task_heads

    def features(self, image: Tensor) -> Tensor:
        """(1, 1, *S) -> (1, F, *S)."""
        key = (tuple(image.shape), float(image.double().sum()))
        if key not in _FEATURES:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                _FEATURES[key] = self.net.features(image.float())
        return _FEATURES[key]

    def heads(
        self,
        features: Tensor,
        prompts: object = None,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits of classes and groups."""
        return self.net.heads(features, None, only, beside)

    def prompted(
        self,
        features: Tensor,
        prompts: PointPrompts,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The same with the prompts' residual."""
        return self.net.prompted(features, prompts, only, beside)


class HeadsLearner(Learner):
    """Class heads trained in each round from the shipped ones on, on all that is known.

    Starting anew makes a round depend on what is annotated, not on the order in which it was.
    """

    def __init__(self, settings: Settings, pool: Mapping[str, Volume], seed: int) -> None:
        super().__init__(settings, pool, seed)
        net, _, _, _ = load_network(WEIGHTS)
        self.frozen = FrozenBackbone(net.eval())
        self.net = cast(NeuropilNet, self.frozen)
        self.shipped = copy.deepcopy(net.task_heads.state_dict())

    @staticmethod
    def settings_for(region: tuple[int, int, int], queries: int) -> Settings:
        """The network's own settings, and one window for a whole volume."""
        _, settings, _, _ = load_network(WEIGHTS)
        inference = settings.inference.model_copy(
            update={"window": (512, 512, 512), "precision": "float32", "mirror": False}
        )
        asked = settings.queries.model_copy(update={"region": region, "settle_after": queries})
        return settings.model_copy(update={"inference": inference, "queries": asked})

    @staticmethod
    def stamp() -> str:
        """The weights' content."""
        return weights_version(WEIGHTS)

    def _features(self, volume: Volume) -> Tensor:
        """(F, X, Y, Z) of a volume that the network takes as it is."""
        frame = viewer_frame(volume.image.shape, volume.voxel_nm, self.settings.model.finest_nm)
        assert frame.order == (0, 1, 2) and frame.bins == (1, 1, 1), volume.voxel_nm
        image = normalize(volume.image, intensity_window(volume.image))
        return self.frozen.features(torch.from_numpy(image)[None, None])[0]

    def train(self, study: Study, known: Mapping[str, NDArray[np.int32]], steps: int) -> None:
        """Fit the heads from the shipped ones on."""
        unknown = study.hierarchy.unknown
        rows, sets = [], []
        for name, volume in self.pool.items():
            where = torch.from_numpy(known[name] != unknown)
            if where.any():
                rows.append(self._features(volume)[:, where].T)
                sets.append(torch.from_numpy(known[name])[where])
        heads = self.frozen.net.task_heads
        heads.load_state_dict(self.shipped)
        trained = [heads.shared, *(heads.layers[name] for name in TRAINED)]
        parameters = [p.requires_grad_(True) for module in trained for p in module.parameters()]

        def logits(x: Tensor) -> tuple[Tensor, Tensor]:
            out = heads.rows(x, TRAINED)
            return out["semantic"], out["coarse"]

        fit_rows(logits, parameters, torch.cat(rows), torch.cat(sets), steps, self.seed, RATE)
        heads.requires_grad_(False)
