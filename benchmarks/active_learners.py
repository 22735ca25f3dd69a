"""Learners for the simulation of annotation: a small network, and trained heads on fixed filters.

Trained heads on the shipped network's features: benchmarks/active_heads.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from lib.configs.settings import Settings
from lib.data.batches import collate
from lib.data.items import labelled_items
from lib.data.sampler import PatchSampler
from lib.engine.step import StepContext, combined_step
from lib.labels.class_sets import coarse_targets, set_members
from lib.labels.hierarchy import load_hierarchy
from lib.losses.criterion import Criterion
from lib.metrics.class_scores import ClassScores
from lib.networks.model import NeuropilNet, build_network
from lib.prediction.classes import predict_classes
from lib.volumes.contrast import intensity_window, normalize
from lib.volumes.study import Study

HIERARCHY = load_hierarchy()
SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Scales of the filters, voxels in plane."""

LEAST_SHARE = 0.001
"""Label sets with a smaller share of the known voxels are not measured: chance decides there."""

_FILTERED: dict[tuple[Any, ...], Tensor] = {}


@dataclass(frozen=True)
class Volume:
    """Image and truth.

    Args:
        image: (X, Y, Z) uint8.
        truth: (X, Y, Z) int32 class sets.
        voxel_nm: (x, y, z).
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.int32]
    voxel_nm: tuple[float, float, float]


class Learner:
    """What is trained from round to round.

    Args:
        settings: of `settings_for`.
        pool: volumes that are annotated.
        seed: of weights and draws.
    """

    net: NeuropilNet

    def __init__(self, settings: Settings, pool: Mapping[str, Volume], seed: int) -> None:
        torch.manual_seed(seed)
        self.settings, self.pool, self.seed, self.step = settings, pool, seed, 0

    @staticmethod
    def settings_for(region: tuple[int, int, int], queries: int) -> Settings:
        """Settings for boxes of a size and a number of queries in all."""
        raise NotImplementedError

    @staticmethod
    def stamp() -> str:
        """What the learner starts from; runs of other stamps are not compared with."""
        return "scratch"

    def train(self, study: Study, known: Mapping[str, NDArray[np.int32]], steps: int) -> None:
        """Train on the labels of the study, which `known` holds as class sets."""
        raise NotImplementedError

    def measure(self, tests: list[Volume]) -> dict[str, float]:
        """IoU of each label set of the held-out volumes, over all of them together."""
        scores = ClassScores(HIERARCHY)
        for volume in tests:
            found = predict_classes(
                self.net.eval(), volume.image, volume.voxel_nm, self.settings.inference,
                hierarchy=HIERARCHY, level="fine",
            )  # fmt: skip
            scores.update(volume.truth, found.astype(np.int64) - 1)
        voxels: Counter[int] = Counter()
        for (truth, _), count in scores.counts.items():
            voxels[truth] += count
        least = LEAST_SHARE * sum(voxels.values())
        present = sorted(truth for truth, count in voxels.items() if count >= least)
        return {HIERARCHY.describe(s): scores.score(s).iou for s in present}


class NetworkLearner(Learner):
    """A small SegResNet of the app, trained on with the app's own step."""

    def __init__(self, settings: Settings, pool: Mapping[str, Volume], seed: int) -> None:
        super().__init__(settings, pool, seed)
        self.net = build_network(settings.model, settings.loss, HIERARCHY)
        rate = settings.training.learning_rate
        self.optimizer = torch.optim.AdamW(self.net.parameters(), rate, weight_decay=1e-5)

    @staticmethod
    def settings_for(region: tuple[int, int, int], queries: int) -> Settings:
        """A small network that learns classes and groups only."""
        return Settings.model_validate(
            {
                "model": {"feature_size": 8, "head_size": 8, "embedding_size": 2},
                "loss": {"weight_instance": 0.0, "weight_geometry": 0.0},
                "training": {"training_modes": ["automatic"], "learning_rate": 3e-3},
                "data": {"patch_size": (64, 64, 8)},
                "inference": {"window": (128, 128, 16), "overlap": 0.0},
                "queries": {"region": region, "settle_after": queries},
            }
        )

    def train(self, study: Study, known: Mapping[str, NDArray[np.int32]], steps: int) -> None:
        """Go on from the last round."""
        items = labelled_items(study.items(), HIERARCHY, 0.2, 2**30)
        sampler = PatchSampler(items, self.settings.data.patch_size, self.seed, True)
        context = StepContext(
            self.net.train(), Criterion(self.settings.loss, HIERARCHY), self.settings, HIERARCHY,
            lambda: torch.autocast("cpu", torch.bfloat16),
        )  # fmt: skip
        for _ in range(steps):
            combined_step(context, collate(sampler.batch(self.step, [0])), None)
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1


class FilterNet(nn.Module):
    """Fixed filters in place of a backbone, small trained heads; the interface of NeuropilNet.

    Filtered images are kept by their content: the same few volumes come again and again.
    """

    spatial_dims = 3

    def __init__(self) -> None:
        super().__init__()
        self.feature_channels = 5 * len(SIGMAS) + 1
        self.hidden = nn.Sequential(nn.Linear(self.feature_channels, 48), nn.ReLU())
        self.fine = nn.Linear(48, HIERARCHY.num_classes)
        self.coarse = nn.Linear(48, HIERARCHY.num_groups)
        self.task_heads = nn.Module()  # no study's heads on it
        self.task_heads.register_module("study", None)

    def features(self, image: Tensor) -> Tensor:
        """(1, 1, *S) -> (1, F, *S)."""
        key = (tuple(image.shape), float(image.double().sum()))
        if key not in _FILTERED:
            _FILTERED[key] = torch.from_numpy(filtered(image[0, 0].numpy()))
        return _FILTERED[key][None]

    def heads(
        self,
        features: Tensor,
        prompts: object = None,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits of classes and groups."""
        fine, coarse = self.rows(features.movedim(1, -1))
        return {"semantic": fine.movedim(-1, 1), "coarse": coarse.movedim(-1, 1)}

    def rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., F) -> logits of classes and groups, channels last."""
        hidden = self.hidden(x)
        return self.fine(hidden), self.coarse(hidden)


def filtered(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(F, X, Y, Z): at each scale mean, spread, edge and the two principal curvatures in plane.

    Every channel is standardised over the volume.
    """
    channels = [image]
    for sigma in SIGMAS:
        s = (sigma, sigma, sigma / 5)
        mean = ndimage.gaussian_filter(image, s, truncate=3.0)
        square = ndimage.gaussian_filter(image**2, s, truncate=3.0)
        gx, gy = np.gradient(mean, axis=(0, 1))
        xx, xy = np.gradient(gx, axis=(0, 1))
        yy = np.gradient(gy, axis=1)
        middle, radius = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        channels += [mean, spread, sigma * np.hypot(gx, gy)]
        channels += [sigma**2 * (middle + radius), sigma**2 * (middle - radius)]
    stack = np.stack(channels).astype(np.float32)
    axes = (1, 2, 3)
    stack -= stack.mean(axes, keepdims=True)
    stack /= stack.std(axes, keepdims=True) + 1e-5
    return stack


class FilterLearner(Learner):
    """Heads on fixed filters, trained anew in each round on voxels balanced over label sets."""

    def __init__(self, settings: Settings, pool: Mapping[str, Volume], seed: int) -> None:
        super().__init__(settings, pool, seed)
        self.filters = FilterNet()
        self.net = cast(NeuropilNet, self.filters)

    @staticmethod
    def settings_for(region: tuple[int, int, int], queries: int) -> Settings:
        """One window for a whole volume."""
        return Settings.model_validate(
            {
                "training": {"training_modes": ["automatic"]},
                "inference": {"window": (512, 512, 64), "precision": "float32"},
                "model": {"finest_nm": 0.0},
                "queries": {"region": region, "settle_after": queries},
            }
        )

    def _features(self, volume: Volume) -> Tensor:
        image = normalize(volume.image, intensity_window(volume.image))
        return self.filters.features(torch.from_numpy(image)[None, None])[0]

    def train(self, study: Study, known: Mapping[str, NDArray[np.int32]], steps: int) -> None:
        """Fit the heads from fresh weights."""
        rows, sets = [], []
        for name, volume in self.pool.items():
            where = torch.from_numpy(known[name] != HIERARCHY.unknown)
            rows.append(self._features(volume)[:, where].T)
            sets.append(torch.from_numpy(known[name])[where])
        torch.manual_seed(self.seed)
        modules = [self.filters.hidden[0], self.filters.fine, self.filters.coarse]
        for module in modules:
            cast(nn.Linear, module).reset_parameters()
        parameters = list(self.filters.parameters())
        fit_rows(self.filters.rows, parameters, torch.cat(rows), torch.cat(sets), steps, self.seed)


def fit_rows(
    logits: Callable[[Tensor], tuple[Tensor, Tensor]],
    parameters: Sequence[nn.Parameter],
    x: Tensor,
    sets: Tensor,
    steps: int,
    seed: int,
    rate: float = 5e-3,
) -> None:
    """Fit pointwise heads on voxels drawn equally from each label set.

    Args:
        logits: (N, F) -> classes (N, C) and groups (N, K).
        parameters: to be trained.
        x: (N, F) features of the known voxels.
        sets: (N,) their class sets.
        rate: the learning rate at first; it falls to nothing along a half cosine.
    """
    strata = [torch.nonzero(sets == s)[:, 0] for s in torch.unique(sets)]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    share = max(1, 1024 // len(strata))
    for _ in range(steps):
        chosen = torch.cat(
            [s[torch.randint(len(s), (share,), generator=generator)] for s in strata]
        )
        loss = _voxel_loss(*logits(x[chosen]), sets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _voxel_loss(fine: Tensor, coarse: Tensor, sets: Tensor) -> Tensor:
    """-log of the summed probability of each voxel's set, and 0.2 times BCE of known groups."""
    members = set_members(sets[None], HIERARCHY.num_classes)[0].T
    inside = fine.log_softmax(1).masked_fill(~members, -torch.inf)
    bits, known = (t[0].T for t in coarse_targets(sets[None], HIERARCHY))
    groups = nn.functional.binary_cross_entropy_with_logits(coarse, bits.float(), reduction="none")
    return -inside.logsumexp(1).mean() + 0.2 * (groups * known).sum() / known.sum().clamp_min(1)
