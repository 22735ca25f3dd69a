"""A box of an image that is read lazily, with the contrast window of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib.volumes.boxes import Box, Triple, box_origin, box_shape, box_slices, shift_box
from lib.volumes.contrast import LazyImage


@dataclass(frozen=True)
class Crop:
    """A box of an image.

    Args:
        image: (X, Y, Z).
        box: of its voxels.
        contrast: the image's window of intensities.
    """

    image: LazyImage
    box: Box
    contrast: tuple[float, float]

    @property
    def shape(self) -> Triple:
        """Of the box."""
        return box_shape(self.box)

    def __getitem__(self, index: Any) -> Any:
        """Slices of the box, steps of 1."""
        spans = [s.indices(n)[:2] for s, n in zip(index, self.shape, strict=True)]
        inner: Box = (spans[0], spans[1], spans[2])
        return self.image[box_slices(shift_box(inner, box_origin(self.box)))]


def widen(box: Box, margin: Triple, shape: Triple) -> Box:
    """A box with a margin on each side, as far as a volume of `shape` goes."""
    x, y, z = (
        (max(0, low - m), min(n, high + m))
        for (low, high), m, n in zip(box, margin, shape, strict=True)
    )
    return x, y, z
