"""Boxes as sets of voxels; slabs and tiles cover a box once; boxes in words."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    box_slices,
    check_box,
    contains,
    describe_box,
    fill_box,
    hull,
    intersect,
    minus,
    parse_box,
    shift_box,
    show_box,
    slabs,
    tile_boxes,
    whole_box,
)

SPANS = st.tuples(st.integers(0, 9), st.integers(1, 5)).map(lambda p: (p[0], p[0] + p[1]))
BOXES = st.tuples(SPANS, SPANS, SPANS)


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    budget=st.integers(1, 20000),
    multiple=st.integers(1, 9),
    start=st.integers(0, 20),
)
def test_slabs_cover_a_box_once(shape, budget, multiple, start):
    box = whole_box(shape, (0, 0, start))
    parts = list(slabs(box, 2, budget, multiple))
    assert parts[0][2][0] == start and parts[-1][2][1] == start + shape[2]
    for one, two in pairwise(parts):
        assert one[2][1] == two[2][0] > one[2][0]
        depth = (one[2][1] - one[2][0], budget // (shape[0] * shape[1] * 2))
        assert depth[1] < multiple or one[2][1] % multiple == 0
        assert depth[0] <= max(1, depth[1]) or depth[0] <= multiple
        assert depth[0] == 1 or depth[0] * shape[0] * shape[1] * 2 <= 8 * budget


def test_a_slab_stretches_to_a_chunk_but_not_to_any_size():
    box = whole_box((10, 10, 100))
    assert [s[2] for s in slabs(box, 1, 400, 20)][:2] == [(0, 20), (20, 40)]
    assert [s[2] for s in slabs(box, 1, 400, 33)][:2] == [(0, 4), (4, 8)]


@given(shape=st.tuples(*[st.integers(1, 30)] * 3), tile=st.tuples(*[st.integers(1, 12)] * 3))
def test_tiles_cover_a_box_once_and_are_not_too_large(shape, tile):
    count = np.zeros(shape, int)
    for (a, b), (c, d), (e, f) in tile_boxes(whole_box(shape), tile):
        assert b - a <= tile[0] and d - c <= tile[1] and f - e <= tile[2]
        count[a:b, c:d, e:f] += 1
    assert (count == 1).all()


def voxels(box: Box | None) -> np.ndarray:
    """The set of voxels of a box, as a mask."""
    mask = np.zeros((16, 16, 16), bool)
    if box is not None:
        mask[box_slices(box)] = True
    return mask


@given(BOXES, BOXES)
def test_boxes_are_sets_of_voxels(one: Box, other: Box):
    a, b = voxels(one), voxels(other)
    assert (voxels(intersect(one, other)) == (a & b)).all()
    assert (intersect(one, other) is None) == (not (a & b).any())
    assert contains(one, other) == bool((a | ~b).all())
    both = hull([one, other])
    assert contains(both, one) and contains(both, other)
    ends = [
        np.flatnonzero((a | b).any(tuple(k for k in range(3) if k != axis))) for axis in range(3)
    ]
    assert both == tuple((e[0], e[-1] + 1) for e in ends), "and nothing smaller does"
    assert a.sum() == np.prod(box_shape(one))


@given(BOXES, st.tuples(*[st.integers(-20, 20)] * 3))
def test_a_moved_box_comes_back(box: Box, offset: tuple[int, int, int]):
    moved = shift_box(box, offset)
    assert shift_box(moved, minus(offset)) == box and box_shape(moved) == box_shape(box)
    assert whole_box(box_shape(moved), box_origin(moved)) == moved


def test_boxes_outside_or_empty_are_a_fault_of_ours():
    check_box(((0, 4), (1, 2), (0, 1)), (4, 4, 4))
    for bad in (((0, 5), (0, 1), (0, 1)), ((-1, 2), (0, 1), (0, 1)), ((2, 2), (0, 1), (0, 1))):
        with pytest.raises(AssertionError):
            check_box(bad, (4, 4, 4))


def test_open_ends_are_filled_and_nothing_is_cut():
    bounds = ((2, 10), (0, 8), (5, 9))
    assert fill_box(parse_box("3:,:,:7"), bounds) == ((3, 10), (0, 8), (5, 7))
    assert fill_box(parse_box("0:99,1:2,5:6"), bounds) == ((0, 99), (1, 2), (5, 6))
    assert describe_box(((0, 64), (64, 128), (3, 4))) == "i 0-63, j 64-127, k 3-3"


def test_boxes_in_words():
    assert parse_box("1:2, :5,-3:") == ((1, 2), (None, 5), (-3, None))
    assert parse_box(show_box(((1, 2), (3, 4), (5, 6)))) == ((1, 2), (3, 4), (5, 6))
    for bad in ("", "1:2,3:4", "1:2,3:4,5", "a:2,3:4,5:6", "1:2,3:4,5:6,7:8"):
        with pytest.raises(ValueError, match="X0:X1,Y0:Y1,Z0:Z1"):
            parse_box(bad)
