"""Run the network on windows: precision, two-dimensional networks, mirrored views."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.networks.model import NeuropilNet
from lib.volumes.boxes import Box, box_slices
from lib.volumes.contrast import LazyImage, intensity_window, normalize

Precision = Literal["auto", "float32", "bfloat16"]
Views = tuple[tuple[int, ...], ...]

MIRRORED: Views = ((), (2,), (3,), (2, 3))
"""Axes of (B, C, X, Y, Z) that each view mirrors; sections keep their order."""


@dataclass(frozen=True)
class WindowForward:
    """The automatic mode on a batch of windows.

    Args:
        net: in evaluation mode.
        heads: names of the heads wanted.
        precision: "auto" is bfloat16 where the device computes it natively.
        mirror: average over mirrored views (test-time flips), four times the cost.
    """

    net: NeuropilNet
    heads: Collection[str]
    precision: Precision = "auto"
    mirror: bool = False

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    def views(self, windows: Tensor) -> Iterator[dict[str, Tensor]]:
        """The heads' outputs for each view, turned back onto the windows' voxels.

        Args:
            windows: (B, 1, X, Y, Z).

        Yields:
            name -> (B, C, X, Y, Z) float32. Only outputs without a direction may be asked
            for with `mirror` (not geometry).
        """
        assert not (self.mirror and "geometry" in self.heads), "directions do not mirror"
        for axes in MIRRORED if self.mirror else ((),):
            out = self._outputs(windows.flip(axes) if axes else windows)
            yield {name: o.flip(axes) if axes else o for name, o in out.items()}

    def _outputs(self, windows: Tensor) -> dict[str, Tensor]:
        kind = windows.device.type
        half = use_bfloat16(self.precision, windows.device)
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            if self.net.spatial_dims == 2:
                flat = self.net.heads(self.net.features(windows.squeeze(-1)), only=self.heads)
                return {name: o.float().unsqueeze(-1) for name, o in flat.items()}
            windows = windows.contiguous(memory_format=torch.channels_last_3d)
            outputs = self.net.heads(self.net.features(windows), only=self.heads)
        return {name: o.float() for name, o in outputs.items()}


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


def window_size(net: NeuropilNet, inference: InferenceSettings) -> tuple[int, int, int]:
    """The window in voxels: a two-dimensional network sees one section at a time."""
    x, y, z = inference.window
    return (x, y, 1) if net.spatial_dims == 2 else (x, y, z)


def normalized_reader(volume: LazyImage) -> Callable[[Box], NDArray[np.float32]]:
    """Reads boxes of a volume with one contrast window for all of it."""
    contrast = intensity_window(volume)
    return lambda box: normalize(np.asarray(volume[box_slices(box)]), contrast)
