"""The fine path: full-resolution detail that the backbone's first levels do not see.

The backbone looks in plane only until voxels are about isotropic, and its last layer hands on
`feature_size` channels. A membrane of a voxel or two across the sections of an isotropic volume
is below that. Two small cubic convolutions on the image see it; what they find is added to the
features, which have more channels than the backbone fills, so everything behind the features
(prompts, heads, the click cache) stays as it is.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

REACH = 2
"""Voxels to each side that the fine path sees."""


class FinePath(nn.Module):
    """Image -> an addition to the features; zero in a new network.

    Args:
        width: channels at full resolution.
        channels: F of the features.
        spatial_dims: 2 or 3.
    """

    def __init__(self, width: int, channels: int, spatial_dims: int) -> None:
        super().__init__()
        conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        self.spatial_dims = spatial_dims
        self.layers = nn.Sequential(
            conv(1, width, 3, bias=False),
            nn.GroupNorm(math.gcd(4, width), width),
            nn.ReLU(inplace=True),
            conv(width, width, 3),
            nn.ReLU(inplace=True),
        )
        # Without a bias: the features' norm has one.
        self.project = conv(width, channels, 1, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, *S) -> (B, F, *S)."""
        wide = functional.pad(image, [REACH] * (2 * self.spatial_dims), mode="replicate")
        out: Tensor = self.project(self.layers(wide))
        return out
