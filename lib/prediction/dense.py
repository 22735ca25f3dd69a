"""One pass of the heads over a volume: what every dense prediction shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.networks.model import NeuropilNet
from lib.prediction.features import FeatureSource, Shelf
from lib.prediction.forward import View, WindowForward, window_size
from lib.prediction.window_grid import window_grid
from lib.prediction.windows import Outputs, WindowRun
from lib.volumes.boxes import Box, Triple
from lib.volumes.contrast import LazyImage

Decode = Callable[[View], Mapping[str, Tensor]]
Consume = Callable[[Box, Outputs], None]


class DensePass:
    """The windows of a volume and the heads that run on them.

    Args:
        net: in evaluation mode, on the device that computes.
        volume: (X, Y, Z) image in the network's frame, read window by window.
        voxel_size_nm: (x, y, z) of it.
        inference: window, overlap, precision, mirrored views and batch size.
        heads: names of the heads wanted.
        overlap: instead of the settings'.
        mirror: instead of the settings'.
        shelf: where the backbone's features are kept for the next run; None: nowhere.
    """

    def __init__(
        self,
        net: NeuropilNet,
        volume: LazyImage,
        voxel_size_nm: Sequence[float],
        inference: InferenceSettings,
        heads: Collection[str],
        *,
        overlap: float | None = None,
        mirror: bool | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.inference = inference
        overlap = inference.overlap if overlap is None else overlap
        mirror = inference.mirror if mirror is None else mirror
        self.grid = window_grid(volume.shape, window_size(net, inference), overlap)
        features = FeatureSource(net, volume, inference.precision, shelf)
        self.forward = WindowForward.over(features, heads, self.grid, mirror, voxel_size_nm)

    def run(
        self,
        decode: Decode,
        consume: Consume,
        channels: int,
        *,
        box: Box | None = None,
        pair_offsets: Mapping[str, Sequence[Triple]] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Run the heads, decode each view, average and blend, hand over box by box.

        Args:
            decode: one view of some windows -> named outputs (B, C, *window).
            consume: takes a box and its blended outputs (C, *box), float32. Boxes do not
                overlap and together are the volume, or the part of it.
            channels: all channels of all outputs together, to bound the memory.
            box: the part of the volume that is wanted; None: all of it.
            pair_offsets: see `WindowRun`.
            progress: called with (windows done, windows in all).
        """
        WindowRun(
            self.grid,
            lambda boxes: self.forward.mean(boxes, decode),
            consume,
            channels=channels,
            device=self.forward.device,
            tile_bytes=self.inference.tile_bytes,
            batch_size=self.inference.batch_size,
            pair_offsets=pair_offsets or {},
            progress=progress,
            box=box,
        ).run()
