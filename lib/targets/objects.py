"""The objects of a batch as index lists, shared by every target and loss that needs them.

Sums over objects are the inner loop of centroids, pull and their gradients. They run here as
one `embedding_bag` over voxels sorted by object, cut into short pieces, and one in float64
over the pieces: no atomics (the same result on every run, on GPU too), no loop over objects,
and float32 stays accurate for objects of a million voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 256
"""Voxels that are summed in the values' own precision; longer sums go on in float64."""


@dataclass(frozen=True)
class Objects:
    """Every object of a batch, numbered 1..K over all samples.

    Args:
        labels: (B, *S) int64, 0 where there is no object or where it is unknown.
        sample: (K,) int64, the sample each object is in.
        voxels: (K,) int64, its number of voxels in the patch.
        order: (N,) int64, flat voxel indices (into B * prod(S)) sorted by object.
        starts: (P,) int64, where each piece of `order` begins.
        first_piece: (K,) int64, the first piece of each object.
    """

    labels: Tensor
    sample: Tensor
    voxels: Tensor
    order: Tensor
    starts: Tensor
    first_piece: Tensor

    @property
    def count(self) -> int:
        """How many objects the batch has."""
        return self.sample.numel()

    def sum(self, rows: Tensor) -> Tensor:
        """Sum the rows of each object's voxels.

        Args:
            rows: (B * prod(S), E) float32 or float64, one row a voxel.

        Returns:
            (K, E) float64. No gradient flows through it.
        """
        if self.count == 0:
            return rows.new_zeros((0, rows.shape[1]), dtype=torch.float64)
        pieces = F.embedding_bag(self.order, rows.detach(), self.starts, mode="sum").double()
        every = torch.arange(pieces.shape[0], device=rows.device)
        return F.embedding_bag(every, pieces, self.first_piece, mode="sum")


def index_objects(instance: Tensor) -> Objects:
    """Number the objects of a batch and list their voxels.

    Args:
        instance: (B, *S) int64 ids: > 0 an object, 0 none, negative unknown. Ids of
            different samples are different objects. Any int64 ids are accepted.

    Returns:
        The objects in order of sample, then id.
    """
    labels, sample = _number(instance)
    count = sample.numel()
    flat = labels.flatten()
    order = torch.sort(flat, stable=True).indices
    voxels = torch.bincount(flat, minlength=count + 1)
    order, voxels = order[int(voxels[0]) :], voxels[1:]
    pieces = (voxels + PIECE - 1) // PIECE
    owner = torch.repeat_interleave(torch.arange(count, device=flat.device), pieces)
    first_voxel, first_piece = voxels.cumsum(0) - voxels, pieces.cumsum(0) - pieces
    rank = torch.arange(owner.numel(), device=flat.device) - first_piece[owner]
    starts = first_voxel[owner] + PIECE * rank
    return Objects(labels, sample, voxels, order, starts, first_piece)


def _number(instance: Tensor) -> tuple[Tensor, Tensor]:
    """(labels as in Objects, sample of each object)."""
    batch = instance.shape[0]
    ids = instance.clamp_min(0)
    if ids.numel() == 0 or int(ids.max()) >= 4 * ids.numel():  # ids too large for a table
        _, ids = torch.unique(ids, return_inverse=True)
        # Rank 0 is the id 0 only where some voxel has no object.
        ids = torch.where(instance > 0, ids + 1, 0)
    stride = int(ids.max()) + 1 if ids.numel() else 1
    shape = (batch, *[1] * (instance.ndim - 1))
    first = torch.arange(batch, device=ids.device).view(shape) * stride
    keys = torch.where(ids > 0, ids + first, 0)
    present = torch.zeros(batch * stride, dtype=torch.bool, device=ids.device)
    present[keys.flatten()] = True
    present[0] = False  # no object; the key of id 0 of the first sample
    table = torch.where(present, present.cumsum(0), 0)
    return table[keys], present.nonzero().flatten() // stride
