"""Image series: what the export writes for viewers, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless

from lib.dicom.export import export_series
from lib.dicom.series import read_headers, read_sections, series_grid, volume_dtype

VOXEL_NM = (4.0, 5.0, 40.0)


def volume(dtype: type = np.uint8, shape: tuple[int, int, int] = (7, 5, 4)) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(3).integers(0, top, shape, endpoint=True).astype(dtype)


def export(image: np.ndarray, folder: Path, **options):  # type: ignore[no-untyped-def]
    settings = {"item_id": "piece 1", "voxel_size_nm": VOXEL_NM, "window": (10.0, 200.0)} | options
    return export_series(image, folder, **settings)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_volume_survives_the_way_there_and_back(tmp_path: Path, dtype: type) -> None:
    image = volume(dtype)
    series = export(image, tmp_path)
    grid = read_headers(tmp_path)
    back = np.stack(list(read_sections(series.files, grid)), axis=2)
    assert back.dtype == volume_dtype(grid) == np.dtype(dtype)
    np.testing.assert_array_equal(back, image)
    assert grid.shape == image.shape
    assert grid.series_uid == series.series_uid


def test_another_reader_sees_the_same_voxels_in_the_same_order(tmp_path: Path) -> None:
    """The stock server reads series with GDCM; a viewer's voxel [i, j, k] must be ours."""
    image = volume(np.uint16)
    export(image, tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    seen = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(seen).T, image)
    assert seen.GetSpacing() == pytest.approx(VOXEL_NM)


def test_what_the_viewers_need_is_in_the_files(tmp_path: Path) -> None:
    series = export(volume(), tmp_path, record={"split": "train"})
    headers = [pydicom.dcmread(f) for f in series.files]
    depth = [float(h.ImagePositionPatient[2]) for h in headers]
    assert depth == [0, 40, 80, 120]
    assert [int(h.InstanceNumber) for h in headers] == [4, 3, 2, 1], "must run against z"
    first = headers[0]
    assert [float(v) for v in first.PixelSpacing] == [5.0, 4.0], "rows first"
    assert min(float(v) for v in first.PixelSpacing) >= 4e-4, "OHIF stays black below"
    assert (first.Modality, float(first.WindowCenter), float(first.WindowWidth)) == ("CT", 105, 190)
    record = read_headers(tmp_path).record()
    assert record == {"split": "train", "voxel_size_nm": list(VOXEL_NM), "id": "piece 1"}


def test_same_volume_same_identifiers_changed_volume_new_ones(tmp_path: Path) -> None:
    image = volume()
    once, twice = export(image, tmp_path / "a"), export(image, tmp_path / "b")
    image[0, 0, 0] ^= 1
    changed = export(image, tmp_path / "c")
    assert (once.study_uid, once.series_uid) == (twice.study_uid, twice.series_uid)
    assert [f.read_bytes() for f in once.files] == [f.read_bytes() for f in twice.files]
    assert changed.series_uid != once.series_uid


def test_one_section_and_other_modalities(tmp_path: Path) -> None:
    image = volume(shape=(6, 5, 1))
    series = export(image, tmp_path, modality="OT")
    grid = read_headers(tmp_path)
    assert grid.shape == (6, 5, 1)
    assert grid.spacing_mm == pytest.approx(VOXEL_NM)
    assert grid.headers[0].Modality == "OT"
    np.testing.assert_array_equal(next(read_sections(series.files, grid)), image[:, :, 0])


def test_signed_values_and_foreign_series(tmp_path: Path) -> None:
    """Other people's series: signed, rescaled, stored in file-name order that means nothing."""
    image = volume(np.uint16)
    series = export(image, tmp_path)
    for path in series.files:
        ds = pydicom.dcmread(path)
        ds.PixelRepresentation, ds.RescaleIntercept, ds.RescaleSlope = 1, -1024, 2
        values = ds.pixel_array.view(np.uint16).astype(np.int64) - 32768
        ds.PixelData = values.astype("<i2").tobytes()
        ds.remove_private_tags()
        ds.save_as(path)
    back = np.stack(list(read_sections(series.files[::-1], read_headers(tmp_path))), axis=2)
    np.testing.assert_array_equal(back, image)
    assert read_headers(tmp_path).record() is None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("white", "slope"), [(True, 1), (False, -1), (True, -2)])
def test_values_that_fall_are_turned_round_as_viewers_show_them(
    tmp_path: Path, white: bool, slope: int, packed: bool
) -> None:
    image = volume(np.uint8, (8, 6, 4))
    series = export(image, tmp_path)
    for path in series.files:
        ds = pydicom.dcmread(path)
        ds.PhotometricInterpretation = "MONOCHROME1" if white else "MONOCHROME2"
        ds.RescaleSlope = slope
        if packed:
            ds.compress(RLELossless, encoding_plugin="pydicom")
        ds.save_as(path)
    back = np.stack(list(read_sections(series.files, read_headers(tmp_path))), axis=2)
    np.testing.assert_array_equal(back, image if white == (slope < 0) else 255 - image)


def test_series_that_form_no_grid_are_refused(tmp_path: Path) -> None:
    series = export(volume(), tmp_path / "a")
    other = export(volume(np.uint16), tmp_path / "b")
    headers = [pydicom.dcmread(f) for f in series.files]
    with pytest.raises(ValueError, match="a section is missing"):
        series_grid([headers[0], headers[1], headers[3]])
    with pytest.raises(ValueError, match="2 series mixed"):
        series_grid([headers[0], pydicom.dcmread(other.files[0])])
    with pytest.raises(ValueError, match="no section"):
        series_grid([])


def test_images_that_viewers_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"float32.*expected uint8 or uint16"):
        export(volume().astype(np.float32), tmp_path)
