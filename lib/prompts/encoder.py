"""The point-prompt encoder: from clicks to the residual that is added to the features.

As specified, a sparse indicator volume of num_classes + 3 channels goes through convolution,
group norm and ReLU. The volume is almost empty, so the convolution equals its bias everywhere
but within a kernel's reach of a point; group norm's mean and variance then follow from the
few voxels that differ, and the result is one background vector a sample plus as many
corrections as points have neighbours. That is what `forward` computes; `dense` is the plain
way, for tests and for reading.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.prompts.points import NEGATIVE, PADDING, POSITIVE, PointPrompts


@dataclass(frozen=True)
class SparseResidual:
    """A residual that is constant for each sample except at a few voxels.

    Args:
        shape: spatial shape.
        background: (B, F) value everywhere else; zero for samples without points.
        index: (M,) int64 flat voxel index over (B, *shape), unique.
        values: (M, F) value at those voxels.
    """

    shape: tuple[int, ...]
    background: Tensor
    index: Tensor
    values: Tensor

    def dense(self) -> Tensor:
        """The whole residual, (B, F, *shape), channels last in memory."""
        batch, channels = self.background.shape
        voxels = math.prod(self.shape)
        flat = self.background.unsqueeze(1).expand(batch, voxels, channels)
        flat = flat.reshape(batch * voxels, channels).index_copy(0, self.index, self.values)
        volume = flat.view(batch, *self.shape, channels)
        return volume.permute(0, volume.ndim - 1, *range(1, volume.ndim - 1))

    def norm(self) -> Tensor:
        """(B,) Euclidean norm of the whole residual, without building it."""
        voxels = math.prod(self.shape)
        sample = self.index // voxels
        batch = self.background.shape[0]
        count = voxels - torch.bincount(sample, minlength=batch)
        squares = self.background.square().sum(1) * count
        return squares.index_add(0, sample, self.values.square().sum(1)).sqrt()


class PointPromptEncoder(nn.Module):
    """Clicks -> residual on the features.

    Channels of the indicator volume: 0 positive points, 1 negative points, 2 .. 2+C-1 the
    points' class, last: 1 at positive points that speak of one instance. A learned gate for
    each feature, zero at the start, scales the result: the small initial convolution alone
    is undone by group norm in one optimiser step.

    Args:
        num_classes: fine classes C.
        channels: features F of the backbone.
        spatial_dims: 2 or 3.
        kernel_size: odd, of the convolution.
        groups: group norm's groups.

    Source: spec/training-modes.md 2a.3-4; spec/clarifications.md "Near-zero start".
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        spatial_dims: int = 3,
        kernel_size: int = 3,
        groups: int = 1,
    ) -> None:
        super().__init__()
        assert kernel_size % 2 == 1
        self.num_classes = num_classes
        self.kernel = (kernel_size,) * spatial_dims
        conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        self.conv = conv(num_classes + 3, channels, kernel_size, padding=kernel_size // 2)
        self.norm = nn.GroupNorm(groups, channels)
        self.gate = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.conv.weight, std=1e-4)
        assert self.conv.bias is not None
        nn.init.normal_(self.conv.bias, std=1e-4)

    def indicator(self, prompts: PointPrompts, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The nonzero voxels of the indicator volume.

        Returns:
            index (U,) int64 flat over (B, *shape), unique; values (U, C + 3) of {0, 1}.
        """
        exists = prompts.labels != PADDING
        sample, _ = exists.nonzero(as_tuple=True)
        flat = flat_index(prompts.coords[exists], shape) + sample * math.prod(shape)
        positive = prompts.labels[exists] == POSITIVE
        classes = prompts.class_ids[exists]
        weight = self.conv.weight
        rows = weight.new_zeros((len(flat), self.num_classes + 3))
        rows[positive, 0] = 1.0
        rows[prompts.labels[exists] == NEGATIVE, 1] = 1.0
        named = (classes >= 0).nonzero(as_tuple=True)[0]
        rows[named, 2 + classes[named]] = 1.0
        rows[positive & prompts.instance[exists], -1] = 1.0
        index, inverse = torch.unique(flat, return_inverse=True)
        values = weight.new_zeros((len(index), rows.shape[1]))
        return index, values.index_add(0, inverse, rows).clamp(max=1.0)  # a voxel clicked twice

    def forward(self, prompts: PointPrompts, shape: tuple[int, ...]) -> SparseResidual:
        """The residual, at a cost that follows the number of points.

        Args:
            prompts: points inside `shape`.
            shape: spatial shape of the features.
        """
        index, values = self.indicator(prompts, shape)
        with torch.autocast(values.device.type, enabled=False):
            where, conv = self._convolve(index, values, shape)
            return self._normalise(where, conv, prompts, shape)

    def dense(self, prompts: PointPrompts, shape: tuple[int, ...]) -> Tensor:
        """The same by convolving the whole indicator volume: (B, F, *shape)."""
        index, values = self.indicator(prompts, shape)
        batch = prompts.coords.shape[0]
        flat = values.new_zeros((batch * math.prod(shape), values.shape[1]))
        volume = flat.index_copy(0, index, values).view(batch, *shape, -1).movedim(-1, 1)
        out = functional.relu(self.norm(self.conv(volume)))
        scale = prompts.prompted.to(out.dtype).view(-1, *[1] * (out.ndim - 1))
        return out * self.gate.view(1, -1, *[1] * len(shape)) * scale

    def _convolve(
        self, index: Tensor, values: Tensor, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """The convolution's output without bias, at the voxels that points reach.

        Returns:
            index (M,) int64 flat over (B, *shape), unique; values (M, F).
        """
        voxels, channels = math.prod(shape), self.conv.out_channels
        place = unflat_index(index % voxels, shape)
        offsets = torch.tensor(list(itertools.product(*(range(k) for k in self.kernel))))
        radius = torch.tensor([k // 2 for k in self.kernel])
        reached = place.unsqueeze(1) - (offsets - radius).to(place.device)  # (U, K, S)
        size = torch.tensor(shape, device=place.device)
        inside = ((reached >= 0) & (reached < size)).all(-1)
        weight = self.conv.weight.flatten(2)  # (F, C + 3, K)
        parts = torch.einsum("uc,fck->ukf", values, weight)
        sample = (index // voxels).unsqueeze(1).expand(inside.shape)[inside]
        flat = flat_index(reached[inside], shape) + sample * voxels
        where, inverse = torch.unique(flat, return_inverse=True)
        out = parts.new_zeros((len(where), channels)).index_add(0, inverse, parts[inside])
        return where, out

    def _normalise(
        self, where: Tensor, conv: Tensor, prompts: PointPrompts, shape: tuple[int, ...]
    ) -> SparseResidual:
        """Group norm from the voxels that differ from the bias, then ReLU and gate."""
        assert self.conv.bias is not None
        bias = self.conv.bias
        batch, groups, voxels = prompts.coords.shape[0], self.norm.num_groups, math.prod(shape)
        sample = where // voxels
        size = len(bias) // groups  # channels in a group
        differing = torch.bincount(sample, minlength=batch).to(bias.dtype).unsqueeze(1)
        shift = bias.new_zeros((batch, groups)).index_add(
            0, sample, conv.view(-1, groups, size).sum(2)
        )
        mean = bias.view(groups, size).mean(1) + shift / (voxels * size)  # (B, G)
        rest = (bias.view(groups, size) - mean.unsqueeze(2)).square().sum(2)
        own = (conv + bias).view(-1, groups, size) - mean[sample].unsqueeze(2)
        square = (rest * (voxels - differing)).index_add(0, sample, own.square().sum(2))
        scale = torch.rsqrt(square / (voxels * size) + self.norm.eps)  # (B, G)
        mean, scale = mean.repeat_interleave(size, 1), scale.repeat_interleave(size, 1)
        values = self._activate((conv + bias - mean[sample]) * scale[sample])
        background = self._activate((bias - mean) * scale)
        return SparseResidual(
            shape, background * prompts.prompted.unsqueeze(1).to(background.dtype), where, values
        )

    def _activate(self, normal: Tensor) -> Tensor:
        return functional.relu(normal * self.norm.weight + self.norm.bias) * self.gate


def flat_index(coords: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(..., S) voxel indices -> (...) flat index in C order."""
    flat = torch.zeros_like(coords[..., 0])
    for axis, size in enumerate(shape):
        flat = flat * size + coords[..., axis]
    return flat


def unflat_index(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(...) flat index -> (..., S) voxel indices."""
    coords = []
    for size in reversed(shape):
        coords.append(flat % size)
        flat = flat // size
    return torch.stack(coords[::-1], -1)
