"""Run the heads on windows: precision, two-dimensional networks, mirrored views."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.networks.model import NeuropilNet
from lib.prediction.features import FeatureSource
from lib.prediction.filters import sees_responses
from lib.prediction.window_grid import WindowGrid
from lib.volumes.boxes import Box

Views = tuple[tuple[int, ...], ...]

MIRRORED: Views = ((), (2,), (3,), (2, 3))
"""Axes of (B, C, X, Y, Z) that each view mirrors; sections keep their order."""


@dataclass(frozen=True)
class View:
    """What the network says of windows that it saw mirrored, or as they are.

    Args:
        outputs: name -> (B, C, x, y, z) float32, turned back onto the windows' voxels.
        features: (B, F, x, y, z) of the mirrored windows, in the type they are computed in.
        beside: (B, x, y, z, COUNT) responses of the mirrored windows, if the network's study heads
            see any.
        boxes: the windows.
        mirrored: the axes of (B, C, X, Y, Z) that were mirrored; () for none.
    """

    outputs: dict[str, Tensor]
    features: Tensor
    beside: Tensor | None = None
    boxes: Sequence[Box] = ()
    mirrored: tuple[int, ...] = ()


@dataclass(frozen=True)
class WindowForward:
    """The automatic mode on a batch of windows.

    Args:
        features: of the volume's windows.
        heads: names of the heads wanted.
        mirror: average over mirrored views (test-time flips), four times the cost.
        voxel_size_nm: (x, y, z), for the filter responses that a study's heads may see.
    """

    features: FeatureSource
    heads: Collection[str]
    mirror: bool = False
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0)

    @staticmethod
    def over(
        features: FeatureSource,
        heads: Collection[str],
        grid: WindowGrid,
        mirror: bool,
        voxel_size_nm: Sequence[float],
    ) -> WindowForward:
        """For a run over all windows of a grid, whose features are kept if they all fit."""
        views = len(MIRRORED) if mirror else 1
        return WindowForward(features.fitting(grid, views), heads, mirror, voxel_size_nm)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.features.device

    @property
    def mirrored(self) -> Views:
        """The axes that each view mirrors."""
        return MIRRORED if self.mirror else ((),)

    def seen(self, boxes: Sequence[Box]) -> Iterator[View]:
        """What the heads say of some windows, view by view.

        Args:
            boxes: windows of one size. With `mirror` geometry may not be asked for, whose
                directions do not mirror; of affinities see `mirrored_correction`.
        """
        assert not (self.mirror and "geometry" in self.heads), "directions do not mirror"
        for axes in self.mirrored:
            features = self.features(boxes, axes)
            beside = self._beside(boxes, axes)
            out = self._outputs(features, beside)
            turned = {n: o.flip(axes) if axes else o for n, o in out.items()}
            yield View(turned, features, beside, boxes, axes)

    def mean(
        self, boxes: Sequence[Box], decode: Callable[[View], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The mean over the views of what `decode` makes of each."""
        total: dict[str, Tensor] = {}
        for view in self.seen(boxes):
            for name, found in decode(view).items():
                total[name] = total[name] + found if name in total else found
        return {name: found / len(self.mirrored) for name, found in total.items()}

    def _beside(self, boxes: Sequence[Box], mirrored: tuple[int, ...]) -> Tensor | None:
        if not sees_responses(self.features.net.task_heads.study):
            return None
        found = self.features.responses(boxes, self.voxel_size_nm)
        return found.flip([axis - 1 for axis in mirrored]) if mirrored else found

    def _outputs(self, features: Tensor, beside: Tensor | None) -> dict[str, Tensor]:
        net, kind = self.features.net, self.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.features.half):
            if net.spatial_dims == 2:
                thin = None if beside is None else beside.squeeze(-2)
                flat = net.heads(features.squeeze(-1), only=self.heads, beside=thin)
                return {name: o.float().unsqueeze(-1) for name, o in flat.items()}
            outputs = net.heads(features, only=self.heads, beside=beside)
        return {name: o.float() for name, o in outputs.items()}


def window_size(net: NeuropilNet, inference: InferenceSettings) -> tuple[int, int, int]:
    """The window in voxels: a two-dimensional network sees one section at a time."""
    x, y, z = inference.window
    return (x, y, 1) if net.spatial_dims == 2 else (x, y, z)
