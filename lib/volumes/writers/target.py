"""What every kind of export target does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lib.volumes.boxes import Box, Triple, box_origin, box_shape, shift_box, slabs
from lib.volumes.errors import VolumeError
from lib.volumes.writing import SLAB_BYTES, Progress

CHUNK = 64
ReadBox = Callable[[Box], NDArray[Any]]
"""Gives the values of a box of the item, counted from the item's first voxel."""


@dataclass(frozen=True)
class TargetSpec:
    """Where labels go.

    Args:
        path: file or folder.
        dataset: array inside it, where the kind has arrays.
        frame: the box that the target covers, in the source's own voxels.
        place: the item's box in the same frame.
        dtype: uint8 or uint32.
        outside: value where nothing is known.
        replace: write over what is there.
        source_nm: place of voxel (0, 0, 0) of the source's coordinates in physical space.
    """

    path: Path
    dataset: str
    frame: Box
    place: Box
    dtype: np.dtype[Any]
    voxel_size_nm: tuple[float, float, float]
    outside: int
    replace: bool
    source_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def where(self) -> str:
        """The target's name in messages."""
        return f"{self.path}:{self.dataset}" if self.dataset else str(self.path)

    @property
    def shape(self) -> Triple:
        """Extent of the frame in x, y, z."""
        return box_shape(self.frame)

    @property
    def offset_nm(self) -> tuple[float, float, float]:
        """Physical place of the frame's first voxel, x, y, z."""
        rows = zip(box_origin(self.frame), self.voxel_size_nm, self.source_nm, strict=True)
        x, y, z = (round(o * s + place, 6) for o, s, place in rows)
        return x, y, z

    @property
    def voxel_origin(self) -> Triple:
        """That place in whole voxels, for targets that know no other."""
        x, y, z = (round(o / s) for o, s in zip(self.offset_nm, self.voxel_size_nm, strict=True))
        return x, y, z

    def inner_place(self) -> Box:
        """The item's box counted from the frame's first voxel."""
        x, y, z = box_origin(self.frame)
        return shift_box(self.place, (-x, -y, -z))

    def parts(self, multiple: int) -> Iterator[tuple[Box, Box]]:
        """Slabs of the item: (counted from the item, counted from the frame)."""
        place = self.inner_place()
        x, y, z = box_origin(place)
        for slab in slabs(place, self.dtype.itemsize * 4, SLAB_BYTES, multiple):
            yield shift_box(slab, (-x, -y, -z)), slab

    def check_same(self, shape: Triple, dtype: Any) -> None:
        """Refuse to fill in a target of another frame or type.

        Raises:
            VolumeError: what it is and what it should be.
        """
        if shape != self.shape or np.dtype(dtype) != self.dtype:
            raise VolumeError(
                self.where, f"exists with shape {shape} and type {np.dtype(dtype)}",
                f"{self.shape} and {self.dtype} to fill it in", "use --replace or another target",
            )  # fmt: skip


class LabelTarget(ABC):
    """An export target, opened for one item. Use as a context manager."""

    empty: ClassVar[int | None] = None
    """What this kind reads where nothing is written; None: what it is told."""

    attributes: Mapping[str, Any] = {}
    """The `neuropil` metadata that the target already holds."""

    def __init__(self, spec: TargetSpec) -> None:
        self.spec = spec

    @abstractmethod
    def write(self, read: ReadBox, progress: Progress | None) -> None:
        """Write the item's voxels."""

    @abstractmethod
    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Replace the `neuropil` metadata."""

    def finish(self) -> None:  # noqa: B027 - chunked targets are visible as they grow
        """Make what was written visible."""

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing half-written behind."""

    def __enter__(self) -> LabelTarget:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()
