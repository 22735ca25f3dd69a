"""What points that name classes add to the features, window by window."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lib.clicks.points import Points
from lib.clicks.source import ClickSource
from lib.prompts.encoder import SparseResidual, flat_index, unflat_index
from lib.prompts.points import POSITIVE, PointPrompts
from lib.volumes.boxes import Box, box_shape


class ClassResiduals:
    """The residual of all points of an image.

    For a network of two axes every section has a residual of its own: its points say nothing
    about other sections, where the residual is zero.

    Args:
        source: network and image.
        points: (N, 3) network voxels.
        class_ids: (N,) the classes that they name.
    """

    def __init__(self, source: ClickSource, points: Points, class_ids: NDArray[np.int64]) -> None:
        self._net, self._shape = source.net, source.shape
        self._flat = source.net.spatial_dims == 2
        self._parts: dict[int, SparseResidual] = {}
        if not self._flat:
            prompts = _prompts(source, points, class_ids)
            self._parts[0] = source.net.sparse_residual(prompts, source.shape)
            return
        for z in np.unique(points[:, 2]):
            here = points[:, 2] == z
            prompts = _prompts(source, points[here], class_ids[here])
            self._parts[int(z)] = source.net.sparse_residual(prompts, source.shape[:2])

    def inside(self, box: Box) -> SparseResidual:
        """The residual on one window: the same background, the corrections inside."""
        if not self._flat:
            return _cut(self._parts[0], box, self._shape)
        z = box[2][0]
        if z in self._parts:
            return _cut(self._parts[z], box, self._shape[:2])
        some = next(iter(self._parts.values()))
        return SparseResidual(
            box_shape(box), torch.zeros_like(some.background), some.index[:0], some.values[:0]
        )


def _cut(residual: SparseResidual, box: Box, shape: tuple[int, ...]) -> SparseResidual:
    place = unflat_index(residual.index, shape)
    bounds = torch.tensor(box[: len(shape)], device=place.device)
    inside = ((place >= bounds[:, 0]) & (place < bounds[:, 1])).all(1)
    index = flat_index(place[inside] - bounds[:, 0], box_shape(box)[: len(shape)])
    return SparseResidual(box_shape(box), residual.background, index, residual.values[inside])


def _prompts(source: ClickSource, points: Points, class_ids: NDArray[np.int64]) -> PointPrompts:
    device = next(source.net.parameters()).device
    count, dims = len(points), source.net.spatial_dims
    return PointPrompts(
        torch.from_numpy(np.ascontiguousarray(points[:, :dims]))[None],
        torch.full((1, count), POSITIVE),
        torch.from_numpy(class_ids)[None],
        torch.zeros((1, count), dtype=torch.bool),
        torch.tensor([source.voxel_size_nm[:dims]]),
    ).to(device)
