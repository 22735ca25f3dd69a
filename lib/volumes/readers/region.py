"""A box of a larger volume as a volume of its own: nothing is copied, all is read from it.

<id>.region.json   {"source": PATH or address, "dataset", "box", "voxel_size_nm", "contrast"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.atomic import json_bytes
from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    contains,
    intersect,
    shift_box,
    show_box,
    whole_box,
)
from lib.volumes.contents import foreign_content
from lib.volumes.contrast import sample_boxes, values_window
from lib.volumes.crop import widen
from lib.volumes.errors import VolumeError
from lib.volumes.source import Source

REGION = ".region.json"
"""Ending of a file that says which box of which volume an item is."""
EMPTY = (0.0, 1.0)
"""The window of a sample that holds nothing but zeros."""
SAMPLED, SAMPLED_EDGE = 64, 128
"""Stored chunks that are looked at where even sampling finds nothing, and how much of each."""
Window = tuple[float, float]


@dataclass(frozen=True)
class RegionOf:
    """Which box of which volume.

    Args:
        source: path or address of the volume.
        dataset: array in it; "" where it has one only.
        box: voxels counted from the volume's first one.
        voxel_size_nm: (x, y, z).
        contrast: the volume's window of intensities, the same for all its regions.
    """

    source: str
    dataset: str
    box: Box
    voxel_size_nm: tuple[float, float, float]
    contrast: Window

    @property
    def text(self) -> str:
        """What `open_source` takes."""
        return f"{self.source}:{self.dataset}" if self.dataset else self.source

    def to_bytes(self) -> bytes:
        """The file's content."""
        return json_bytes(
            {
                "source": self.source, "dataset": self.dataset,
                "box": [list(span) for span in self.box],
                "voxel_size_nm": list(self.voxel_size_nm), "contrast": list(self.contrast),
            }
        )  # fmt: skip


def read_region(path: Path) -> RegionOf:
    """Read a region's file.

    Raises:
        VolumeError: it says no region.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        x, y, z = ((int(low), int(high)) for low, high in data["box"])
        a, b, c = (float(v) for v in data["voxel_size_nm"])
        low, high = (float(v) for v in data["contrast"])
        source, dataset = str(data["source"]), str(data.get("dataset", ""))
        return RegionOf(source, dataset, (x, y, z), (a, b, c), (low, high))
    except (ValueError, KeyError, TypeError) as error:
        if content := foreign_content(path):
            raise VolumeError(path, content.found, remedy=content.remedy) from error
        raise VolumeError(
            path, f"not a readable region ({error})", "source, box, voxel_size_nm and contrast",
            "import the region again",
        ) from error  # fmt: skip


class RegionSource(Source):
    """A box of a volume.

    Args:
        outer: the volume.
        box: voxels counted from the volume's first one.
        contrast: the volume's window of intensities.
        where: what it is called in messages; by default the volume and the box.
    """

    def __init__(
        self,
        outer: Source,
        box: Box,
        contrast: Window,
        voxel_size_nm: tuple[float, float, float] | None = None,
        where: str = "",
    ) -> None:
        if not contains(whole_box(outer.shape), box) or min(box_shape(box)) < 1:
            raise VolumeError(
                where or outer.info.where, f"the box {show_box(box)}",
                f"voxels inside {show_box(whole_box(outer.shape))} of {outer.info.where}",
            )  # fmt: skip
        info = outer.info
        a, b, c = (o + low for o, low in zip(info.origin, box_origin(box), strict=True))
        super().__init__(
            replace(
                info, path=where or info.path, dataset="" if where else info.dataset,
                shape=box_shape(box), origin=(a, b, c),
                voxel_size_nm=voxel_size_nm or info.voxel_size_nm,
            )
        )  # fmt: skip
        self.outer, self.box, self.contrast = outer, box, contrast
        x, y, z = self.info.voxel_size_nm or (1.0, 1.0, 1.0)
        self.affine = np.diag([x, y, z, 1.0])

    def _read(self, box: Box) -> NDArray[Any]:
        return self.outer.read(shift_box(box, box_origin(self.box)))

    def stored_boxes(self, limit: int) -> list[Box]:
        """Boxes of the volume's stored chunks, as far as they lie in the region."""
        x, y, z = box_origin(self.box)
        inside = (intersect(box, self.box) for box in self.outer.stored_boxes(limit))
        return [shift_box(box, (-x, -y, -z)) for box in inside if box is not None]

    def close(self) -> None:
        """Close the volume."""
        self.outer.close()

    def inverted(self) -> RegionSource:
        """The region with its window of intensities the other way round."""
        dark, bright = self.contrast
        return RegionSource(
            self.outer, self.box, (bright, dark), self.info.voxel_size_nm, self.info.path
        )

    def around(self, margin: tuple[int, int, int]) -> tuple[RegionSource, Box]:
        """The region with what lies around it, and its own box in that.

        Args:
            margin: voxels on each side, as far as the volume goes.
        """
        wide = widen(self.box, margin, self.outer.shape)
        larger = RegionSource(self.outer, wide, self.contrast, self.info.voxel_size_nm)
        x, y, z = box_origin(wide)
        return larger, shift_box(self.box, (-x, -y, -z))


def volume_contrast(volume: Source) -> Window:
    """One window of intensities for a whole volume, by bounded sampling.

    Where the evenly spread samples hold nothing but filling, as in a volume of which few chunks
    are stored, those chunks are sampled instead. Samples that cannot be read are left out.

    Raises:
        VolumeError: none can be read.
    """
    found = values_window(_sampled(volume, sample_boxes(volume.shape)))
    if found != EMPTY:
        return found
    stored = [_middle(box) for box in volume.stored_boxes(SAMPLED)]
    return values_window(_sampled(volume, stored)) if stored else found


def _sampled(volume: Source, boxes: list[Box]) -> NDArray[Any]:
    samples, failure = [], None
    for box in boxes:
        try:
            samples.append(volume.read(box).ravel())
        except VolumeError as error:
            failure = error
    if failure is not None and not samples:
        raise failure
    return np.concatenate(samples)


def _middle(box: Box) -> Box:
    """At most SAMPLED_EDGE voxels along each axis, of one section, from the middle of a box."""
    spans = []
    for (low, high), most in zip(box, (SAMPLED_EDGE, SAMPLED_EDGE, 1), strict=True):
        start = low + max(0, (high - low - most) // 2)
        spans.append((start, min(high, start + most)))
    return spans[0], spans[1], spans[2]
