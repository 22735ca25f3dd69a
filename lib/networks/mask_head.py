"""The mask head: which voxels belong to the object that was clicked.

A residual added after the backbone reaches only the voxels beside a click; what makes a click
speak for a whole object is comparison. For each voxel this head compares its embedding and
its place with those of the clicked voxels, and decides from these distances and from the
heads' shared features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lib.prompts.encoder import flat_index
from lib.prompts.points import NEGATIVE, POSITIVE, PointPrompts

NO_POINT = 8.0
"""Embedding distance reported where there is no point of a sign; beyond the usual distances."""
LENGTH_NM = 200.0
"""Unit of the spatial distances."""
EVIDENCE = 6


class MaskHead(nn.Module):
    """Clicks, embedding and shared features -> logit of belonging to the clicked object.

    Starts as the plain rule "nearer than the margin to a positive point's embedding, and
    nearer to it than to any negative point's", and learns what to add.

    Args:
        hidden_channels: of the heads' shared block.
        margin: embedding distance at which the starting rule is undecided.
        width: of the hidden layer.
    """

    def __init__(self, hidden_channels: int, margin: float, width: int = 16) -> None:
        super().__init__()
        self.margin = margin
        self.spread = nn.Parameter(torch.tensor([-1.0, -1.0]))  # log weight of space, by sign
        self.context = nn.Linear(hidden_channels, width)
        self.evidence = nn.Linear(EVIDENCE, width)
        self.out = nn.Linear(width, 1)
        self.rule = nn.Linear(EVIDENCE, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.zeros_(self.rule.weight)
        with torch.no_grad():
            # logit = 3 (margin - near positive) + 2 clamp(near negative - near positive)
            self.rule.weight[0, 0] = -3.0
            self.rule.weight[0, 5] = 2.0
            self.rule.bias.fill_(3.0 * margin)

    def forward(self, hidden: Tensor, embedding: Tensor, prompts: PointPrompts) -> Tensor:
        """Logits for a whole batch.

        Args:
            hidden: (B, H, *S) shared features.
            embedding: (B, E, *S).
            prompts: points inside S.

        Returns:
            (B, 1, *S) float32; meaningless for samples without a positive point.
        """
        shape = embedding.shape[2:]
        dtype = self.rule.weight.dtype
        place = _grid(shape, embedding.device)
        with torch.autocast(embedding.device.type, enabled=False):
            logits = [
                self.at(
                    _rows(hidden[b], dtype),
                    _rows(embedding[b], dtype),
                    place,
                    *self.points(embedding, prompts, b),
                )
                for b in range(len(embedding))
            ]
        return torch.stack(logits).view(len(embedding), 1, *shape)

    def points(
        self, embedding: Tensor, prompts: PointPrompts, sample: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One sample's points: embeddings (N, E), places (N, S), labels (N,), voxel size (S,)."""
        exists = prompts.labels[sample] >= 0
        place = prompts.coords[sample][exists]
        at = _rows(embedding[sample], self.rule.weight.dtype)[
            flat_index(place, tuple(embedding.shape[2:]))
        ]
        if prompts.voxel_size_nm is None:
            size = torch.ones(place.shape[1], device=place.device)
        else:
            size = prompts.voxel_size_nm[sample].to(place.device)
        return at, place, prompts.labels[sample][exists], size

    def at(
        self,
        hidden: Tensor,
        embedding: Tensor,
        place: Tensor,
        point_embedding: Tensor,
        point_place: Tensor,
        point_label: Tensor,
        voxel_size_nm: Tensor,
    ) -> Tensor:
        """Logits (V,) of V voxels, given by shared features (V, H), embedding (V, E), place."""
        apart = torch.cdist(embedding, point_embedding)
        scale = voxel_size_nm.to(embedding.dtype) / LENGTH_NM
        space = torch.cdist(place.to(scale.dtype) * scale, point_place * scale)
        return self.decide(self.context(hidden), apart.t(), space.t(), point_label)

    def decide(self, context: Tensor, apart: Tensor, space: Tensor, point_label: Tensor) -> Tensor:
        """Logits (V,) from what has been computed of V voxels and N points.

        Args:
            context: (V, width) of the shared features.
            apart: (N, V) distances in embedding.
            space: (N, V) distances in space, in units of LENGTH_NM.
            point_label: (N,).
        """
        near = [
            self._nearest(apart[point_label == sign], space[point_label == sign], k)
            for k, sign in enumerate((POSITIVE, NEGATIVE))
        ]
        (positive, positive_joint), (negative, negative_joint) = near
        evidence = torch.stack(
            (
                positive.clamp(max=NO_POINT),
                negative.clamp(max=NO_POINT),
                positive_joint.clamp(max=NO_POINT),
                negative_joint.clamp(max=NO_POINT),
                (negative_joint - positive_joint).clamp(-3.0, 3.0),
                (negative - positive).clamp(-self.margin, self.margin),
            )
        ).t()
        inner = torch.relu(context + self.evidence(evidence))
        logits: Tensor = self.out(inner) + self.rule(evidence)
        return logits.squeeze(1)

    def _nearest(self, apart: Tensor, space: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        """Smallest embedding distance, and smallest joint of embedding and space, (V,) each."""
        if not len(apart):
            far = apart.new_full((apart.shape[1],), NO_POINT)
            return far, far
        joint = apart + torch.exp(self.spread[sign]) * torch.log1p(space)
        return apart.amin(0), joint.amin(0)


def _rows(volume: Tensor, dtype: torch.dtype) -> Tensor:
    """(C, *S) -> (V, C); free where channels are last in memory and the type is right."""
    return volume.movedim(0, -1).reshape(-1, volume.shape[0]).to(dtype)


def _grid(shape: torch.Size, device: torch.device) -> Tensor:
    """(V, S) float32 voxel indices in C order."""
    assert math.prod(shape) > 0
    axes = [torch.arange(s, device=device, dtype=torch.float32) for s in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
