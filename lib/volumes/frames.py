"""Two frames of one image: voxels as a viewer indexes them, voxels as the network sees them.

Viewers send points as [i, j, k] of the volume as loaded and expect masks on that grid. The
network wants the section axis, the coarsest, last, and voxels not much finer or coarser than it
was trained on. The way between the two is a permutation of the axes and whole-number binning or
splitting of voxels; mirrored and rotated images need nothing more, since the network is trained
on mirrored and turned patches. Points, boxes and masks are exact integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple, box_slices, whole_box
from lib.volumes.contrast import LazyImage

SECTION_RATIO = 1.5
"""From this ratio on, the coarsest axis counts as the section axis."""

MOST_SPLIT_VOXELS = 2**28
"""An image that would have more network voxels than this is not split: its maps are held in
memory on the network's grid."""


@dataclass(frozen=True)
class ViewerFrame:
    """How an image's viewer voxels and network voxels correspond.

    Args:
        shape: of the image, viewer order.
        voxel_size_nm: along the viewer's axes.
        order: viewer axis that each network axis runs along.
        bins: viewer voxels in one network voxel, along the network's axes.
        splits: network voxels in one viewer voxel, along the network's axes; 1 wherever the
            bins are not.
    """

    shape: Triple
    voxel_size_nm: tuple[float, float, float]
    order: Triple
    bins: Triple
    splits: Triple = (1, 1, 1)

    @property
    def network_shape(self) -> Triple:
        """Network voxels; the last along an axis may be partly filled."""
        x, y, z = (-(-self.shape[a] // n) * m for a, n, m in self._axes())
        return x, y, z

    @property
    def network_voxel_size_nm(self) -> tuple[float, float, float]:
        """Along the network's axes."""
        x, y, z = (self.voxel_size_nm[a] * n / m for a, n, m in self._axes())
        return x, y, z

    def resampling(self) -> dict[str, list[float] | list[int]]:
        """What the network sees of the image, along the viewer's axes, for a reply."""
        back = np.argsort(self.order)
        return {
            "network_voxel_size_nm": [round(self.network_voxel_size_nm[a], 3) for a in back],
            "binned": [self.bins[a] for a in back],
            "split": [self.splits[a] for a in back],
        }

    def to_network(self, points: NDArray[Any] | Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """(N, 3) viewer voxels -> (N, 3) network voxels that hold them; outside stays outside.

        Of the network voxels that a viewer voxel is split into, the one at its centre.
        """
        rows = np.asarray(points, np.int64).reshape(-1, 3)
        splits = np.asarray(self.splits)
        network: NDArray[np.int64] = (
            rows[:, list(self.order)] // np.asarray(self.bins) * splits + splits // 2
        )
        return network

    def to_viewer(self, points: NDArray[Any] | Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """(N, 3) network voxels -> (N, 3) viewer voxels at their centres, inside the image."""
        rows = np.asarray(points, np.int64).reshape(-1, 3)
        out = np.empty_like(rows)
        bins = np.asarray(self.bins)
        out[:, list(self.order)] = rows // np.asarray(self.splits) * bins + bins // 2
        inside: NDArray[np.int64] = np.minimum(out, np.asarray(self.shape) - 1)
        return inside

    def viewer_box(self, box: Box) -> Box:
        """The viewer voxels that share something with a network box, cut to the image."""
        spans: list[tuple[int, int]] = [(0, 0)] * 3
        for (low, high), (axis, n, m) in zip(box, self._axes(), strict=True):
            spans[axis] = (low // m * n, min(-(-high // m) * n, self.shape[axis]))
        return spans[0], spans[1], spans[2]

    def network_box(self, box: Box) -> Box:
        """The network voxels that hold any voxel of a viewer box."""
        x, y, z = ((box[a][0] // n * m, -(-box[a][1] // n) * m) for a, n, m in self._axes())
        return x, y, z

    def view(self, image: LazyImage) -> FramedImage:
        """The image (viewer order) as the network sees it, read lazily."""
        return FramedImage(self, image)

    def mask_to_viewer(self, values: NDArray[Any], box: Box) -> NDArray[Any]:
        """Values on a network box -> values on `viewer_box(box)`, same type.

        A split voxel takes the value at its centre, or what the box has nearest to it.
        """
        out = values
        for axis, ((low, high), n, m) in enumerate(zip(box, self.bins, self.splits, strict=True)):
            if m > 1:
                centres = np.arange(low // m, -(-high // m)) * m + m // 2
                out = out.take(centres.clip(low, high - 1) - low, axis)
            out = np.repeat(out, n, axis) if n > 1 else out
        out = out.transpose(np.argsort(self.order))
        wanted = self.viewer_box(box)
        return out[tuple(slice(0, high - low) for low, high in wanted)]

    def labels_to_network(self, values: NDArray[Any], box: Box) -> NDArray[Any]:
        """Labels on `viewer_box(box)`, viewer order -> labels on the network box.

        Labels cannot be averaged: a binned voxel takes that of the voxel at its centre.
        """
        out = values.transpose(self.order)
        for axis, ((low, high), n, m) in enumerate(zip(box, self.bins, self.splits, strict=True)):
            if m > 1:
                out = out.take(np.arange(low, high) // m - low // m, axis)
            if n > 1:
                centre = np.arange(high - low) * n + n // 2
                out = out.take(np.minimum(centre, out.shape[axis] - 1), axis)
        return out

    def mask_to_network(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """A whole mask, viewer order -> bool on the network's grid: most of the voxel is set."""
        if max(self.splits) > 1:
            return np.asarray(self.labels_to_network(mask != 0, whole_box(self.network_shape)))
        framed = FramedImage(self, np.asarray(mask != 0, np.float32))
        box = tuple(slice(0, n) for n in self.network_shape)
        return np.asarray(framed[box] >= 0.5)

    def _axes(self) -> Iterator[tuple[int, int, int]]:
        """(viewer axis, bins, splits) along the network's axes."""
        return zip(self.order, self.bins, self.splits, strict=True)


class FramedImage:
    """A lazily read image in the network's frame: axes permuted, voxels averaged or split.

    Args:
        frame: the correspondence.
        image: (shape of the frame), viewer order.
    """

    def __init__(self, frame: ViewerFrame, image: LazyImage) -> None:
        if tuple(image.shape) != frame.shape:
            raise ValueError(f"image of shape {tuple(image.shape)}, expected {frame.shape}")
        self.frame = frame
        self.image = image

    @property
    def shape(self) -> Triple:
        """Extent in the network's frame."""
        return self.frame.network_shape

    @property
    def contrast(self) -> tuple[float, float] | None:
        """The contrast window of the volume that the image is a part of, where it knows it."""
        known: tuple[float, float] | None = getattr(self.image, "contrast", None)
        return known

    @property
    def inverted(self) -> bool:
        """Whether bright voxels of the image are dark to the network."""
        return bool(getattr(self.image, "inverted", False))

    def __getitem__(self, index: Any) -> NDArray[Any]:
        box = tuple(s.indices(n) for s, n in zip(index, self.shape, strict=True))
        assert all(step == 1 for _, _, step in box), "only steps of 1"
        (a, b, _), (c, d, _), (e, f, _) = box
        wanted: Box = ((a, b), (c, d), (e, f))
        frame = self.frame
        if max(frame.splits) > 1:
            return self._between(wanted)
        raw = np.asarray(self.image[box_slices(frame.viewer_box(wanted))])
        return _bin(raw.transpose(frame.order), frame.bins)

    def _between(self, box: Box) -> NDArray[np.float32]:
        """Linear interpolation between the viewer's voxels; the outermost go on unchanged."""
        frame = self.frame
        read: list[tuple[int, int]] = [(0, 0)] * 3
        places = []
        for (low, high), axis, m in zip(box, frame.order, frame.splits, strict=True):
            at = (np.arange(low, high) + 0.5) / m - 0.5
            at = at.clip(0, frame.shape[axis] - 1)
            first = int(at[0])
            read[axis] = (first, math.ceil(at[-1]) + 1)
            places.append(at - first)
        out = np.asarray(self.image[box_slices((read[0], read[1], read[2]))], np.float32)
        out = out.transpose(frame.order)
        for axis, at in enumerate(places):
            if frame.splits[axis] == 1:
                continue
            below = at.astype(np.int64)
            share = (at - below).astype(np.float32)
            above = np.minimum(below + 1, out.shape[axis] - 1)
            share = share.reshape([-1 if a == axis else 1 for a in range(3)])
            out = out.take(below, axis) * (1 - share) + out.take(above, axis) * share
        return out


def viewer_frame(
    shape: Sequence[int],
    voxel_size_nm: Sequence[float],
    finest_nm: float = 0.0,
    most_split: int = 1,
) -> ViewerFrame:
    """The frame of an image.

    An axis of one voxel comes last; else the axis whose voxels are clearly the longest. The
    other two keep their order. An axis whose voxels are at most half of `finest_nm` is binned.
    Voxels of a volume that are at least twice as coarse are split along all axes that are not
    clearly longer, unless they would stay that coarse. Single sections are not split: the
    network learns those at any scale.

    Args:
        shape: (X, Y, Z), viewer order.
        voxel_size_nm: along the same axes; from the record, or lengths of the affine's columns.
        finest_nm: voxels this fine are wanted at most; 0: never bin or split.
        most_split: most network voxels along one voxel of the image; 1: never split.

    Raises:
        ValueError: not three axes, or a size that is not positive.
    """
    if len(shape) != 3 or len(voxel_size_nm) != 3 or min(shape) < 1:
        raise ValueError(f"expected three axes with voxels, found {tuple(shape)}")
    sizes = [float(s) for s in voxel_size_nm]
    if not all(np.isfinite(s) and s > 0 for s in sizes):
        raise ValueError(f"voxel size: expected three positive numbers in nm, found {sizes}")
    last = _section_axis(shape, sizes)
    first, second = (a for a in range(3) if a != last)
    order = (first, second, last)
    bins = [max(1, int(finest_nm / sizes[a] + 1e-6)) for a in order]
    bx, by, bz = (min(n, shape[a]) for a, n in zip(order, bins, strict=True))
    m = _split(shape, sizes, finest_nm, most_split)
    sx, sy, sz = (m if sizes[a] < SECTION_RATIO * min(sizes) else 1 for a in order)
    whole = math.prod(int(n) for n in shape) * sx * sy * sz
    return ViewerFrame(
        (int(shape[0]), int(shape[1]), int(shape[2])),
        (sizes[0], sizes[1], sizes[2]),
        order,
        (bx, by, bz),
        (sx, sy, sz) if whole <= MOST_SPLIT_VOXELS else (1, 1, 1),
    )


def _split(shape: Sequence[int], sizes: Sequence[float], finest_nm: float, most: int) -> int:
    """Network voxels along the finest voxels of an image that is coarser than wanted."""
    finest = min(sizes)
    if 1 in shape or not finest_nm:
        return 1
    m = max(1, min(most, int(finest / finest_nm + 1e-6)))
    return m if finest / m < 2 * finest_nm else 1


def _section_axis(shape: Sequence[int], sizes: Sequence[float]) -> int:
    if 1 in shape and max(shape) > 1:
        return max(a for a in range(3) if shape[a] == 1)
    longest = max(sizes)
    coarse = [a for a in range(3) if sizes[a] * SECTION_RATIO > longest]
    # Isotropic, or two coarse axes: no axis stands out, and the viewer's order is as good.
    return coarse[0] if len(coarse) == 1 else 2


def _bin(values: NDArray[Any], bins: Triple) -> NDArray[Any]:
    """Means over blocks; a partly filled last block is the mean of what it has."""
    if bins == (1, 1, 1):
        return values
    out = values.astype(np.float32)
    for axis, n in enumerate(bins):
        starts = np.arange(0, out.shape[axis], n)
        counts = np.diff(np.append(starts, out.shape[axis]))
        sums = np.add.reduceat(out, starts, axis)
        out = sums / counts.reshape([-1 if a == axis else 1 for a in range(3)])
    return out
