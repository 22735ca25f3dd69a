"""Grids of DICOM series: places of voxels, and series that are no grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from lib.dicom.series import SeriesGrid, series_grid, volume_dtype

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def sections(count: int = 4, step: tuple[float, ...] = (0, 0, 40), **fields: Any) -> list[Dataset]:
    """Headers of a series of 6 rows and 9 columns, 5 mm and 4 mm apart, in a mixed order."""
    found = []
    for k in range(count):
        header = Dataset()
        header.SeriesInstanceUID, header.Rows, header.Columns = "1.2.3", 6, 9
        header.PixelSpacing, header.BitsStored = [5.0, 4.0], 8
        header.ImageOrientationPatient = list(AXIAL)
        header.ImagePositionPatient = [7.0 + k * step[0], -3.0 + k * step[1], k * step[2]]
        for name, value in fields.items():
            setattr(header, name, value)
        found.append(header)
    return [found[k] for k in np.random.default_rng(0).permutation(count)]


def places(grid: SeriesGrid) -> list[list[float]]:
    """Where the first voxel of each section lies by the grid's affine."""
    depth = range(grid.shape[2])
    return [(grid.affine @ (0, 0, k, 1))[:3].round(6).tolist() for k in depth]


def test_columns_are_x_rows_are_y_and_sections_follow_the_normal() -> None:
    grid = series_grid(sections())
    assert grid.shape == (9, 6, 4) and grid.series_uid == "1.2.3"
    assert grid.spacing_mm == pytest.approx((4.0, 5.0, 40.0))
    expected = np.array([[4, 0, 0, 7], [0, 5, 0, -3], [0, 0, 40, 0], [0, 0, 0, 1]])
    assert grid.affine == pytest.approx(expected)
    assert places(grid) == [[7.0, -3.0, 40.0 * k] for k in range(4)]


def test_sections_that_go_down_are_ordered_up() -> None:
    grid = series_grid(sections(step=(0, 0, -40)))
    assert grid.affine[2].tolist() == pytest.approx([0, 0, 40, -120])
    assert [float(h.ImagePositionPatient[2]) for h in grid.headers] == [-120, -80, -40, 0]


def test_turned_series_go_along_their_own_normal() -> None:
    """Rows down -z and columns along y, as in a sagittal series: the normal is -x."""
    turned = sections(step=(3, 0, 0), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    grid = series_grid(turned)
    assert np.linalg.det(grid.affine[:3, :3]) > 0
    assert grid.affine[:3, 0] == pytest.approx([0, 4, 0])
    assert grid.affine[:3, 1] == pytest.approx([0, 0, -5])
    assert grid.affine[:3, 2] == pytest.approx([-3, 0, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.tuples(*[st.floats(-20, 20)] * 2), st.floats(0.5, 50))
def test_every_section_lies_where_its_header_says(count, shear, depth) -> None:
    """A tilted gantry moves sections sideways, evenly."""
    headers = sections(count, (*shear, depth))
    grid = series_grid(headers)
    stated = sorted(
        ([float(v) for v in h.ImagePositionPatient] for h in headers), key=lambda p: p[2]
    )
    if count > 1:
        assert np.array(places(grid)) == pytest.approx(np.array(stated), abs=1e-5)
    else:
        assert places(grid)[0] == pytest.approx(stated[0], abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "thickness"),
    [
        ({"SpacingBetweenSlices": 3.0, "SliceThickness": 2.0}, 3.0),
        ({"SliceThickness": 2.0}, 2.0),
        ({}, 1.0),
        ({"SliceThickness": None}, 1.0),
    ],
)
def test_a_section_alone_is_as_thick_as_it_says(fields, thickness) -> None:
    grid = series_grid(sections(1, **fields))
    assert grid.spacing_mm == pytest.approx((4.0, 5.0, thickness))


@pytest.mark.parametrize(("bits", "dtype"), [(1, np.uint8), (8, np.uint8), (9, np.uint16)])
def test_voxels_are_as_wide_as_their_bits(bits: int, dtype: type) -> None:
    assert volume_dtype(series_grid(sections(BitsStored=bits))) == dtype


NEEDED = ["Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"]


@pytest.mark.parametrize("name", [*NEEDED, "SeriesInstanceUID", "BitsStored"])
def test_a_section_that_does_not_say_where_it_lies_is_refused(name: str) -> None:
    """Scanned pictures and screenshots are DICOM, too."""
    headers = sections()
    delattr(headers[2], name)
    with pytest.raises(ValueError, match=f"a section has no {name}; expected an image series"):
        series_grid(headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]),
        ("ImageOrientationPatient", [-1, 0, 0, 0, 1, 0]),
        ("PixelSpacing", [5.0, 8.0]),
        ("PixelSpacing", [10.0, 4.0]),
        ("BitsStored", 16),
    ],
)
def test_a_section_of_another_grid_is_refused(name: str, value: Any) -> None:
    """A localizer lies across the others; a section of more bits would be cut."""
    headers = sections()
    setattr(headers[2], name, value)
    with pytest.raises(ValueError, match=f"sections of different {name}, expected one grid"):
        series_grid(headers)


def test_directions_may_differ_by_what_rounding_does() -> None:
    headers = sections()
    headers[1].ImageOrientationPatient = [1.0, 0.00001, 0.0, 0.0, 1.0, 0.0]
    assert series_grid(headers).shape == (9, 6, 4)


@pytest.mark.parametrize(
    ("places", "told"),
    [((0, 40, 120), "40 to 80 apart"), ((0, 40, 40), "0 to 40 apart"), ((0, 40, 80.9), "apart")],
)
def test_uneven_sections_are_refused(places, told: str) -> None:
    headers = sections(3)
    for header, z in zip(headers, places, strict=True):
        header.ImagePositionPatient = [0.0, 0.0, z]
    with pytest.raises(ValueError, match=f"{told}.*a section is missing or doubled"):
        series_grid(headers)


def test_sections_that_are_nearly_even_are_a_grid() -> None:
    headers = sections(3)
    for header, z in zip(headers, (0, 40, 80.3), strict=True):
        header.ImagePositionPatient = [0.0, 0.0, z]
    assert series_grid(headers).spacing_mm[2] == pytest.approx(40.15)


def test_sections_of_other_sizes_are_refused() -> None:
    headers = sections()
    headers[0].Rows = 7
    with pytest.raises(ValueError, match=r"different sizes \(rows, columns\)"):
        series_grid(headers)
