"""Image series in DICOM: their voxel grid and their sections.

Voxel order: section k of the series, ordered along the normal, is [:, :, k] of the volume;
columns are x and rows are y. What is written for viewers: see lib/dicom/export.py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

PRIVATE_GROUP = 0x0071
PRIVATE_CREATOR = "NEUROPIL"
RECORD_ELEMENT = 0x01
_NEEDED = (
    "SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "BitsStored",
    "ImageOrientationPatient", "ImagePositionPatient",
)  # fmt: skip
"""What each section must say for a series to be a grid."""
_ALIKE = {"ImageOrientationPatient": 1e-3, "PixelSpacing": 1e-6, "BitsStored": 0.0}
"""What all sections say alike, and how far they may differ: a localizer lies across."""


@dataclass(frozen=True)
class SeriesGrid:
    """The voxel grid of an image series, from its headers.

    Args:
        headers: one dataset for each section, ordered along the normal; pixels not needed.
    """

    headers: tuple[Dataset, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z) in voxels."""
        first = self.headers[0]
        return int(first.Columns), int(first.Rows), len(self.headers)

    @property
    def series_uid(self) -> str:
        """The SeriesInstanceUID of the headers."""
        return str(self.headers[0].SeriesInstanceUID)

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): voxel [i, j, k, 1] to the patient coordinates (LPS, mm) in the files."""
        first = self.headers[0]
        across, down = _directions(first)
        row_spacing, column_spacing = (float(v) for v in first.PixelSpacing)
        matrix = np.eye(4)
        matrix[:3, 0] = across * column_spacing
        matrix[:3, 1] = down * row_spacing
        matrix[:3, 2] = self._step()
        matrix[:3, 3] = _position(first)
        return matrix

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(x, y, z) lengths of a voxel as written in the files."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def record(self) -> dict[str, Any] | None:
        """The record that our export wrote, or None for other people's series."""
        return private_record(self.headers[0])

    def _step(self) -> NDArray[np.float64]:
        first = self.headers[0]
        if len(self.headers) > 1:
            last = _position(self.headers[-1])
            return (last - _position(first)) / (len(self.headers) - 1)
        thickness = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0)
        return np.cross(*_directions(first)) * thickness


def series_grid(headers: Iterable[Dataset]) -> SeriesGrid:
    """Order a series' headers along the normal and check that they form a grid.

    Raises:
        ValueError: no section, several series, sections without a place, of different size,
            direction, pixel spacing or bits, or unevenly spaced.
    """
    found = list(headers)
    if not found:
        raise ValueError("DICOM series: no section found, expected at least one file")
    for header in found:
        if lacking := [name for name in _NEEDED if header.get(name) is None]:
            raise ValueError(
                f"DICOM series: a section has no {', '.join(lacking)}; expected an image series, "
                "whose sections say where they lie"
            )
    if len(series := {str(h.SeriesInstanceUID) for h in found}) > 1:
        raise ValueError(f"DICOM: {len(series)} series mixed, expected one; pass them one by one")
    if len(sizes := {(int(h.Rows), int(h.Columns)) for h in found}) > 1:
        raise ValueError(f"DICOM series: sections of different sizes (rows, columns) {sizes}")
    for name, tolerance in _ALIKE.items():
        if np.ptp([np.array(h.get(name), float) for h in found], axis=0).max() > tolerance:
            raise ValueError(
                f"DICOM series {found[0].SeriesInstanceUID}: sections of different {name}, "
                "expected one grid; split the series"
            )
    normal = np.cross(*_directions(found[0]))
    found.sort(key=lambda h: float(_position(h) @ normal))
    depth = np.array([_position(h) @ normal for h in found])
    steps = np.diff(depth)
    if len(steps) and (steps.min() <= 0 or np.ptp(steps) > 0.01 * steps.mean()):
        raise ValueError(
            f"DICOM series {found[0].SeriesInstanceUID}: sections {steps.min():g} to "
            f"{steps.max():g} apart, expected one spacing; a section is missing or doubled"
        )
    return SeriesGrid(tuple(found))


def read_headers(folder: Path | str) -> SeriesGrid:
    """The grid of the one series in a folder of files, without reading pixels.

    Raises:
        ValueError: what `series_grid` refuses.
    """
    files = sorted(p for p in Path(folder).iterdir() if p.is_file())
    return series_grid(pydicom.dcmread(p, stop_before_pixels=True) for p in files)


def read_sections(files: Sequence[Path], grid: SeriesGrid) -> Iterator[NDArray[Any]]:
    """Yield the sections of a series as (X, Y) arrays in the grid's order, one in memory."""
    by_uid = {}
    for path in files:
        uid = pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
        by_uid[str(uid)] = path
    dtype = volume_dtype(grid)
    for header in grid.headers:
        yield stored_section(pydicom.dcmread(by_uid[str(header.SOPInstanceUID)]), dtype)


def stored_section(dataset: Dataset, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One section's stored values, (X, Y); signed ones are shifted to start at zero.

    Of the file's rescale only a falling slope counts: contrast is normalised per item. It and
    values of which the least is white are turned round, as viewers show them.

    Args:
        dtype: `volume_dtype` of its series.
    """
    stored = _stored_values(dataset)
    if int(dataset.PixelRepresentation):
        stored = stored.astype(np.int64) + 2 ** (int(dataset.BitsStored) - 1)
    if _falling(dataset):
        stored = 2 ** int(dataset.BitsStored) - 1 - stored.astype(np.int64)
    return np.ascontiguousarray(stored.T, dtype=dtype)


def volume_dtype(grid: SeriesGrid) -> np.dtype[Any]:
    """uint8 where every stored value fits, else uint16: the type of `read_sections`."""
    return np.dtype(np.uint8 if int(grid.headers[0].BitsStored) <= 8 else np.uint16)


def private_record(dataset: Dataset) -> dict[str, Any] | None:
    """What our writers left in the private element of an image or a segmentation."""
    try:
        block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    except KeyError:
        return None
    if RECORD_ELEMENT not in block:
        return None
    value = block[RECORD_ELEMENT].value
    record = json.loads(value.decode() if isinstance(value, bytes) else value)
    return dict(record)


def _stored_values(dataset: Dataset) -> NDArray[Any]:
    """(Y, X) stored values."""
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return np.asarray(dataset.pixel_array)
    import SimpleITK as sitk  # its GDCM decodes what pydicom alone cannot, and rescales

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "section.dcm"
        dataset.save_as(path, write_like_original=False)
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0].astype(np.float64)
    slope = float(dataset.get("RescaleSlope") or 1)
    return np.asarray(np.rint((values - float(dataset.get("RescaleIntercept") or 0)) / slope))


def _falling(dataset: Dataset) -> bool:
    """Whether higher stored values are darker."""
    # GDCM has turned compressed ones round already.
    packed = dataset.file_meta.TransferSyntaxUID.is_compressed
    white = dataset.get("PhotometricInterpretation") == "MONOCHROME1" and not packed
    return white != (float(dataset.get("RescaleSlope") or 1) < 0)


def _directions(header: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    orientation = np.array([float(v) for v in header.ImageOrientationPatient])
    return orientation[:3], orientation[3:]


def _position(header: Dataset) -> NDArray[np.float64]:
    return np.array([float(v) for v in header.ImagePositionPatient])
