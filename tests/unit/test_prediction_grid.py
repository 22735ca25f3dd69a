"""Windows over volumes of any shape: where they lie, what each is nearest to, how they weigh."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.prediction.window_grid import EVEN, LARGER, LEAST_WEIGHT, LONGER, WindowGrid, window_grid
from lib.prediction.windows import _pair_weight
from lib.volumes.boxes import Triple, box_slices

SHAPES = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
WINDOWS = st.tuples(st.integers(8, 40), st.integers(8, 40), st.integers(2, 16))


@settings(max_examples=60)
@given(shape=SHAPES, window=WINDOWS, overlap=st.floats(0, 0.8))
def test_windows_lie_inside_cover_all_and_are_hardly_larger(
    shape: Triple, window: Triple, overlap: float
) -> None:
    grid = window_grid(shape, window, overlap)
    assert grid.shape == shape
    assert math.prod(grid.window) <= LARGER * math.prod(window)
    for axis in range(3):
        size, starts = grid.window[axis], grid.starts[axis]
        assert size <= min(shape[axis], LONGER * window[axis])
        assert starts[0] == 0 and starts[-1] + size == shape[axis]
        steps = np.diff(starts)
        assert (steps > 0).all() and (steps <= size).all(), "no gap, none twice"
        assert not len(steps) or steps.max() - steps.min() <= 1, "evenly spread"
        assert size % EVEN == 0 or size in (shape[axis], min(shape[axis], window[axis]))
    assert grid.count == len(list(grid.boxes()))


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    window=st.tuples(*[st.integers(2, 12)] * 3),
    overlap=st.floats(0, 0.6),
)
def test_cores_tile_the_volume_inside_their_windows(
    shape: Triple, window: Triple, overlap: float
) -> None:
    grid = window_grid(shape, window, overlap)
    seen = np.zeros(shape, np.int64)
    for box, core in grid.cores():
        for (a, b), (low, high) in zip(box, core, strict=True):
            assert a <= low < high <= b
        seen[box_slices(core)] += 1
    assert (seen == 1).all()
    assert [box for box, _ in grid.cores()] == list(grid.boxes())


def test_a_voxel_is_in_the_core_of_the_window_in_whose_middle_it_lies_most() -> None:
    grid = WindowGrid((10, 1, 1), (6, 1, 1), ((0, 4), (0,), (0,)))
    cores = [core[0] for _, core in grid.cores()]
    assert cores == [(0, 5), (5, 10)]
    for low, high in cores:
        for voxel in range(low, high):
            middles = [abs(voxel + 0.5 - (s + 3)) for s in grid.starts[0]]
            assert min(middles) == abs(voxel + 0.5 - (3 if high == 5 else 7))


@given(shape=SHAPES, window=WINDOWS, data=st.data())
@settings(max_examples=40)
def test_windows_that_touch_a_span_share_a_voxel_with_it(
    shape: Triple, window: Triple, data: st.DataObject
) -> None:
    grid = window_grid(shape, window, 0.25)
    low = data.draw(st.integers(0, shape[0] - 1))
    high = data.draw(st.integers(low + 1, shape[0]))
    expected = [
        s for s in grid.starts[0] if set(range(s, s + grid.window[0])) & set(range(low, high))
    ]
    assert grid.touching(0, (low, high)) == expected and expected


def test_a_window_weighs_most_in_its_middle_and_something_at_its_ends() -> None:
    (long, even, single) = WindowGrid((65, 8, 1), (65, 8, 1), ((0,), (0,), (0,))).axis_weights
    assert long.argmax() == 32 and long[32] == 1.0 and np.array_equal(long, long[::-1])
    assert long[0] == np.float32(LEAST_WEIGHT) or long[0] > LEAST_WEIGHT
    assert (long > 0).all() and long.dtype == np.float32
    assert even[3] == even[4] == even.max()
    assert single.tolist() == [1.0]
    # an eighth of the window is one standard deviation
    assert even[4] / even[5] == pytest.approx(math.exp((1.5**2 - 0.5**2) / 2))


@pytest.mark.parametrize("offset", [0, 1, -1, 3, -3, 5, -5, 9])
def test_a_pair_weighs_what_both_of_its_voxels_do(offset: int) -> None:
    weight = np.array([1.0, 4.0, 9.0, 16.0, 25.0], np.float32)
    found = _pair_weight(weight, offset)
    for i, value in enumerate(found):
        inside = 0 <= i + offset < 5
        expected = math.sqrt(weight[i] * weight[i + offset]) if inside else 0.0
        assert value == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 4), (4, 4, 0), (2, 2, 2, 2)])
def test_what_is_no_volume_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a volume \(X, Y, Z\) with voxels, found shape"):
        window_grid(shape, (8, 8, 8), 0.5)


def test_one_window_where_one_will_do_and_one_less_where_there_is_room() -> None:
    assert window_grid((30, 20, 5), (32, 32, 8), 0.5).count == 1
    room = window_grid((36, 32, 8), (32, 32, 8), 0.5)
    assert room.window == (36, 32, 8) and room.count == 1, "4 voxels more save a second window"
    far = window_grid((60, 32, 8), (32, 32, 8), 0.25)
    assert len(far.starts[0]) == 2 and far.window[0] <= 48


def test_the_last_axis_is_the_fastest() -> None:
    grid = window_grid((8, 8, 8), (4, 4, 4), 0.0)
    starts = [tuple(low for low, _ in box) for box in grid.boxes()]
    assert starts == list(itertools.product((0, 4), repeat=3))
