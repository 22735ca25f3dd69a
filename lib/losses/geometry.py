"""Geometry loss: masked mean squared error of direction, structure tensor and RGBA.

The three terms share one buffer for their gradient, since they are channels of one output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lib.configs.settings import LossSettings
from lib.targets.prepare import Targets
from lib.targets.processes import shared_count

TERMS = ("dir", "cov", "raw")


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
    wanted = tuple(name for name in TERMS if getattr(loss, f"weight_{name}") > 0)
    values = _Squares.apply(geometry, targets, wanted)  # type: ignore[no-untyped-call]
    return dict(zip(wanted, values, strict=True))


class _Squares(torch.autograd.Function):
    """Mean squared errors of the wanted terms."""

    @staticmethod
    def forward(
        ctx: Any, geometry: Tensor, targets: Targets, wanted: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        dims = geometry.ndim - 2
        assert geometry.shape[1] == dims + dims * dims + 4
        channels = dict(zip(TERMS, ((0, dims), (dims, dims * dims), (-4, 4)), strict=True))
        slope = torch.zeros_like(geometry)  # half the gradient, before dividing by `counts`
        errors, counts = [], []
        for name in wanted:
            predicted, out = (t.narrow(1, *channels[name]) for t in (geometry, slope))
            region = targets.foreground
            if name == "raw":
                assert targets.raw_region is not None
                region, predicted = targets.raw_region, torch.sigmoid(predicted)
                torch.sub(predicted[:, :3], targets.image, out=out[:, :3])
                torch.sub(predicted[:, 3], targets.foreground.to(out.dtype), out=out[:, 3])
            else:
                target = targets.direction if name == "dir" else targets.tensor
                assert target is not None
                torch.sub(predicted, target, out=out)
            out.mul_(region.unsqueeze(1))
            errors.append(_square_sum(out))
            counts.append(shared_count(region.sum() * out.shape[1]))
            if name == "raw":
                out.mul_(predicted * (1 - predicted))
        ctx.save_for_backward(slope, *counts)
        ctx.spans = [channels[name] for name in wanted]
        return tuple((e / c).to(slope.dtype) for e, c in zip(errors, counts, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        slope, *counts = ctx.saved_tensors
        scale = slope.new_zeros(slope.shape[1])
        for span, grad, count in zip(ctx.spans, grads, counts, strict=True):
            scale.narrow(0, *span).copy_(2 * grad / count)
        return slope * scale.view(1, -1, *[1] * (slope.ndim - 2)), None, None


def _square_sum(values: Tensor) -> Tensor:
    """Sum of squares, in parts short enough for float32: (scalar float64)."""
    lines: Tensor = torch.linalg.vector_norm(values, dim=-1)
    return lines.square().sum(dtype=torch.float64)
