"""Label maps as DICOM segmentations (SEG) that refer to the sections of their image.

Reading them back: lib/dicom/seg_read.py. BINARY segmentations are written, because
OHIF cannot load label maps (LABELMAP).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from lib.dicom.export import MANUFACTURER
from lib.dicom.series import PRIVATE_CREATOR, PRIVATE_GROUP, RECORD_ELEMENT, SeriesGrid

MAX_SEGMENTS = 65535  # segment numbers are unsigned 16-bit
_CATEGORY = CodedConcept("123037004", "SCT", "Anatomical Structure")
_TYPE = CodedConcept("4421005", "SCT", "Cell structure")


@dataclass(frozen=True)
class Segment:
    """One named segment of a label map.

    Args:
        value: its voxels' value in `layer` (writing: any positive value; reading: the
            segment number in the file).
        label: SegmentLabel, by which its meaning is found.
        color: RGB 0..255, or None.
        layer: which of the layers holds it; segments that overlap lie in different ones.
    """

    value: int
    label: str
    color: tuple[int, int, int] | None = None
    layer: int = 0


def seg_bytes(labels: NDArray[np.integer[Any]]) -> int:
    """How large the pixel data of a SEG of this map gets: one bit for each voxel of each
    section of each segment that occurs there."""
    x, y, depth = labels.shape
    frames = sum(np.count_nonzero(np.unique(labels[:, :, k])) for k in range(depth))
    return int(frames) * x * y // 8


def write_seg(
    path: Path | str,
    labels: NDArray[np.integer[Any]],
    segments: Sequence[Segment],
    grid: SeriesGrid,
    *,
    description: str = "Neuropil labels",
    note: Mapping[str, Any] | None = None,
) -> str:
    """Write a label map as a BINARY SEG that refers to the image's sections.

    Args:
        labels: (X, Y, Z) on the image's grid, 0 none; every other value has a segment.
        segments: values and labels; those without voxels are left out of the file.
        note: small JSON kept in a private element, for what segments cannot say.

    Returns:
        The new SeriesInstanceUID.

    Raises:
        ValueError: another shape than the image's, a value without a segment, no voxel at
            all, or more segments than the format can number.
    """
    present = _checked_values(labels, segments, grid)
    named = {s.value: s for s in segments}
    numbers = np.zeros(int(labels.max()) + 1, np.uint16)
    numbers[present] = np.arange(1, len(present) + 1)
    frames = np.ascontiguousarray(numbers[labels].transpose(2, 1, 0))
    seg = _dataset(frames, [named[int(v)].label for v in present], grid, description)
    for item, value in zip(seg.SegmentSequence, present, strict=True):
        if (color := named[int(value)].color) is not None:
            item.RecommendedDisplayCIELabValue = _cielab(color)
    block = seg.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(RECORD_ELEMENT, "UT", json.dumps(dict(note or {})))
    seg.save_as(Path(path))
    return str(seg.SeriesInstanceUID)


def _dataset(
    frames: NDArray[np.uint16], labels: Sequence[str], grid: SeriesGrid, description: str
) -> hd.seg.Segmentation:
    """The SEG of (Z, Y, X) segment numbers 1..N with these labels."""
    return hd.seg.Segmentation(
        # highdicom wants elements in the headers that other people's files lack
        source_images=[_with_required_elements(header) for header in grid.headers],
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(n, label) for n, label in enumerate(labels, 1)],
        series_instance_uid=str(generate_uid()),
        series_number=300,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions="1",
        device_serial_number="1",
        content_label="LABELS",
        content_description=description[:64],
        series_description=description[:64],
        omit_empty_frames=True,
    )


def _checked_values(
    labels: NDArray[np.integer[Any]], segments: Sequence[Segment], grid: SeriesGrid
) -> NDArray[np.integer[Any]]:
    if labels.shape != grid.shape:
        raise ValueError(f"label of shape {labels.shape} for an image of shape {grid.shape}")
    present = np.unique(labels)
    present = np.asarray(present[present != 0])
    if missing := sorted(set(present.tolist()) - {s.value for s in segments}):
        raise ValueError(f"label values without a segment: {missing[:10]}")
    if not 0 < len(present) <= MAX_SEGMENTS:
        raise ValueError(f"{len(present)} segments, expected 1 to {MAX_SEGMENTS}")
    return present


def _description(number: int, label: str) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label[:64],
        segmented_property_category=_CATEGORY,
        segmented_property_type=_TYPE,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def _with_required_elements(header: Dataset) -> Dataset:
    source = Dataset()
    source.update(header)
    for keyword in ("AccessionNumber", "PatientBirthDate", "PatientSex", "StudyID",
                    "ReferringPhysicianName", "StudyDate", "StudyTime", "PatientName",
                    "PatientID"):  # fmt: skip
        if keyword not in source:
            setattr(source, keyword, "")
    return source


def _cielab(color: tuple[int, int, int]) -> list[int]:
    from skimage.color import rgb2lab

    l, a, b = rgb2lab(np.array(color, np.float64) / 255)  # noqa: E741
    scaled = (l / 100 * 65535, (a + 128) / 255 * 65535, (b + 128) / 255 * 65535)
    return [int(np.clip(round(v), 0, 65535)) for v in scaled]
