"""A network whose answers are known: what a voxel's grey value says is its embedding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lib.clicks.answer import ClickAnswer
from lib.clicks.source import ClickSource
from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.labels.hierarchy import flat_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prediction.feature_cache import FeatureCache
from lib.volumes.boxes import box_slices

LEVELS = 8
"""Grey values 0, 1/7 .. 1 are told apart; each gets an embedding axis of its own."""


class GreyBackbone(nn.Module):
    """Features: for each of the grey levels, how near the voxel is to it, times 6."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        level = image * (LEVELS - 1)
        centres = torch.arange(LEVELS, dtype=image.dtype).view(1, -1, *[1] * (image.ndim - 2))
        near = 6.0 * (1.0 - (level - centres).abs()).clamp(min=0.0)
        return torch.cat((near, torch.zeros_like(near)), 1) + self.nothing


def grey_network(prompt: float = 0.0, classes: int = 4, dims: int = 3) -> NeuropilNet:
    """Embedding: one axis for each grey level; class: grey level modulo the classes."""
    torch.manual_seed(0)
    net = build_network(
        ModelSettings(spatial_dims=dims, embedding_size=LEVELS, head_size=2 * LEVELS),
        LossSettings(weight_prompt=prompt),
        flat_hierarchy(classes),
    )
    net.backbone = GreyBackbone()
    heads = net.task_heads
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
        for i in range(LEVELS):
            heads.shared[0].weight[i, i] = 1.0
            heads.layers["instance"].weight[i, i] = 1.0
            heads.layers["semantic"].weight[i % classes, i] = 1.0
    return net.eval()


def source(
    image: np.ndarray,
    net: NeuropilNet | None = None,
    window: tuple[int, int, int] = (32, 32, 8),
    limit: tuple[int, int, int] = (96, 96, 24),
    cache: FeatureCache | None = None,
    key: str = "image",
) -> ClickSource:
    """Clicks on an image of grey levels 0 .. 7."""
    inference = InferenceSettings.model_validate(
        {"click_window": window, "click_window_limit": limit, "precision": "float32"}
    )
    cache = FeatureCache(2**26) if cache is None else cache
    cache.contrast(key, lambda: (0.0, float(LEVELS - 1)))
    hierarchy = flat_hierarchy(4)
    return ClickSource(
        net or grey_network(), "one", image, key, (8.0, 8.0, 8.0), cache, inference, hierarchy
    )


def whole(answer: ClickAnswer, image: np.ndarray) -> np.ndarray:
    """The answer on the grid of the whole image."""
    out = np.zeros(image.shape, bool)
    out[box_slices(answer.box)] = answer.mask
    return out
