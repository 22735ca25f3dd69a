"""What every reader gives: a volume that is read in boxes, in x, y, z order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import (
    Box,
    Triple,
    box_origin,
    box_shape,
    check_box,
    intersect,
    minus,
    shift_box,
    whole_box,
)
from lib.volumes.errors import VolumeError, damaged


@dataclass(frozen=True)
class SourceInfo:
    """What is known about a source before any voxel is read.

    Args:
        path: file or folder, for messages and the record.
        dataset: path inside the file, "" when it has none.
        shape: x, y, z.
        dtype: of the stored voxels.
        voxel_size_nm: None where the file does not say.
        size_fault: why what the file says of it cannot be used.
        origin: coordinates of the first voxel in the source's own frame.
        placed: whether these coordinates are shared with other volumes (Precomputed).
        offset_nm: place of the first voxel in physical space, where the file says.
        chunk_depth: sections that are decoded together.
        attributes: `neuropil` metadata that an export left there.
        warnings: what a user should be told about the source.
        missing_sections: z of sections that the source lacks; nothing is known there.
    """

    path: str
    dataset: str
    shape: Triple
    dtype: np.dtype[Any]
    voxel_size_nm: tuple[float, float, float] | None = None
    origin: Triple = (0, 0, 0)
    placed: bool = False
    offset_nm: tuple[float, float, float] | None = None
    chunk_depth: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)
    size_fault: str = ""
    warnings: tuple[str, ...] = ()
    missing_sections: tuple[int, ...] = ()

    @property
    def where(self) -> str:
        """The source's name in messages."""
        return f"{self.path}:{self.dataset}" if self.dataset else self.path


@dataclass(frozen=True)
class Stored:
    """How many of the parts that a box needs are in the file.

    Args:
        found, total: parts.
        part: what they are called.
    """

    found: int
    total: int
    part: str = "chunks"


class Source(ABC):
    """A volume on disk, sliced like an (X, Y, Z) array; only what is asked for is read."""

    affine: NDArray[np.float64] | None = None
    """(4, 4) from voxel to right-anterior-superior space, in the file's own units; None for
    files that do not tell."""

    def __init__(self, info: SourceInfo) -> None:
        self.info = info
        if min(info.shape) < 1:
            raise VolumeError(info.where, f"shape {info.shape} holds no voxel")

    @property
    def shape(self) -> Triple:
        """Extent in x, y, z."""
        return self.info.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored voxels."""
        return self.info.dtype

    @property
    def ndim(self) -> int:
        """Always 3: a single section is (X, Y, 1)."""
        return 3

    def read(self, box: Box) -> NDArray[Any]:
        """The voxels of a box, counted from the source's first voxel.

        Returns:
            (X, Y, Z) array of the box's shape.

        Raises:
            VolumeError: the file is truncated or damaged there.
        """
        check_box(box, self.shape)
        try:
            voxels = self._read(box)
        except VolumeError:
            raise
        except (OSError, ValueError, RuntimeError, EOFError, KeyError, IndexError) as error:
            raise damaged(self.info.where, error) from error
        assert voxels.shape == box_shape(box), (voxels.shape, box)
        return voxels

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Slice like an array; steps and single numbers are allowed, lists are not."""
        parts = index if isinstance(index, tuple) else (index,)
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts = (*parts[:at], *[slice(None)] * (4 - len(parts)), *parts[at + 1 :])
        parts = (*parts, *[slice(None)] * (3 - len(parts)))
        ranges: list[tuple[int, int]] = []
        inner: list[int | slice] = []
        for wanted, size in zip(parts, self.shape, strict=True):
            steps = range(size)[wanted]
            if isinstance(steps, int):
                ranges.append((steps, steps + 1))
                inner.append(0)
            elif len(steps) == 0:
                ranges.append((0, 1))
                inner.append(slice(0, 0))
            else:
                low, high = min(steps[0], steps[-1]), max(steps[0], steps[-1])
                ranges.append((low, high + 1))
                inner.append(slice(None, None, steps.step))
        x, y, z = ranges
        part: NDArray[Any] = self.read((x, y, z))[tuple(inner)]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The whole volume; numpy asks for it where a slice would not do."""
        return np.asarray(self.read(whole_box(self.shape)), dtype)

    def stored_boxes(self, limit: int) -> list[Box]:
        """Where voxels are stored, for kinds of file that leave out what nobody wrote.

        Args:
            limit: most boxes wanted, spread over all there are.

        Returns:
            Boxes of stored chunks; empty where the kind of file does not tell.
        """
        return []

    def stored(self, box: Box) -> Stored:
        """How many of a box's parts the file holds; one that it lacks reads as its fill value."""
        return Stored(1, 1)

    def holds(self, box: Box) -> bool:
        """Whether anything of a box is stored; True where that cannot be told quickly."""
        return True

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Let go of open files."""

    @abstractmethod
    def _read(self, box: Box) -> NDArray[Any]:
        """The voxels of a checked box."""


class ArraySource(Source):
    """A source over anything that slices as (X, Y, Z): an array or a memory map."""

    def __init__(self, info: SourceInfo, array: Any) -> None:
        super().__init__(info)
        assert array.shape == info.shape, (array.shape, info.shape)
        self.array = array

    def _read(self, box: Box) -> NDArray[Any]:
        (a, b), (c, d), (e, f) = box
        return np.asarray(self.array[a:b, c:d, e:f])


class Permuted(Source):
    """A source whose axes are stored in another order.

    Args:
        inner: the source as stored.
        axes: its axis that is x, y, z.
    """

    def __init__(self, inner: Source, axes: Triple) -> None:
        info = inner.info
        x, y, z = (info.shape[a] for a in axes)
        super().__init__(replace(info, shape=(x, y, z), chunk_depth=1))
        self._inner, self._axes = inner, axes

    def close(self) -> None:
        """Close the stored source."""
        self._inner.close()

    def stored(self, box: Box) -> Stored:
        """As the stored source says."""
        return self._inner.stored(self._as_stored(box))

    def _as_stored(self, box: Box) -> Box:
        x, y, z = (box[self._axes.index(a)] for a in range(3))
        return x, y, z

    def _read(self, box: Box) -> NDArray[Any]:
        return self._inner.read(self._as_stored(box)).transpose(self._axes)


class Cropped(Source):
    """A part of a source as a source of its own.

    Args:
        inner: the whole.
        box: the part, counted from the whole's first voxel.
        info: of the part.
    """

    def __init__(self, inner: Source, box: Box, info: SourceInfo) -> None:
        super().__init__(info)
        assert info.shape == box_shape(box), (info.shape, box)
        self.inner, self._low = inner, box_origin(box)

    def close(self) -> None:
        """Close the whole."""
        self.inner.close()

    def stored(self, box: Box) -> Stored:
        """As the whole says."""
        return self.inner.stored(shift_box(box, self._low))

    def holds(self, box: Box) -> bool:
        """As the whole says."""
        return self.inner.holds(shift_box(box, self._low))

    def stored_boxes(self, limit: int) -> list[Box]:
        """As the whole says, inside of the part."""
        shifted = (shift_box(b, minus(self._low)) for b in self.inner.stored_boxes(limit))
        return [part for b in shifted if (part := intersect(b, whole_box(self.shape)))]

    def _read(self, box: Box) -> NDArray[Any]:
        return self.inner.read(shift_box(box, self._low))


def check_affine(where: str, affine: NDArray[np.float64]) -> None:
    """Refuse a grid that puts different voxels in one place.

    Raises:
        VolumeError: not finite, or singular.
    """
    if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise VolumeError(
            where, "a grid whose axes or spacings are 0, infinite or in one plane",
            "three axes with a spacing each", "write the file again with its voxel size",
        )  # fmt: skip
