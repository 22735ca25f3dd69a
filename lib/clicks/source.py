"""What a click works on: the network, an image, and the features kept between clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.clicks.evidence import compute_features
from lib.configs.settings import InferenceSettings
from lib.networks.model import NeuropilNet
from lib.prediction.feature_cache import FeatureCache, WindowFeatures, WindowKey
from lib.volumes.boxes import Box, Triple, box_slices
from lib.volumes.contrast import LazyImage, intensity_window, normalize


@dataclass(frozen=True)
class Clicks:
    """What an annotator said about one object, in network voxels.

    Args:
        positive: on the object; negative: not on it. Voxels (x, y, z), in any order.
        class_id: fine class the object is said to have, -1 none.
        instance: the object is one instance (False: all of a class).
    """

    positive: Sequence[Sequence[int]]
    negative: Sequence[Sequence[int]] = ()
    class_id: int = -1
    instance: bool = True


@dataclass(frozen=True)
class ClickSource:
    """The network, the image and the cache between them.

    Args:
        net: in evaluation mode.
        weights: version of its weights.
        image: (X, Y, Z) in the network's frame, read lazily.
        image_key: identity of the image; must change when its content does.
        voxel_size_nm: (x, y, z) of the image.
        cache: shared by all requests.
        inference: window, limit and precision.
        fragments: (X, Y, Z) ids of the automatic objects, 0 none, in the network's frame, read
            lazily; None where there are none to start from.
        heads: version of the study's heads on the network, which features do not depend on.
    """

    net: NeuropilNet
    weights: str
    image: LazyImage
    image_key: str
    voxel_size_nm: tuple[float, float, float]
    cache: FeatureCache
    inference: InferenceSettings
    fragments: LazyImage | None = None
    heads: str = ""

    @property
    def shape(self) -> Triple:
        """Network voxels."""
        x, y, z = (int(n) for n in self.image.shape)
        return x, y, z

    @property
    def window(self) -> Triple:
        """Size of a window; a two-dimensional network sees one section at a time."""
        x, y, z = self.inference.click_window
        return (x, y, 1) if self.net.spatial_dims == 2 else (x, y, z)

    def features(self, box: Box) -> WindowFeatures:
        """Of one window, from the cache or computed now."""

        def compute() -> WindowFeatures:
            contrast = self.cache.contrast(self.image_key, lambda: intensity_window(self.image))
            patch = normalize(np.asarray(self.image[box_slices(box)]), contrast)
            return compute_features(self.net, box, patch, self.inference.precision)

        return self.cache.get(WindowKey(self.weights, self.image_key, box), compute)
