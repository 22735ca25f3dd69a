"""Grids of regions: where they are cut, which of them a box meets, what sums they take."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.queries.regions import RegionGrid, centre
from lib.volumes.boxes import Box, Triple, box_shape, box_slices

SHAPES = st.tuples(*[st.integers(1, 12)] * 3)


@st.composite
def grids_and_boxes(draw: st.DrawFn) -> tuple[RegionGrid, Box]:
    """A grid, and a box with at least one voxel of it."""
    shape, region = draw(SHAPES), draw(st.tuples(*[st.integers(1, 7)] * 3))
    spans = []
    for n in shape:
        low = draw(st.integers(0, n - 1))
        spans.append((low, draw(st.integers(low + 1, n))))
    return RegionGrid.of(shape, region), (spans[0], spans[1], spans[2])


def test_edges_by_hand() -> None:
    """Ten voxels by at most four are three cells, as equal as whole voxels allow."""
    grid = RegionGrid.of((10, 4, 3), (4, 4, 2))
    assert [e.tolist() for e in grid.edges] == [[0, 3, 7, 10], [0, 4], [0, 2, 3]]
    assert grid.shape == (10, 4, 3) and grid.cells == (3, 1, 2) and grid.count == 6
    assert grid.voxels.tolist() == [3 * 4 * 2, 3 * 4, 4 * 4 * 2, 4 * 4, 3 * 4 * 2, 3 * 4]
    assert grid.box(0) == ((0, 3), (0, 4), (0, 2))
    assert grid.box(3) == ((3, 7), (0, 4), (2, 3)), "z runs fastest"
    assert all(isinstance(v, int) for span in grid.box(3) for v in span), "they go into JSON"


def test_a_region_larger_than_the_volume_is_all_of_it() -> None:
    grid = RegionGrid.of((1, 5, 2), (64, 64, 16))
    assert grid.count == 1 and grid.box(0) == ((0, 1), (0, 5), (0, 2))
    assert grid.voxels.tolist() == [10]


@settings(max_examples=40)
@given(shape=SHAPES, region=st.tuples(*[st.integers(1, 7)] * 3))
def test_cells_are_as_few_as_can_be_and_differ_by_one_voxel(shape: Triple, region: Triple) -> None:
    grid = RegionGrid.of(shape, region)
    for edges, n, most in zip(grid.edges, shape, region, strict=True):
        sides = np.diff(edges)
        assert edges[0] == 0 and edges[-1] == n and len(sides) == math.ceil(n / most)
        assert sides.min() >= 1 and sides.max() <= min(most, sides.min() + 1)
    assert grid.voxels.sum() == math.prod(shape)
    for region_id in range(grid.count):
        assert grid.voxels[region_id] == math.prod(box_shape(grid.box(region_id)))


@settings(max_examples=40)
@given(grids_and_boxes())
def test_a_box_meets_the_regions_whose_voxels_it_has(made: tuple[RegionGrid, Box]) -> None:
    grid, box = made
    number = np.zeros(grid.shape, np.int64)
    for region in range(grid.count):
        number[box_slices(grid.box(region))] = region
    assert grid.overlapping(box).tolist() == np.unique(number[box_slices(box)]).tolist()


@settings(max_examples=40)
@given(grids_and_boxes(), st.integers(0, 9))
def test_sums_of_boxes_add_up_channel_by_channel(made: tuple[RegionGrid, Box], seed: int) -> None:
    grid, box = made
    values = np.random.default_rng(seed).integers(0, 50, (3, *grid.shape)).astype(np.float32)
    inside = values[(slice(None), *box_slices(box))]
    found = grid.sums(inside, box)
    assert found.shape == (3, grid.count) and found.dtype == np.float64
    only = np.zeros_like(values)
    only[(slice(None), *box_slices(box))] = inside
    for region in range(grid.count):
        expected = only[(slice(None), *box_slices(grid.box(region)))].sum((1, 2, 3))
        assert found[:, region].tolist() == expected.tolist()


def test_sums_take_views_that_are_not_contiguous() -> None:
    grid = RegionGrid.of((4, 6, 2), (2, 3, 2))
    values = np.arange(48, dtype=np.float32).reshape(1, 2, 6, 4)
    turned = values.transpose(0, 3, 2, 1)
    whole: Box = ((0, 4), (0, 6), (0, 2))
    assert np.array_equal(grid.sums(turned, whole), grid.sums(turned.copy(), whole))
    assert grid.sums(turned, whole).sum() == values.sum()


@pytest.mark.parametrize(
    ("box", "middle"),
    [
        (((0, 1), (3, 4), (7, 8)), (0, 3, 7)),
        (((0, 2), (0, 3), (5, 9)), (0, 1, 6)),
        (((8, 16), (0, 8), (2, 4)), (11, 3, 2)),
    ],
)
def test_the_centre_is_a_voxel_of_the_box(box: Box, middle: Triple) -> None:
    assert centre(box) == middle
    assert all(low <= v < high for v, (low, high) in zip(middle, box, strict=True))
