"""What prompts buy: IoU of the clicked object with and without them.

Without: the object is cut out of the automatic embedding, by its distance to the embedding at
the clicked voxels. With: the answer of the prompted pass. Both know the same clicks, so the
difference is what the network makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.configs.settings import Settings
from lib.data.batches import Batch
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.devices import Autocast
from lib.networks.model import NeuropilNet
from lib.prompts.points import NEGATIVE, POSITIVE, PointPrompts
from lib.prompts.sampling import SampledPrompts, sample_prompts

OBJECTS_PER_PLACE = 3


@dataclass(frozen=True)
class PromptScores:
    """Mean IoU of clicked objects.

    Args:
        with_prompts: of the prompted pass; NaN where nothing could be clicked.
        without_prompts: of the automatic embedding.
        objects: how many were clicked.
    """

    with_prompts: float
    without_prompts: float
    objects: int

    @property
    def gain(self) -> float:
        """How much better the prompted pass is."""
        return self.with_prompts - self.without_prompts

    @staticmethod
    def of(pairs: Sequence[tuple[float, float]]) -> PromptScores:
        """From (with, without) of each object."""
        if not pairs:
            return PromptScores(math.nan, math.nan, 0)
        count = len(pairs)
        return PromptScores(
            sum(p[0] for p in pairs) / count, sum(p[1] for p in pairs) / count, count
        )


def score_prompts(
    net: NeuropilNet,
    features: Tensor,
    automatic: dict[str, Tensor],
    batch: Batch,
    settings: Settings,
    hierarchy: LabelHierarchy,
    autocast: Autocast,
    seed: int,
) -> list[tuple[float, float]]:
    """Click a few objects of one patch.

    Args:
        features: (1, F, *S) of the patch.
        automatic: its outputs without prompts.
        batch: of one patch.
        seed: of the clicks.

    Returns:
        (IoU with, IoU without) for each clicked object.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(OBJECTS_PER_PLACE):
        sampled = sample_prompts(
            batch["class_sets"],
            batch["instance"],
            hierarchy,
            settings.training,
            generator,
            batch["voxel_size_nm"],
        )
        if not sampled.prompts.any:
            break
        with autocast():
            outputs = net.prompted(features, sampled.prompts, ("instance",))
        if "mask" in outputs:
            found = outputs["mask"][0, 0] > 0
        else:
            found = embedding_mask(outputs["instance"], sampled.prompts, settings.loss.delta_d)
        plain = embedding_mask(automatic["instance"], sampled.prompts, settings.loss.delta_d)
        pairs.append((_iou(found, sampled), _iou(plain, sampled)))
    return pairs


def embedding_mask(embedding: Tensor, prompts: PointPrompts, margin: float) -> Tensor:
    """Voxels near a positive point in embedding space, and nearer than to any negative one.

    Args:
        embedding: (1, E, *S).
        prompts: of one sample.
        margin: largest distance.

    Returns:
        (*S) bool.
    """
    rows = embedding[0].movedim(0, -1).float()
    distances = {}
    for sign in (POSITIVE, NEGATIVE):
        places = prompts.coords[0][prompts.labels[0] == sign]
        if not len(places):
            distances[sign] = rows.new_full(rows.shape[:-1], math.inf)
            continue
        points = rows[tuple(places.unbind(1))]
        apart = torch.cdist(rows.reshape(-1, rows.shape[-1]), points)
        distances[sign] = apart.amin(1).view(rows.shape[:-1])
    return (distances[POSITIVE] < margin) & (distances[POSITIVE] < distances[NEGATIVE])


def _iou(found: Tensor, sampled: SampledPrompts) -> float:
    known, target = sampled.known[0], sampled.target[0]
    both = (found & target & known).sum()
    either = ((found | target) & known).sum()
    return float(both / either.clamp_min(1))
