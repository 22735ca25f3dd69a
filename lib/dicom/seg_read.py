"""DICOM segmentations of any writer, read onto the grid of their image.

Two things go wrong with other readers: writers drop empty sections, so the label's grid is
not the image's, and they renumber segments, so values lose their meaning. Here every frame is
put where its position says on the grid of the image, and segments are known by their label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lib.dicom.seg import Segment
from lib.dicom.series import SeriesGrid, private_record

_TOLERANCE = 0.05  # of a voxel: how far a frame may be from the image's grid


@dataclass(frozen=True)
class Segmentation:
    """What a SEG says, on the image's grid.

    Args:
        layers: (X, Y, Z) uint16 arrays; 0 where no segment of the layer is.
        segments: in the file's order, also those without voxels.
        note: what our writer left beside it (see `write_seg`), or None.
    """

    layers: tuple[NDArray[np.uint16], ...]
    segments: tuple[Segment, ...]
    note: dict[str, Any] | None


def read_seg(source: Path | str | Dataset, grid: SeriesGrid) -> Segmentation:
    """Read a SEG of any writer onto the image's grid.

    Frames are put by their position and orientation; sections and segments may be missing or
    in any order; overlapping segments come in several layers.

    Raises:
        ValueError: no SEG, another image's, or a frame that lies off the image's grid.
    """
    dataset = source if isinstance(source, Dataset) else pydicom.dcmread(source)
    if dataset.get("Modality") != "SEG":
        raise ValueError(
            f"DICOM segmentation: found modality {dataset.get('Modality')}, expected SEG"
        )
    by_number: dict[int, list[int]] = {}
    is_map = str(dataset.get("SegmentationType")) == "LABELMAP"
    for frame in range(int(dataset.get("NumberOfFrames", 1))):
        number = 0 if is_map else _segment_of(dataset, frame)
        by_number.setdefault(number, []).append(frame)
    frames = _FrameReader(dataset, grid)
    layers: list[NDArray[np.uint16]] = []
    placed: dict[int, int] = {}
    for number in sorted(by_number):
        voxels = [frames.voxels(frame) for frame in by_number[number]]
        for value, parts in _by_value(voxels, number):
            placed[value] = _place(layers, parts, value, grid.shape)
    segments = tuple(
        Segment(
            int(item.SegmentNumber),
            str(item.get("SegmentLabel", "")).strip(),
            _rgb(item),
            placed.get(int(item.SegmentNumber), 0),
        )
        for item in dataset.SegmentSequence
    )
    if not layers:
        layers.append(np.zeros(grid.shape, np.uint16))
    return Segmentation(tuple(layers), segments, private_record(dataset))


def referenced_series(dataset: Dataset) -> str | None:
    """SeriesInstanceUID of the image that a SEG's header refers to, or None."""
    for item in dataset.get("ReferencedSeriesSequence") or []:
        return str(item.SeriesInstanceUID)
    return None


Voxels = tuple[NDArray[np.intp], NDArray[np.uint16]]
"""(N, 3) voxel indices and their (N,) values."""


class _FrameReader:
    """Decodes one frame at a time and says which voxels of the image it marks."""

    def __init__(self, dataset: Dataset, grid: SeriesGrid) -> None:
        self._dataset, self._grid = dataset, grid
        self._to_voxel = np.linalg.inv(grid.affine)
        self._rows, self._columns = int(dataset.Rows), int(dataset.Columns)
        meta = getattr(dataset, "file_meta", None)
        compressed = meta is not None and meta.TransferSyntaxUID.is_compressed
        self._bits = int(dataset.BitsAllocated)
        self._decoded = dataset.pixel_array if compressed else None

    def voxels(self, frame: int) -> Voxels:
        pixels = self._pixels(frame)
        rows, columns = np.nonzero(pixels)
        matrix = self._to_voxel @ _frame_affine(self._dataset, frame)
        index = np.column_stack([columns, rows, np.ones_like(rows)]) @ matrix[:3].T
        nearest = np.rint(index)
        inside = ((nearest >= 0) & (nearest < self._grid.shape)).all(axis=1)
        if len(index) and (np.abs(index - nearest).max() > _TOLERANCE or not inside.all()):
            raise ValueError(
                f"DICOM segmentation: frame {frame + 1} lies at voxel "
                f"{np.round(index[0], 3).tolist()} of an image of {self._grid.shape} voxels; "
                "expected whole voxels inside it. Was it drawn on another series?"
            )
        return nearest.astype(np.intp), pixels[rows, columns]

    def _pixels(self, frame: int) -> NDArray[np.uint16]:
        size = self._rows * self._columns
        if self._decoded is not None:
            values = self._decoded if self._decoded.ndim == 2 else self._decoded[frame]
        elif self._bits == 1:
            first, last = frame * size, (frame + 1) * size
            data = np.frombuffer(self._dataset.PixelData, np.uint8, -(-last // 8) - first // 8,
                                 first // 8)  # fmt: skip
            bits = np.unpackbits(data, bitorder="little")[first % 8 : first % 8 + size]
            values = bits.reshape(self._rows, self._columns)
        else:
            dtype = np.dtype(np.uint8 if self._bits == 8 else "<u2")
            data = np.frombuffer(
                self._dataset.PixelData, dtype, size, frame * size * dtype.itemsize
            )
            values = data.reshape(self._rows, self._columns)
        if str(self._dataset.get("SegmentationType")) == "FRACTIONAL":
            values = values.astype(np.uint16) * 2 > int(
                self._dataset.get("MaximumFractionalValue", 1)
            )
        return np.asarray(values, np.uint16)


def _by_value(frames: Iterable[Voxels], number: int) -> Iterator[tuple[int, list[Voxels]]]:
    """A segment's voxels; the frames of a label map (number 0) hold many segments."""
    parts = list(frames)
    if number:
        yield number, parts
        return
    present = np.unique(np.concatenate([values for _, values in parts]))
    for value in present:
        yield int(value), [(index[v == value], v[v == value]) for index, v in parts]


def _place(
    layers: list[NDArray[np.uint16]],
    parts: Sequence[Voxels],
    value: int,
    shape: tuple[int, int, int],
) -> int:
    """Write a segment into the first layer where nothing is in its way."""
    index = tuple(np.concatenate([i for i, _ in parts]).T)
    for n, layer in enumerate(layers):
        if not layer[index].any():
            layer[index] = value
            return n
    layers.append(np.zeros(shape, np.uint16))
    layers[-1][index] = value
    return len(layers) - 1


def _group(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """A functional group macro of a frame: its own, or the one all frames share."""
    own = dataset.get("PerFrameFunctionalGroupsSequence")
    for item in ([own[frame]] if own else []) + list(
        dataset.get("SharedFunctionalGroupsSequence") or []
    ):
        if item.get(keyword):
            macro: Dataset = item[keyword].value[0]
            return macro
    return None


def _segment_of(dataset: Dataset, frame: int) -> int:
    macro = _group(dataset, frame, "SegmentIdentificationSequence")
    if macro is None:
        raise ValueError(f"DICOM segmentation: frame {frame + 1} names no segment")
    return int(macro.ReferencedSegmentNumber)


def _frame_affine(dataset: Dataset, frame: int) -> NDArray[np.float64]:
    """(4, 3): [column, row, 1] of a frame to patient coordinates."""
    place = _group(dataset, frame, "PlanePositionSequence")
    turn = _group(dataset, frame, "PlaneOrientationSequence")
    measures = _group(dataset, frame, "PixelMeasuresSequence")
    if place is None or turn is None or measures is None:
        raise ValueError(
            f"DICOM segmentation: frame {frame + 1} has no position, orientation or spacing"
        )
    orientation = np.array([float(v) for v in turn.ImageOrientationPatient])
    row_spacing, column_spacing = (float(v) for v in measures.PixelSpacing)
    matrix = np.zeros((4, 3))
    matrix[:3, 0] = orientation[:3] * column_spacing
    matrix[:3, 1] = orientation[3:] * row_spacing
    matrix[:3, 2] = [float(v) for v in place.ImagePositionPatient]
    matrix[3, 2] = 1
    return matrix


def _rgb(item: Dataset) -> tuple[int, int, int] | None:
    from skimage.color import lab2rgb

    value = item.get("RecommendedDisplayCIELabValue")
    if not value:
        return None
    l, a, b = (float(v) / 65535 for v in value)  # noqa: E741
    rgb = lab2rgb(np.array([l * 100, a * 255 - 128, b * 255 - 128]))
    red, green, blue = (int(v) for v in np.clip(np.rint(rgb * 255), 0, 255))
    return red, green, blue
