"""Discriminative loss of the embedding: pull, push and norm, for all objects at once.

Source: De Brabandere, Neven & Van Gool, "Semantic instance segmentation with a discriminative
loss function", 2017, with the weights of spec/training-modes.md section 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from lib.configs.settings import LossSettings
from lib.targets.objects import Objects
from lib.targets.prepare import Targets
from lib.targets.processes import process_count, sum_over_processes
from lib.targets.semantic import majority_classes

PUSH_CHUNK = 2000
"""Centroids whose pairwise distances are held at once; beyond, blocks are recomputed."""


def instance_terms(
    embedding: Tensor, targets: Targets, loss: LossSettings, semantic_ids: Tensor | None = None
) -> dict[str, Tensor]:
    """The terms of the instance loss whose weight is not zero.

    Args:
        embedding: (B, E, *S) float32 or float64.
        semantic_ids: (B, *S) int64 class of each voxel, -1 unknown: the loss then runs for
            each class by itself and is averaged over the classes present; objects of unknown
            class form one class. None: all objects are of one class.

    Returns:
        Some of "pull", "push", "norm", scalars.

    Source: spec/clarifications.md, "Pull", "Centroid mu", "Push", "Per class".
    """
    objects = targets.objects
    pairs, group = _pairs(_classes(targets, semantic_ids), targets)
    samples = torch.bincount(pairs, minlength=targets.hierarchy.num_classes + 1)
    samples = sum_over_processes(samples)  # every process, also one without any object
    if objects.count == 0:
        zero = embedding.flatten()[:0].sum()
        names = ("pull", "push", "norm")
        return {n: zero for n in names if getattr(loss, f"weight_{n}") > 0}
    rows = embedding.flatten(2).transpose(1, 2).reshape(-1, embedding.shape[1]).contiguous()
    centroid = _Centroids.apply(rows, objects)  # type: ignore[no-untyped-call]
    share = _shares(group, pairs, samples)
    terms: dict[str, Tensor] = {}
    if loss.weight_pull > 0:
        assert targets.weight is not None
        weight = targets.weight.flatten()
        arguments = (rows, centroid, weight, share, objects, loss.delta_v)
        terms["pull"] = _Pull.apply(*arguments)  # type: ignore[no-untyped-call]
    if loss.weight_push > 0:
        terms["push"] = push_term(centroid, group, share, loss.delta_d)
    if loss.weight_norm > 0:
        terms["norm"] = (share.to(centroid.dtype) * centroid.norm(dim=1)).sum()
    return terms


def push_term(centroid: Tensor, group: Tensor, share: Tensor, delta_d: float) -> Tensor:
    """Mean over pairs within a group of relu(2 delta_d - distance)^2, weighted by group.

    Args:
        centroid: (K, E).
        group: (K,) int64, groups are contiguous after sorting; pairs never cross groups.
        share: (K,) float64, the weight of an object in a mean over objects; a group's weight
            is the sum of its objects'.

    Returns:
        Scalar; a group of one object contributes 0 and counts.
    """
    order = torch.sort(group, stable=True).indices
    sizes = torch.unique_consecutive(group[order], return_counts=True)[1].tolist()
    total = centroid[:0].sum()
    for members in torch.split(order, sizes):  # groups: samples, or samples times classes
        n = members.numel()
        if n < 2:
            continue
        weight = share[members].sum() / (n * (n - 1) / 2)
        total = total + weight.to(centroid.dtype) * _pair_sum(centroid[members], 2 * delta_d)
    return total


def _pair_sum(points: Tensor, margin: float) -> Tensor:
    """Sum over unordered pairs of relu(margin - distance)^2; memory K * PUSH_CHUNK at most."""
    n = points.shape[0]
    if n <= PUSH_CHUNK:
        return (margin - torch.pdist(points)).clamp_min(0).square().sum()
    total = points[:0].sum()
    for start in range(0, n, PUSH_CHUNK):
        stop = min(start + PUSH_CHUNK, n)
        total = total + _pair_sum(points[start:stop], margin)
        for low in range(stop, n, PUSH_CHUNK):
            block = points[low : low + PUSH_CHUNK]
            total = total + checkpoint(
                _block_sum, points[start:stop], block, margin, use_reentrant=False
            )
    return total


def _block_sum(a: Tensor, b: Tensor, margin: float) -> Tensor:
    exact = "donot_use_mm_for_euclid_dist"  # the fast way loses half the digits in float32
    return (margin - torch.cdist(a, b, compute_mode=exact)).clamp_min(0).square().sum()


def _classes(targets: Targets, semantic_ids: Tensor | None) -> Tensor:
    """(K,) the class in which each object is pushed and averaged; -1 unknown, or no matter."""
    objects = targets.objects
    if semantic_ids is None or objects.count == 0:
        return torch.full_like(objects.sample, -1)
    if "semantic_ids" in vars(targets) and semantic_ids is targets.semantic_ids:
        return targets.object_class
    classes = targets.hierarchy.num_classes
    return majority_classes(semantic_ids, objects.labels, objects.count, classes)


def _pairs(classes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Number the (class, sample) pairs that hold objects.

    Returns:
        (class + 1 of each pair (P,) int64, pair of each object (K,) int64).
    """
    span = targets.instance.shape[0]
    keys = (classes + 1) * span + targets.objects.sample
    pairs, group = torch.unique(keys, return_inverse=True)
    return pairs // span, group


def _shares(group: Tensor, pairs: Tensor, samples: Tensor) -> Tensor:
    """The weight of each object in the mean.

    Args:
        group: (K,) int64, pair of each object.
        pairs: (P,) int64, class + 1 of each pair.
        samples: (C + 1,) int64, samples of all processes that have objects of each class + 1.

    Returns:
        (K,) float64. Summing share * value is the mean over the objects of a sample, then
        over the samples that have objects (of the class), then over the classes present.
    """
    size = torch.bincount(group)
    present = (samples > 0).sum()
    share = process_count() / (size * samples[pairs] * present).double()
    return share[group]


class _Centroids(torch.autograd.Function):
    """Mean embedding of each object: (K, E) from rows (V, E)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, objects: Objects) -> Tensor:
        ctx.objects = objects
        return (objects.sum(rows) / objects.voxels.unsqueeze(1)).to(rows.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        table = torch.cat([grad.new_zeros((1, grad.shape[1])), grad / ctx.objects.voxels[:, None]])
        return table.index_select(0, ctx.objects.labels.flatten()), None


class _Pull(torch.autograd.Function):
    """Weighted hinge to the centroid: sum over objects of share * sum(w h) / sum(w)."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        centroid: Tensor,
        weight: Tensor,
        share: Tensor,
        objects: Objects,
        delta_v: float,
    ) -> Tensor:
        labels = objects.labels.flatten()
        mass = objects.sum(weight.unsqueeze(1)).squeeze(1)
        factor = torch.cat([share.new_zeros(1), share / mass]).to(rows.dtype)
        table = torch.cat([centroid.new_zeros((1, centroid.shape[1])), centroid])
        offset = rows - table.index_select(0, labels)
        distance = torch.linalg.vector_norm(offset, dim=1)
        excess = (distance - delta_v).clamp_min_(0)
        scaled = excess * weight.to(rows.dtype) * factor.index_select(0, labels)
        total = torch.dot(scaled, excess)
        ctx.objects = objects
        slope = torch.where(excess > 0, 2 * scaled / distance, 0.0)
        ctx.save_for_backward(offset.mul_(slope.unsqueeze(1)))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (slopes,) = ctx.saved_tensors
        rows = slopes * grad
        centroid = -ctx.objects.sum(rows).to(rows.dtype)
        return rows, centroid, None, None, None, None
