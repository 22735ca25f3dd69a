"""Task heads: one shared pointwise block, then one pointwise layer a task.

Everything here is pointwise, so heads cost little beside the backbone and a click can be
answered by evaluating them anew on cached features.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.configs.settings import LossSettings, ModelSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.pair_logits import START
from lib.targets.cells import PAIR_CHANNELS


class Heads(nn.Module):
    """Features -> semantic, coarse, instance, geometry and affinity.

    Args:
        channels: F of the features.
        outputs: name -> channels of each head.
        spatial_dims: 2 or 3.
    """

    def __init__(self, channels: int, outputs: dict[str, int], spatial_dims: int) -> None:
        super().__init__()
        conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        self.hidden_channels = 2 * channels
        self.shared = nn.Sequential(conv(channels, self.hidden_channels, 1), nn.ReLU(inplace=True))
        self.layers = nn.ModuleDict(
            {name: conv(self.hidden_channels, size, 1) for name, size in outputs.items() if size}
        )
        if "affinity" in self.layers:
            weight, bias = self.kernel("affinity")
            nn.init.zeros_(weight)
            nn.init.constant_(bias, START)
        self.study: nn.Module | None
        self.register_module("study", None)  # lib/networks/study_heads.py

    def forward(
        self,
        features: Tensor,
        only: Collection[str] | None = None,
        beside: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Evaluate the heads.

        Args:
            features: (B, F, *S).
            only: names of the heads wanted; None: all.
            beside: (B, *S, K) what a study's heads see beside the features, where they do.

        Returns:
            name -> (B, channels, *S), and "hidden" -> (B, 2 F, *S), the shared block's output.
        """
        out = self.rows(
            features.movedim(1, -1), list(self.layers) if only is None else only, beside
        )
        return {name: values.movedim(-1, 1) for name, values in out.items()}

    def rows(
        self, features: Tensor, only: Collection[str], beside: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The same with channels last: (..., F) -> name -> (..., channels), and "hidden".

        All wanted heads are one matrix product: the gradients of the hidden channels then meet
        inside it, where one layer a head would add up as many volumes of them.
        """
        hidden = functional.relu(functional.linear(features, *self.kernel("shared")))
        wanted = {name: self.kernel(name) for name in self.layers if name in only}
        if not wanted:
            return {"hidden": hidden}
        weight, bias = (torch.cat(parts) for parts in zip(*wanted.values(), strict=True))
        sizes = [len(bias) for _, bias in wanted.values()]
        found = torch.split(functional.linear(hidden, weight, bias), sizes, -1)
        logits = dict(zip(wanted, found, strict=True))
        if self.study is not None:
            logits = self.study(features, logits, only, beside)
        return {**logits, "hidden": hidden}

    def kernel(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight (out, in) and bias (out,) of "shared" or of one head, as of a linear layer."""
        layer = self.shared[0] if name == "shared" else self.layers[name]
        assert isinstance(layer, nn.Conv2d | nn.Conv3d) and layer.bias is not None
        return layer.weight.flatten(1), layer.bias


def head_sizes(
    model: ModelSettings, loss: LossSettings, hierarchy: LabelHierarchy
) -> dict[str, int]:
    """Channels of each head; geometry is direction (S), tensor (S * S) and RGBA (4), affinity
    one for each partner of lib/targets/cells.py.

    Source: spec/training-modes.md 1 "Forward path"; hierarchical-supervision "Model outputs".
    """
    s = model.spatial_dims
    return {
        "semantic": hierarchy.num_classes,
        "coarse": hierarchy.num_groups,
        "instance": model.embedding_size,
        "geometry": s + s * s + 4 if loss.weight_geometry > 0 else 0,
        "affinity": PAIR_CHANNELS if loss.weight_affinity > 0 else 0,
    }
