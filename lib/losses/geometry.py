"""Geometry loss: masked mean squared error of direction, structure tensor and RGBA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lib.configs.settings import LossSettings
from lib.targets.prepare import Targets


def geometry_terms(geometry: Tensor, targets: Targets, loss: LossSettings) -> dict[str, Tensor]:
    """The terms of the geometry loss whose weight is not zero.

    Each is the squared error averaged over the region's voxels (foreground; for L_raw see
    `raw_region`) and the term's channels; 0 where the region is empty.

    Args:
        geometry: (B, S + S * S + 4, *S) float32 or float64: direction, tensor, RGBA logits.

    Returns:
        Some of "dir", "cov", "raw", scalars.

    Source: spec/training-modes.md, "Geometry loss".
    """
    dims = geometry.ndim - 2
    assert geometry.shape[1] == dims + dims * dims + 4
    terms = {}
    if loss.weight_dir > 0:
        terms["dir"] = masked_mse(geometry[:, :dims], targets.direction, targets.foreground)
    if loss.weight_cov > 0:
        cov = geometry[:, dims : dims + dims * dims]
        terms["cov"] = masked_mse(cov, targets.tensor, targets.foreground)
    if loss.weight_raw > 0:
        assert targets.raw_region is not None
        grey = targets.image.expand(-1, 3, *targets.image.shape[2:])
        rgba = torch.cat([grey, targets.foreground.unsqueeze(1).to(grey.dtype)], 1)
        predicted = torch.sigmoid(geometry[:, -4:])
        terms["raw"] = masked_mse(predicted, rgba, targets.raw_region)
    return terms


def masked_mse(predicted: Tensor, target: Tensor | None, region: Tensor) -> Tensor:
    """Mean squared error over the channels of a region's voxels.

    Args:
        predicted, target: (B, C, *S).
        region: (B, *S) bool.
    """
    assert target is not None
    loss: Tensor = _MaskedMSE.apply(predicted, target, region)  # type: ignore[no-untyped-call]
    return loss


class _MaskedMSE(torch.autograd.Function):
    """Keeps only the masked difference for its gradient."""

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor, region: Tensor) -> Tensor:
        difference = (predicted - target.to(predicted.dtype)).mul_(region.unsqueeze(1))
        count = (region.sum() * predicted.shape[1]).clamp_min(1).to(predicted.dtype)
        ctx.save_for_backward(difference, count)
        return difference.square().sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        difference, count = ctx.saved_tensors
        return difference * (2 * grad / count), None, None
