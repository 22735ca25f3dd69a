"""Patches to a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import fastremap
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.data.items import Patch
from lib.labels.hierarchy import IGNORE_INDEX


class Batch(TypedDict):
    """What the engine trains on; all patches of one shape, (X, Y) for networks of two axes.

    Keys:
        image: (B, 1, X, Y, Z) float32 in [0, 1].
        class_sets: (B, X, Y, Z) int32 bit masks.
        instance: (B, X, Y, Z) int64, compact ids from 1, 0 none, -1 unknown.
        voxel_size_nm: (B, 3) float32, or (B, 2).
        item: ids of the items.
        section_ids: (B, X, Y, Z) int64 as `instance`, also where they hold within sections only.
        within_sections: (B,) bool, where they do; `instance` then is unknown.
    """

    image: Tensor
    class_sets: Tensor
    instance: Tensor
    voxel_size_nm: Tensor
    item: list[str]
    section_ids: Tensor
    within_sections: Tensor


def collate(patches: Sequence[Patch], spatial_dims: int = 3) -> Batch:
    """Stack patches of one shape; instance ids become compact in each.

    Args:
        spatial_dims: of the network; for 2 the patches are single sections, whose third axis
            goes.
    """
    flat = 0 if spatial_dims == 2 else slice(None)
    ids = _stacked([compact_ids(p.instance)[..., flat] for p in patches])
    within = torch.tensor([p.within_sections for p in patches])
    return Batch(
        image=_stacked([p.image[None, ..., flat] for p in patches]),
        class_sets=_stacked([p.class_sets[..., flat] for p in patches]),
        instance=torch.where(within.view(-1, *[1] * (ids.ndim - 1)), IGNORE_INDEX, ids),
        voxel_size_nm=torch.tensor(
            [p.voxel_size_nm[:spatial_dims] for p in patches], dtype=torch.float32
        ),
        item=[p.item for p in patches],
        section_ids=ids,
        within_sections=within,
    )


def compact_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Objects renumbered from 1; 0 and unknown stay."""
    numbered, _ = fastremap.renumber(np.maximum(ids, 0), preserve_zero=True)
    return np.where(ids < 0, IGNORE_INDEX, numbered.astype(np.int64))


def _stacked(arrays: Sequence[NDArray[Any]]) -> Tensor:
    # Turned patches are views in another order, which stacking would keep.
    return torch.from_numpy(np.ascontiguousarray(np.stack(arrays)))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch's tensors on a device."""
    return Batch(
        image=batch["image"].to(device, non_blocking=True),
        class_sets=batch["class_sets"].to(device, non_blocking=True),
        instance=batch["instance"].to(device, non_blocking=True),
        voxel_size_nm=batch["voxel_size_nm"].to(device, non_blocking=True),
        item=batch["item"],
        section_ids=batch["section_ids"].to(device, non_blocking=True),
        within_sections=batch["within_sections"].to(device, non_blocking=True),
    )
