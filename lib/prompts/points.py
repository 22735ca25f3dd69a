"""Point prompts: clicks as tensors, padded so that samples of one batch can differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

POSITIVE, NEGATIVE, PADDING = 1, 0, -1


@dataclass(frozen=True)
class PointPrompts:
    """Clicks for a batch, in voxels of the network's input.

    Args:
        coords: (B, N, S) int64 voxel indices.
        labels: (B, N) int64: 1 positive, 0 negative, -1 padding (the point does not exist).
        class_ids: (B, N) int64: fine class each point speaks of, -1 none.
        instance: (B, N) bool: whether a positive point sets the instance channel.
        voxel_size_nm: (B, S) float32, the voxel's extent along each axis; None: 1 everywhere.
    """

    coords: Tensor
    labels: Tensor
    class_ids: Tensor
    instance: Tensor
    voxel_size_nm: Tensor | None = None

    def __post_init__(self) -> None:
        batch, points, _ = self.coords.shape
        for name in ("labels", "class_ids", "instance"):
            assert getattr(self, name).shape == (batch, points), name

    @classmethod
    def none(
        cls, batch: int, spatial_dims: int = 3, device: torch.device | None = None
    ) -> PointPrompts:
        """No points for any sample."""
        return cls(
            torch.zeros((batch, 0, spatial_dims), dtype=torch.int64, device=device),
            torch.zeros((batch, 0), dtype=torch.int64, device=device),
            torch.zeros((batch, 0), dtype=torch.int64, device=device),
            torch.zeros((batch, 0), dtype=torch.bool, device=device),
        )

    @classmethod
    def from_clicks(
        cls,
        positive: Sequence[Sequence[int]],
        negative: Sequence[Sequence[int]] = (),
        class_id: int = -1,
        instance: bool = True,
        voxel_size_nm: Sequence[float] | None = None,
        spatial_dims: int = 3,
    ) -> PointPrompts:
        """One sample's clicks on one object."""
        points = [*positive, *negative]
        coords = torch.tensor(points, dtype=torch.int64).reshape(1, len(points), spatial_dims)
        labels = torch.tensor([POSITIVE] * len(positive) + [NEGATIVE] * len(negative))
        size = None if voxel_size_nm is None else torch.tensor([list(voxel_size_nm)])
        return cls(
            coords,
            labels.to(torch.int64).reshape(1, -1),
            torch.full((1, len(points)), class_id, dtype=torch.int64),
            torch.full((1, len(points)), instance, dtype=torch.bool),
            size,
        )

    @property
    def any(self) -> bool:
        """Whether any point exists."""
        return bool((self.labels != PADDING).any())

    @property
    def prompted(self) -> Tensor:
        """(B,) bool: which samples have a point."""
        return (self.labels != PADDING).any(1)

    def to(self, device: torch.device | str) -> PointPrompts:
        """The same points on another device."""
        size = self.voxel_size_nm
        return PointPrompts(
            self.coords.to(device),
            self.labels.to(device),
            self.class_ids.to(device),
            self.instance.to(device),
            None if size is None else size.to(device),
        )

    def only(self, samples: Tensor) -> PointPrompts:
        """The same, with the points of samples outside the (B,) bool mask removed."""
        labels = torch.where(samples.view(-1, 1), self.labels, PADDING)
        return PointPrompts(self.coords, labels, self.class_ids, self.instance, self.voxel_size_nm)
