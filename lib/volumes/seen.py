"""Images as the network sees them: it knows membranes as dark.

Nothing is changed but the order of the contrast window: what is dark and what is bright. What
viewers show and what is exported is the image as stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lib.volumes.boxes import Triple
from lib.volumes.contrast import LazyImage
from lib.volumes.readers.region import RegionSource


def as_seen(image: LazyImage, bright_membranes: bool) -> LazyImage:
    """An image with the contrast that the network is to see.

    Args:
        image: (X, Y, Z), read lazily.
        bright_membranes: whether its membranes are brighter than what they enclose.

    Returns:
        The image itself where membranes are dark.
    """
    if not bright_membranes:
        return image
    return image.inverted() if isinstance(image, RegionSource) else InvertedImage(image)


class InvertedImage:
    """An image whose bright voxels are dark to the network.

    Args:
        image: (X, Y, Z), as stored.
    """

    inverted = True

    def __init__(self, image: LazyImage) -> None:
        self.image = image

    @property
    def shape(self) -> Triple:
        """Of the image."""
        x, y, z = (int(n) for n in self.image.shape)
        return x, y, z

    def __getitem__(self, index: Any) -> Any:
        """The stored voxels."""
        return self.image[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.image, dtype)
