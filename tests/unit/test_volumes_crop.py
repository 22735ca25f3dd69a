"""Boxes of images with the contrast of the whole, and what is bright as if it were dark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.volumes.boxes import Box, box_shape, box_slices, contains, intersect, whole_box
from lib.volumes.contrast import (
    BLOCK,
    BLOCKS,
    FILL_SHARE,
    intensity_window,
    normalize,
    sample_boxes,
    values_window,
)
from lib.volumes.crop import Crop, widen
from lib.volumes.disk_ids import UNKNOWN_ID, from_disk_ids, to_disk_ids
from lib.volumes.errors import VolumeError
from lib.volumes.readers.region import RegionSource
from lib.volumes.seen import InvertedImage, as_seen
from lib.volumes.source import Source, SourceInfo

SHAPE = (9, 7, 5)
IMAGE = np.random.default_rng(0).integers(20, 200, SHAPE).astype(np.uint8)
BOX: Box = ((2, 8), (1, 6), (0, 4))
SPANS = [st.tuples(st.integers(-12, 12), st.integers(-12, 12)) for _ in range(3)]


class Held(Source):
    """A volume in memory, as a reader gives it."""

    def __init__(self, data: np.ndarray, **info: Any) -> None:
        super().__init__(SourceInfo("held", "", data.shape, data.dtype, **info))
        self.data = data

    def _read(self, box: Box) -> np.ndarray:
        return self.data[box_slices(box)]


@settings(max_examples=80, deadline=None)
@given(st.tuples(*SPANS))
def test_a_crop_slices_as_its_voxels_do(spans) -> None:
    index = tuple(slice(a, b) for a, b in spans)
    found = Crop(IMAGE, BOX, (0.0, 1.0))[index]
    expected = IMAGE[box_slices(BOX)][index]
    assert found.shape == expected.shape and (found == expected).all()


def test_a_crop_has_the_contrast_of_its_image() -> None:
    crop = Crop(IMAGE, BOX, (3.0, 77.0))
    assert crop.shape == (6, 5, 4) and intensity_window(crop) == (3.0, 77.0)


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[st.integers(0, 5)] * 3))
def test_a_widened_box_is_all_that_is_near(margin) -> None:
    wide = widen(BOX, margin, SHAPE)
    assert contains(wide, BOX) and contains(whole_box(SHAPE), wide)
    grown = tuple((lo - m, hi + m) for (lo, hi), m in zip(BOX, margin, strict=True))
    assert wide == intersect(grown, whole_box(SHAPE))  # type: ignore[arg-type]


def region(contrast: tuple[float, float] = (10.0, 90.0)) -> RegionSource:
    """The box of the image, which lies at (100, 0, 7) of its source."""
    held = Held(IMAGE, voxel_size_nm=(4.0, 5.0, 40.0), origin=(100, 0, 7))
    return RegionSource(held, BOX, contrast)


def test_a_region_is_a_box_of_its_volume_at_its_place() -> None:
    found = region()
    assert found.shape == box_shape(BOX) and found.info.origin == (102, 1, 7)
    assert (np.asarray(found) == IMAGE[box_slices(BOX)]).all()
    assert found.affine.diagonal().tolist() == [4.0, 5.0, 40.0, 1.0]
    assert intensity_window(found) == (10.0, 90.0)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 4)] * 3))
def test_a_region_with_what_lies_around_it_holds_itself(margin) -> None:
    larger, own = region().around(margin)
    assert (larger.read(own) == IMAGE[box_slices(BOX)]).all()
    assert larger.box == widen(BOX, margin, SHAPE) and larger.contrast == (10.0, 90.0)
    assert larger.info.voxel_size_nm == (4.0, 5.0, 40.0)


@pytest.mark.parametrize(
    "box", [((0, 10), (0, 7), (0, 5)), ((-1, 4), (0, 7), (0, 5)), ((3, 3), (0, 7), (0, 5))]
)
def test_a_region_outside_its_volume_is_refused(box: Box) -> None:
    with pytest.raises(VolumeError, match=r"voxels inside 0:9,0:7,0:5 of held"):
        RegionSource(Held(IMAGE), box, (0.0, 1.0))


def test_bright_membranes_are_seen_dark_and_nothing_else_changes() -> None:
    assert as_seen(IMAGE, False) is IMAGE
    seen = as_seen(IMAGE, True)
    assert isinstance(seen, InvertedImage) and seen.shape == SHAPE
    assert (seen[1:3, :, 2:] == IMAGE[1:3, :, 2:]).all()
    assert (np.asarray(seen) == IMAGE).all()
    dark, bright = intensity_window(IMAGE)
    assert intensity_window(seen) == (bright, dark)
    turned = normalize(IMAGE, intensity_window(seen))
    assert turned == pytest.approx(1 - normalize(IMAGE, (dark, bright)), abs=1e-6)


def test_a_region_with_bright_membranes_stays_a_region() -> None:
    seen = as_seen(region(), True)
    assert isinstance(seen, RegionSource) and intensity_window(seen) == (90.0, 10.0)
    assert (np.asarray(seen) == IMAGE[box_slices(BOX)]).all()
    assert seen.info.origin == (102, 1, 7)


@settings(max_examples=80, deadline=None)
@given(st.tuples(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 300)))
def test_samples_lie_inside_spread_evenly_and_do_not_overlap(shape) -> None:
    boxes = sample_boxes(shape)
    assert len(set(boxes)) == len(boxes) <= np.prod(BLOCKS)
    for box in boxes:
        assert contains(whole_box(shape), box)
        assert box_shape(box) == (min(BLOCK, shape[0]), min(BLOCK, shape[1]), 1)
    assert all(intersect(a, b) is None for n, a in enumerate(boxes) for b in boxes[:n])
    for axis, (size, block) in enumerate(zip(shape, (BLOCK, BLOCK, 1), strict=True)):
        starts = sorted({box[axis][0] for box in boxes})
        if size >= 2 * block:
            assert starts[0] == 0 and starts[-1] == size - block, "from end to end"
            assert max(np.diff(starts)) - min(np.diff(starts)) <= 1
        else:
            assert starts == [(size - block) // 2 if size > block else 0], "from the middle"


@pytest.mark.parametrize(("dtype", "fill"), [(np.uint8, 0), (np.uint8, 255), (np.uint16, 65535)])
def test_filling_is_left_out_from_a_share_on(dtype, fill) -> None:
    real = np.linspace(100, 200, 1000).astype(dtype)
    for share in (FILL_SHARE / 2, 2 * FILL_SHARE, 0.9):
        count = round(1000 * share / (1 - share))
        low, high = values_window(np.concatenate([real, np.full(count, fill, dtype)]))
        inside = low >= 99 and high <= 201
        assert inside == (share > FILL_SHARE)


def test_other_numbers_do_not_fill() -> None:
    """Of floating images zero alone is padding; their largest value is none."""
    values = np.concatenate([np.linspace(0.2, 0.4, 100), np.ones(50), np.zeros(50)])
    low, high = values_window(values.astype(np.float32))
    assert low >= 0.2 and high == 1.0
    signed = np.concatenate([np.linspace(-50, 50, 101), np.full(80, 127)]).astype(np.int8)
    assert values_window(signed)[1] < 60


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.float64])
def test_ids_come_back_from_the_disk(dtype) -> None:
    ids = np.array([[-1, 0], [1, 100]], dtype)
    stored = to_disk_ids(ids)
    assert stored.dtype == np.uint32 and stored.tolist() == [[UNKNOWN_ID, 0], [1, 100]]
    assert from_disk_ids(stored).tolist() == ids.tolist() == from_disk_ids(ids).tolist()
    assert from_disk_ids(ids).dtype == np.int64


def test_the_mark_of_unknown_is_read_in_whatever_type_holds_it() -> None:
    for dtype in (np.uint32, np.int64, np.uint64, np.float64):
        assert from_disk_ids(np.array([UNKNOWN_ID, 7], dtype)).tolist() == [-1, 7]


@pytest.mark.parametrize(
    "stored",
    [
        np.array([3, -2]), np.array([UNKNOWN_ID + 1]), np.array([2**40], np.uint64),
        np.array([1.5]), np.array([np.nan]), np.array([np.inf], np.float32),
    ],
    ids=repr,
)  # fmt: skip
def test_numbers_that_are_no_ids_are_refused(stored) -> None:
    with pytest.raises(ValueError, match="is no id of an object; expected whole numbers from -1"):
        from_disk_ids(stored)
