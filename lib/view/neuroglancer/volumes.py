"""Voxels for Neuroglancer's client: each chunk is read when it is on the screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import neuroglancer
import numpy as np
from neuroglancer.chunks import encode_npz, encode_raw
from neuroglancer.local_volume import InvalidObjectIdForMesh
from numpy.typing import NDArray

from lib.proofread.current import CurrentObjects
from lib.queries.scores import ItemScores
from lib.shapes.meshes import meshes_of
from lib.view.neuroglancer.pyramid import Level, zoomed
from lib.volumes.boxes import Box, Triple, box_origin, box_shape, contains, whole_box
from lib.volumes.contrast import LazyImage
from lib.volumes.readers.region import RegionSource
from lib.volumes.readers.scales import Copy, coarser_copies

SHOWN_TYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
"""What the client takes; others are sent as float32."""
ENCODED = {"npz": encode_npz, "raw": encode_raw}
MOST_MESH_VOXELS = 2**26
"""Of the box around an object whose surface is made."""


@dataclass(frozen=True)
class Reading:
    """A volume that is read box by box.

    Args:
        shape: (X, Y, Z).
        dtype: one of SHOWN_TYPES.
        read: gives the voxels of a box.
        scales: gives what is read where several voxels are shown as one; by default the voxels.
    """

    shape: Triple
    dtype: np.dtype[Any]
    read: Callable[[Box], NDArray[Any]]
    scales: Callable[[], Sequence[Level]] | None = None

    def __getitem__(self, index: Any) -> NDArray[Any]:
        x, y, z = (
            (int(a), int(b))
            for a, b, _ in (s.indices(n) for s, n in zip(index, self.shape, strict=True))
        )
        return np.asarray(self.read((x, y, z))).astype(self.dtype, copy=False)

    def zoomed(self, box: Box, factor: Triple, labels: bool) -> NDArray[Any]:
        """A box with several voxels as one; see `zoomed`."""
        levels = [Level(self.shape, self.read)] if self.scales is None else self.scales()
        found = zoomed(levels, box, factor, labels=labels)
        if found.dtype.kind == "f" and self.dtype.kind in "iu":
            found = np.rint(found)
        return found.astype(self.dtype, copy=False)


def image_reading(image: LazyImage) -> Reading:
    """An image; types that the client does not know become float32."""
    x, y, z = (int(n) for n in image.shape)
    dtype = np.dtype(getattr(image, "dtype", np.uint8))
    shown = dtype.newbyteorder("=") if dtype.name in SHOWN_TYPES else np.dtype(np.float32)
    scales = _scales_of(image) if isinstance(image, RegionSource) else None
    return Reading((x, y, z), shown, lambda box: image[tuple(slice(*span) for span in box)], scales)


def _scales_of(region: RegionSource) -> Callable[[], Sequence[Level]]:
    """The volume that a region lies in, and its coarser copies; these are opened when needed."""

    @lru_cache(maxsize=1)
    def scales() -> list[Level]:
        outer, corner = region.outer, box_origin(region.box)
        levels = []
        for copy in (Copy(outer), *coarser_copies(outer)):
            a, b, c = (s + o / f for s, o, f in zip(copy.start, corner, copy.factor, strict=True))
            source = copy.source
            levels.append(
                Level(
                    source.shape, source.read, copy.unit, copy.factor, (a, b, c), source.holds
                )
            )  # fmt: skip
        return levels

    return scales


def objects_reading(current: Callable[[], CurrentObjects | None], shape: Triple) -> Reading:
    """The objects as they stand at each time of asking."""

    def read(box: Box) -> NDArray[np.uint32]:
        objects = current()
        if objects is None or objects.empty:
            return np.zeros(box_shape(box), np.uint32)
        return objects.read(box)

    return Reading(shape, np.dtype(np.uint32), read)


def heat_reading(scores: ItemScores) -> Reading:
    """The map of uncertainty, percent."""
    grid = scores.heat_grid
    cells = [np.repeat(np.arange(len(e) - 1), np.diff(e)) for e in grid.edges]

    def read(box: Box) -> NDArray[np.uint8]:
        at = [c[low:high] for c, (low, high) in zip(cells, box, strict=True)]
        return np.asarray(scores.heat[0][np.ix_(*at)])

    return Reading(grid.shape, np.dtype(np.uint8), read)


def array_reading(values: NDArray[Any]) -> Reading:
    """An array in memory."""
    x, y, z = values.shape
    return Reading(
        (x, y, z), values.dtype, lambda box: np.asarray(values[tuple(slice(*s) for s in box)])
    )


def dimensions(voxel_size_nm: Sequence[float]) -> Any:
    """The coordinate space of an image."""
    return neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units=["nm"] * 3, scales=[float(v) for v in voxel_size_nm]
    )


class Volume(neuroglancer.LocalVolume):
    """A volume of the viewer's.

    Args:
        reading: its voxels.
        voxel_size_nm: (x, y, z).
        labels: whether voxels are ids, not intensities.
        origin: place of the first voxel.
        objects: gives the objects whose surfaces can be shown; None: none can.
    """

    def __init__(
        self,
        reading: Reading,
        voxel_size_nm: Sequence[float],
        *,
        labels: bool,
        origin: Triple = (0, 0, 0),
        objects: Callable[[], CurrentObjects | None] = lambda: None,
    ) -> None:
        super().__init__(
            reading,
            dimensions=dimensions(voxel_size_nm),
            volume_type="segmentation" if labels else "image",
            voxel_offset=origin,
            encoding="npz",
            max_downsampling=np.inf,
        )
        self._reading, self._labels = reading, labels
        self._objects, self._size = objects, tuple(float(v) for v in voxel_size_nm)

    def get_encoded_subvolume(
        self, data_format: str, start: Any, end: Any, scale_key: str
    ) -> tuple[bytes, str]:
        """A box as the client asks for it, in any resolution.

        Raises:
            ValueError: a request that the client does not make.
        """
        x, y, z = (int(f) for f in scale_key.split(","))
        (a, b, c), (d, e, f) = map(int, start), map(int, end)
        if (x, y, z) == (1, 1, 1):
            encoded: tuple[bytes, str] = super().get_encoded_subvolume(
                data_format, start, end, scale_key
            )
            return encoded
        if min(x, y, z) < 1 or data_format not in ENCODED:
            raise ValueError(f"a request for {scale_key} as {data_format}")
        shown = [-(-n // k) for n, k in zip(self._reading.shape, (x, y, z), strict=True)]
        box: Box = (a, d), (b, e), (c, f)
        if not contains(whole_box((shown[0], shown[1], shown[2])), box) or min(box_shape(box)) < 1:
            raise ValueError(f"{box} of {shown} voxels")
        found = self._reading.zoomed(box, (x, y, z), self._labels)
        return ENCODED[data_format](found), "application/octet-stream"

    def get_object_mesh(self, object_id: int) -> bytes:
        """The surface of an object, in metres, as the client takes it.

        Raises:
            InvalidObjectIdForMesh: there is none, or it is too large.
        """
        objects = self._objects()
        extent = objects.extent(object_id) if objects is not None else None
        if objects is None or extent is None or np.prod(box_shape(extent)) > MOST_MESH_VOXELS:
            raise InvalidObjectIdForMesh()
        placed = objects.voxels(object_id)
        if placed is None:
            raise InvalidObjectIdForMesh()
        ids = placed.mask.astype(np.uint32)
        for _, mesh in meshes_of(ids, self._size, [1]):
            offset = np.array(box_origin(placed.box)) * np.array(self._size)
            mesh.vertices = ((mesh.vertices + offset) * 1e-9).astype(np.float32)
            return bytes(mesh.to_precomputed())
        raise InvalidObjectIdForMesh()
