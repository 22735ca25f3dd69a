"""The backbone's features of windows: computed once, kept where there is room for them.

A second run over the same image asks for the same windows, so another level of `segmentation`,
or `instances` after it, costs the pointwise heads only. Features are kept in the type in which
they are computed: what is found in the cache gives the very outputs that computing gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.networks.model import NeuropilNet
from lib.prediction.feature_cache import FeatureCache, WindowKey
from lib.prediction.filters import responses_at
from lib.prediction.window_grid import WindowGrid
from lib.volumes.boxes import Box, box_slices
from lib.volumes.contrast import LazyImage, intensity_window, normalize

Precision = Literal["auto", "float32", "bfloat16"]
Axes = tuple[int, ...]

KEPT_SHARE = 0.5
"""Of the cache's budget that the features of one volume may take; larger ones are not kept."""


@dataclass(frozen=True)
class Shelf:
    """Where the features of one image are kept between runs.

    Args:
        cache: shared by all runs.
        weights: version of the backbone's weights.
        image: identity of the image; must change when its content does.
    """

    cache: FeatureCache
    weights: str
    image: str


@dataclass(frozen=True)
class DenseFeatures:
    """The features, or the filter responses, of one window of a volume.

    Args:
        values: (F, x, y, z), channels last in memory, as computed; responses (x, y, z, COUNT).
    """

    values: Tensor

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.values.element_size() * self.values.nelement()


class FeatureSource:
    """Features of any window of one volume.

    Args:
        net: in evaluation mode, on the device that computes.
        volume: (X, Y, Z) image in the network's frame, read window by window.
        precision: of the computation.
        shelf: where features are looked for and kept; None: nowhere.
        contrast: intensities that become 0 and 1; None: the volume's own window.
    """

    def __init__(
        self,
        net: NeuropilNet,
        volume: LazyImage,
        precision: Precision = "auto",
        shelf: Shelf | None = None,
        contrast: tuple[float, float] | None = None,
    ) -> None:
        self.net, self.volume, self.shelf = net, volume, shelf
        self.device = next(net.parameters()).device
        self.half = use_bfloat16(precision, self.device)
        self._contrast = contrast

    def fitting(self, grid: WindowGrid, views: int = 1) -> FeatureSource:
        """The same, keeping nothing where the windows of a whole run would not fit the cache.

        A run over more than fits would push out what others need, and find nothing of its own
        when it comes again.
        """
        if self.shelf is None:
            return self
        width = 2 if self.half else 4
        needed = width * self.net.feature_channels * math.prod(grid.window) * grid.count * views
        if needed <= KEPT_SHARE * self.shelf.cache.budget:
            return self
        precision: Precision = "bfloat16" if self.half else "float32"
        return FeatureSource(self.net, self.volume, precision, contrast=self._contrast)

    def __call__(self, boxes: Sequence[Box], mirrored: Axes = ()) -> Tensor:
        """Features of windows of one size.

        Args:
            boxes: the windows.
            mirrored: axes of (B, C, X, Y, Z) along which the network sees them mirrored; the
                features are of the mirrored windows.

        Returns:
            (B, F, x, y, z) as the backbone gives them, on its device.
        """
        shelf = self.shelf
        if shelf is None:
            return self._compute(boxes, mirrored)
        found = []
        for box in boxes:
            kind = f"dense {self.device} {'half' if self.half else 'whole'} {mirrored}"
            key = WindowKey(shelf.weights, shelf.image, box, kind)
            found.append(shelf.cache.get(key, partial(self._kept, box, mirrored)).values)
        return found[0][None] if len(found) == 1 else torch.stack(found)

    def responses(self, boxes: Sequence[Box], voxel_size_nm: Sequence[float]) -> Tensor:
        """Filter responses of windows of one size, on the network's device.

        Args:
            boxes: the windows.
            voxel_size_nm: (x, y, z) of the volume.

        Returns:
            (B, x, y, z, COUNT) float16.
        """
        shelf, found = self.shelf, []
        for box in boxes:
            compute = partial(self._filtered, box, tuple(voxel_size_nm))
            if shelf is None:
                found.append(compute().values)
            else:
                kind = f"filters {self.device} {tuple(voxel_size_nm)}"
                key = WindowKey(shelf.weights, shelf.image, box, kind)
                found.append(shelf.cache.get(key, compute).values)
        return torch.stack(found)

    def _filtered(self, box: Box, voxel_size_nm: tuple[float, ...]) -> DenseFeatures:
        x, y, z = (int(n) for n in self.volume.shape)
        made = responses_at(self.voxels, (x, y, z), box, voxel_size_nm)
        rows = np.ascontiguousarray(np.moveaxis(made, 0, -1), np.float16)
        return DenseFeatures(torch.from_numpy(rows).to(self.device))

    def voxels(self, box: Box) -> NDArray[np.float32]:
        """The normalised image of a box, with one contrast window for all of the volume."""
        return normalize(np.asarray(self.volume[box_slices(box)]), self._window())

    def _window(self) -> tuple[float, float]:
        if self._contrast is None:
            shelf = self.shelf
            self._contrast = (
                intensity_window(self.volume)
                if shelf is None
                else shelf.cache.contrast(shelf.image, lambda: intensity_window(self.volume))
            )
        return self._contrast

    def _kept(self, box: Box, mirrored: Axes) -> DenseFeatures:
        return DenseFeatures(self._compute([box], mirrored)[0])

    def _compute(self, boxes: Sequence[Box], mirrored: Axes) -> Tensor:
        images = np.stack([self.voxels(box) for box in boxes])
        windows = torch.from_numpy(images).unsqueeze(1).to(self.device)
        if mirrored:
            windows = windows.flip(mirrored)
        kind = self.device.type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=self.half):
            if self.net.spatial_dims == 2:
                return self.net.features(windows.squeeze(-1)).unsqueeze(-1)
            windows = windows.contiguous(memory_format=torch.channels_last_3d)
            return self.net.features(windows)


def window_features(
    source: FeatureSource, grid: WindowGrid, boxes: Sequence[Box] | None = None
) -> Iterator[tuple[Box, Tensor]]:
    """Features of a grid's windows, one by one.

    Args:
        source: of the volume.
        grid: its windows.
        boxes: those that are wanted; None: all, the last axis fastest.

    Yields:
        (window, (F, x, y, z) features as computed).
    """
    for box in grid.boxes() if boxes is None else boxes:
        yield box, source([box])[0]


def use_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16.

    Raises:
        ValueError: an unknown precision.
    """
    if precision == "auto":
        if device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected auto, float32 or bfloat16, found {precision!r}")
    return precision == "bfloat16"
