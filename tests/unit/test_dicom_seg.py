"""Segmentations: every voxel in its segment on the image's own grid, whoever wrote the file."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.dicom.export import export_series
from lib.dicom.seg import Segment, seg_bytes, write_seg
from lib.dicom.seg_read import Segmentation, read_seg, referenced_series
from lib.dicom.series import SeriesGrid, read_headers

SHAPE = (9, 7, 6)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> SeriesGrid:
    folder = tmp_path_factory.mktemp("series")
    image = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    export_series(image, folder, item_id="a", voxel_size_nm=(4.0, 5.0, 40.0), window=(0.0, 255.0))
    return read_headers(folder)


def by_label(seg: Segmentation) -> dict[str, np.ndarray]:
    return {s.label: seg.layers[s.layer] == s.value for s in seg.segments}


def other_writer(
    grid: SeriesGrid, pixels: np.ndarray, kind: str, names: list[str]
) -> hd.seg.Segmentation:
    """A SEG by highdicom's own defaults."""
    category = hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    kinds = hd.sr.CodedConcept("4421005", "SCT", "Cell structure")
    return hd.seg.Segmentation(
        source_images=list(grid.headers),
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[
            hd.seg.SegmentDescription(i, name, category, kinds, "MANUAL")
            for i, name in enumerate(names, 1)
        ],
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )


def labels_with_gaps() -> np.ndarray:
    """Values with gaps and no order, the first and the last section empty."""
    labels = np.zeros(SHAPE, np.uint32)
    labels[1:3, 2:5, 1:4] = 40
    labels[5:8, 0:3, 2:5] = 7
    labels[5, 5, 3] = 300
    return labels


NAMES = {40: "axon 17", 7: "mitochondria", 300: "glia", 9: "never painted"}


def test_labels_survive_the_way_there_and_back(tmp_path: Path, grid: SeriesGrid) -> None:
    labels = labels_with_gaps()
    segments = [Segment(v, n, (200, 60, 10 * i)) for i, (v, n) in enumerate(NAMES.items())]
    uid = write_seg(tmp_path / "seg.dcm", labels, segments, grid, note={"fully_annotated": True})
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert dataset.SeriesInstanceUID == uid
    assert referenced_series(dataset) == grid.series_uid
    assert dataset.SegmentationType == "BINARY"
    back = read_seg(tmp_path / "seg.dcm", grid)
    assert len(back.layers) == 1
    found = by_label(back)
    assert set(found) == {"axon 17", "mitochondria", "glia"}
    for value, name in list(NAMES.items())[:3]:
        np.testing.assert_array_equal(found[name], labels == value)
    assert back.note == {"fully_annotated": True}
    for i, name in enumerate(["axon 17", "mitochondria", "glia"]):
        color = next(s.color for s in back.segments if s.label == name)
        assert np.abs(np.subtract(color, (200, 60, 10 * i))).max() <= 2, "CIELab and back"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_any_label_map(
    grid: SeriesGrid, tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice(5000, count, replace=False) + 1
    labels = rng.choice(np.append(values, [0] * count), SHAPE).astype(np.uint32)
    labels[0, 0, 0] = values[0]
    path = tmp_path_factory.mktemp("any") / "seg.dcm"
    write_seg(path, labels, [Segment(int(v), f"axon {v}") for v in values], grid)
    found = by_label(read_seg(path, grid))
    again = sum(np.where(mask, int(name.split()[1]), 0) for name, mask in found.items())
    np.testing.assert_array_equal(again, labels)


def test_more_than_255_objects(tmp_path: Path, grid: SeriesGrid) -> None:
    labels = np.zeros(SHAPE, np.uint32)
    labels.flat[:320] = np.arange(1000, 1320)
    write_seg(
        tmp_path / "s.dcm", labels, [Segment(v, f"axon {v}") for v in range(1000, 1320)], grid
    )
    found = by_label(read_seg(tmp_path / "s.dcm", grid))
    assert len(found) == 320
    assert all((labels[mask] == int(name.split()[1])).all() for name, mask in found.items())
    assert sum(int(mask.sum()) for mask in found.values()) == 320


def test_sections_in_another_order_and_renumbered_segments(
    tmp_path: Path, grid: SeriesGrid
) -> None:
    """What dcmqi and highdicom do: other section order, empty sections dropped, own numbers."""
    labels = labels_with_gaps()
    segments = [Segment(v, n) for v, n in NAMES.items()]
    write_seg(tmp_path / "a.dcm", labels, segments, grid)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    frames = [ds.pixel_array[i] for i in range(ds.NumberOfFrames)][::-1]
    ds.PerFrameFunctionalGroupsSequence = list(ds.PerFrameFunctionalGroupsSequence)[::-1]
    ds.PixelData = np.packbits(
        np.stack(frames).astype(np.uint8).ravel(), bitorder="little"
    ).tobytes()
    found = by_label(read_seg(ds, grid))
    np.testing.assert_array_equal(found["glia"], labels == 300)
    np.testing.assert_array_equal(found["mitochondria"], labels == 7)


def test_overlapping_segments_come_in_layers(tmp_path: Path, grid: SeriesGrid) -> None:
    soma, nucleus = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    soma[1:7, 1:6, 1:5] = True
    nucleus[3:5, 2:4, 2:4] = True
    stack = np.stack([soma, nucleus], axis=-1).transpose(2, 1, 0, 3).astype(np.uint8)
    seg = other_writer(grid, stack, "BINARY", ["soma", "nucleus"])
    back = read_seg(seg, grid)
    assert len(back.layers) == 2
    np.testing.assert_array_equal(by_label(back)["soma"], soma)
    np.testing.assert_array_equal(by_label(back)["nucleus"], nucleus)


def test_fractional_segmentations_are_cut_at_half(tmp_path: Path, grid: SeriesGrid) -> None:
    share = np.linspace(0, 1, int(np.prod(SHAPE))).reshape(SHAPE)
    pixels = np.ascontiguousarray(share.transpose(2, 1, 0))[..., None]
    seg = other_writer(grid, pixels, "FRACTIONAL", ["axon"])
    found = by_label(read_seg(seg, grid))["axon"]
    sure = np.abs(share - 0.5) > 0.01
    np.testing.assert_array_equal(found[sure], (share > 0.5)[sure])


def test_flipped_frames_land_where_their_orientation_says(tmp_path: Path, grid: SeriesGrid) -> None:
    labels = labels_with_gaps()
    write_seg(tmp_path / "a.dcm", labels, [Segment(v, n) for v, n in NAMES.items()], grid)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    turned = ds.pixel_array[:, :, ::-1].astype(np.uint8)
    ds.PixelData = np.packbits(turned.ravel(), bitorder="little").tobytes()
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    for frame in ds.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        x, y, z = place.ImagePositionPatient
        place.ImagePositionPatient = [float(x) + 4 * (SHAPE[0] - 1), y, z]
    np.testing.assert_array_equal(by_label(read_seg(ds, grid))["glia"], labels == 300)


def test_what_is_no_label_of_this_image_is_refused(tmp_path: Path, grid: SeriesGrid) -> None:
    labels = labels_with_gaps()
    segments = [Segment(v, n) for v, n in NAMES.items()]
    write_seg(tmp_path / "a.dcm", labels, segments, grid)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[2] += 13
    with pytest.raises(ValueError, match="another series"):
        read_seg(ds, grid)
    with pytest.raises(ValueError, match="expected SEG"):
        read_seg(grid.headers[0], grid)
    with pytest.raises(ValueError, match="without a segment: \\[7, 40\\]"):
        write_seg(tmp_path / "b.dcm", labels, [Segment(300, "glia")], grid)
    with pytest.raises(ValueError, match="0 segments"):
        write_seg(tmp_path / "b.dcm", np.zeros_like(labels), segments, grid)
    with pytest.raises(ValueError, match="for an image of shape"):
        write_seg(tmp_path / "b.dcm", labels[1:], segments, grid)


def test_size_is_foretold(tmp_path: Path, grid: SeriesGrid) -> None:
    labels = labels_with_gaps()
    write_seg(tmp_path / "a.dcm", labels, [Segment(v, n) for v, n in NAMES.items()], grid)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert abs(len(ds.PixelData) - seg_bytes(labels)) <= ds.NumberOfFrames
