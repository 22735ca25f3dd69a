"""The objects of one patch, as inference would group them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.data.batches import Batch
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.classes import FINE_VALUE
from lib.prediction.evidence import Evidence, affinities_of, said_by
from lib.prediction.filters import filter_responses
from lib.prediction.grouping import group_volume
from lib.prediction.joining import joining_of
from lib.prediction.ways import boundary_of
from lib.targets.pairs import pair_offsets


def group_patch(
    net: NeuropilNet,
    features: Tensor,
    outputs: dict[str, Tensor],
    batch: Batch,
    hierarchy: LabelHierarchy,
    inference: InferenceSettings,
) -> Tensor:
    """Affinities of the patch, its fragments, and the cells they join to.

    Args:
        net: that gave features and outputs.
        features: (1, F, *S).
        outputs: "instance" (1, E, *S), "semantic" (1, C, *S) and maybe "affinity".
        batch: of the one patch, for its image and voxel size.
        hierarchy: says which classes can be objects.
        inference: how to group.

    Returns:
        (*S) int64 ids on the CPU, 0 no object.
    """
    if outputs["instance"].ndim == 4:  # a network of two axes: one section
        deep = {name: values.unsqueeze(-1) for name, values in outputs.items()}
        sizes = torch.cat([batch["voxel_size_nm"], batch["voxel_size_nm"][:, :1]], 1)
        batch = {**batch, "voxel_size_nm": sizes}
        batch = {**batch, "image": batch["image"].unsqueeze(-1)}
        return group_patch(net, features.unsqueeze(-1), deep, batch, hierarchy, inference)[..., 0]
    embedding = outputs["instance"].float()
    shape = tuple(embedding.shape[2:])
    x, y, z = batch["voxel_size_nm"][0].tolist()
    offsets = pair_offsets((x, y, z), inference.long_range, shape)
    probabilities = outputs["semantic"].float().softmax(1)
    boundary = boundary_of(net)
    found = {name: values.float() for name, values in outputs.items()}
    if boundary is not None:
        image = batch["image"][0, 0].float().cpu().numpy()
        rows = np.moveaxis(filter_responses(image, (x, y, z)), 0, -1)[None]
        beside = torch.from_numpy(np.ascontiguousarray(rows)).to(features.device)
        found = said_by(boundary, found, features.float(), beside)
    pairs = affinities_of(found, probabilities, offsets, hierarchy, inference, (x, y, z))
    can_be = torch.tensor([c.object for c in hierarchy.classes], device=pairs.device)
    evidence = Evidence(
        pairs[0].half().cpu().numpy(),
        offsets,
        (probabilities[0].argmax(0) + FINE_VALUE).to(torch.uint8).cpu().numpy(),
        (probabilities[0, can_be].sum(0) >= inference.object_threshold).cpu().numpy(),
        hierarchy.num_classes + FINE_VALUE,
    )
    fragments = group_volume(evidence, (x, y, z), inference)
    cells = fragments.objects(joining_of(net), hierarchy, inference.min_object_voxels)
    return torch.from_numpy(cells.ids.astype(np.int64))
