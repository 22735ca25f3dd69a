"""Heads as the public design has them: a residual 3x3x3 block at full resolution for each task.

Only for comparison (benchmarks/variants.py, `heavy-heads`); lib/networks/heads.py is what ships.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch import Tensor, nn

from lib.networks.heads import Heads


class ResidualBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = math.gcd(4, channels)
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(groups, channels),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, X, Y, Z) -> the same shape."""
        out: Tensor = x + self.layers(x)
        return out


class HeavyHeads(Heads):
    """A block of its own before each task's pointwise layers."""

    def __init__(self, channels: int, outputs: dict[str, int], spatial_dims: int) -> None:
        super().__init__(channels, outputs, spatial_dims)
        assert spatial_dims == 3
        self.blocks = nn.ModuleDict({name: ResidualBlock(channels) for name in self.layers})

    def forward(self, features: Tensor, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """As `Heads.forward`; "hidden" is the one of the objects' head."""
        out: dict[str, Tensor] = {}
        for name, block in self.blocks.items():
            if only is None or name in only:
                found = super().forward(block(features), [name])
                out[name] = found[name]
                if name == "instance" or "hidden" not in out:
                    out["hidden"] = found["hidden"]
        return out


@contextmanager
def heavy_heads() -> Iterator[None]:
    """Networks built inside have the heavy heads."""
    with patch("lib.networks.model.Heads", HeavyHeads):
        yield
