"""The objects of one patch, as inference would group them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.data.batches import Batch
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.affinities import pair_affinities
from lib.prediction.grouping import group_block
from lib.targets.pairs import pair_offsets


def group_patch(
    outputs: dict[str, Tensor],
    batch: Batch,
    hierarchy: LabelHierarchy,
    inference: InferenceSettings,
) -> Tensor:
    """Affinities grouped over the whole patch.

    Args:
        outputs: "instance" (1, E, *S), "semantic" (1, C, *S) and maybe "affinity".
        batch: of the one patch, for its voxel size.
        hierarchy: says which classes can be objects.
        inference: how to group.

    Returns:
        (*S) int64 ids on the CPU, 0 no object.
    """
    if outputs["instance"].ndim == 4:  # a network of two axes: one section
        deep = {name: values.unsqueeze(-1) for name, values in outputs.items()}
        sizes = torch.cat([batch["voxel_size_nm"], batch["voxel_size_nm"][:, :1]], 1)
        batch = {**batch, "voxel_size_nm": sizes}
        return group_patch(deep, batch, hierarchy, inference)[..., 0]
    embedding = outputs["instance"].float()
    shape = tuple(embedding.shape[2:])
    voxel_size_nm = batch["voxel_size_nm"][0].tolist()
    offsets = pair_offsets(voxel_size_nm, inference.long_range, shape)
    probabilities = outputs["semantic"].float().softmax(1)
    correction = outputs["affinity"].float() if "affinity" in outputs else None
    affinities = pair_affinities(
        embedding, probabilities, offsets, hierarchy, inference, correction, voxel_size_nm
    )[0]
    can_be = torch.tensor([c.object for c in hierarchy.classes], device=embedding.device)
    chance = probabilities[0, can_be].sum(0)
    ids = group_block(
        affinities.half().cpu().numpy(),
        offsets,
        (chance >= inference.object_threshold).cpu().numpy(),
        inference,
    )
    return torch.from_numpy(ids.astype(np.int64))
