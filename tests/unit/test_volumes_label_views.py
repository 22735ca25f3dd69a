"""A source's labels as canonical labels: ids, whole numbers, places, what nothing says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.labels.hierarchy import flat_hierarchy, load_hierarchy
from lib.labels.value_maps import encoding
from lib.volumes.boxes import Box, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.label_views import (
    LabelViews,
    PlacedLabel,
    View,
    canonical_ids,
    grey_type,
    image_view,
    whole_numbers,
)
from lib.volumes.source import ArraySource, SourceInfo

H = load_hierarchy()
AXON, MITO = H.set_named("axon"), H.set_named("mitochondria")


def source(values: Any, dtype: Any = None) -> ArraySource:
    array = np.asarray(values, dtype)
    array = array.reshape((-1, 1, 1)) if array.ndim == 1 else array
    return ArraySource(SourceInfo("mine.h5", "ids", array.shape, array.dtype), array)


def ids_of(values: Any, dtype: Any, zero_is_none: bool = True) -> list[int]:
    one = source(values, dtype)
    found = canonical_ids(one.array, one, (0, 0, 0), zero_is_none)
    assert found.dtype == np.int64
    return found.ravel().tolist()


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 1, 255], np.uint8, [0, 1, 255]),
        ([0, 5, -1], np.int8, [0, 5, -1]),
        ([0, 7, 2**32 - 1], np.uint32, [0, 7, -1]),
        ([0, 7, 2**32 - 1, 2**64 - 1], np.uint64, [0, 7, -1, -1]),
        ([-1, 0, 2**32 - 2, 2**32 - 1], np.int64, [-1, 0, 2**32 - 2, -1]),
    ],
)
def test_ids_of_every_type(values: list[int], dtype: Any, expected: list[int]) -> None:
    assert ids_of(values, dtype) == expected
    unsaid = [-1 if v == 0 else v for v in expected]
    assert ids_of(values, dtype, zero_is_none=False) == unsaid, "0 says nothing"


@pytest.mark.parametrize(
    ("value", "dtype"), [(-2, np.int16), (2**32, np.int64), (2**40, np.uint64)]
)
def test_ids_that_cannot_be_stored_are_told_with_their_place(value: int, dtype: Any) -> None:
    one = source([[[1, 2]], [[3, value]]], dtype)
    with pytest.raises(VolumeError) as caught:
        canonical_ids(one.array, one, (10, 20, 30), True)
    told = str(caught.value)
    assert f"instance id {value} at voxel (x, y, z) (11, 20, 31)" in told
    assert told.startswith("mine.h5:ids") and "renumber" in told


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=20), st.sampled_from(["f4", "f8"]))
def test_whole_numbers_survive_floats(values: list[int], dtype: str) -> None:
    one = source(values, dtype)
    found = whole_numbers(one.array, one, (0, 0, 0))
    assert found.dtype == np.int64 and found.ravel().tolist() == values


@pytest.mark.parametrize(
    ("bad", "told"), [(np.nan, "label NaN"), (1.5, "label 1.5"), (np.inf, "label inf")]
)
def test_numbers_that_are_not_whole_are_told_with_their_place(bad: float, told: str) -> None:
    one = source([1.0, bad, 2.0], np.float32)
    with pytest.raises(VolumeError, match=told + r" at voxel \(x, y, z\) \(6, 0, 2\)"):
        whole_numbers(one.array, one, (5, 0, 2))


def test_masks_are_numbers_and_words_are_not() -> None:
    one = source([True, False])
    assert whole_numbers(one.array, one, (0, 0, 0)).tolist() == [[[1]], [[0]]]
    text = np.array(["a"]).reshape(1, 1, 1)
    with pytest.raises(VolumeError, match="labels of type"):
        whole_numbers(text, one, (0, 0, 0))


def test_a_label_that_covers_a_part_of_the_image_is_read_where_it_lies() -> None:
    label = PlacedLabel(source(np.arange(1, 9, dtype=np.uint8).reshape(2, 2, 2)), (-3, 0, -1))
    values, covered = label.read(((2, 5), (0, 2), (0, 3)))
    assert covered == ((1, 3), (0, 2), (1, 3)) and values.shape == (2, 2, 2)
    assert label.read(((0, 3), (0, 2), (0, 3)))[1] is None, "it does not reach there"


def views(
    semantic: Any = None, instance: Any = None, box: Box | None = None, zero_is_none: bool = False
) -> LabelViews:
    given = semantic if semantic is not None else instance
    return LabelViews(
        H,
        whole_box(np.shape(given)) if box is None else box,  # type: ignore[arg-type]
        None if semantic is None else PlacedLabel(source(semantic)),
        None if semantic is None else encoding("canonical", H),
        None if instance is None else PlacedLabel(source(instance)),
        zero_is_none,
    )


def test_a_voxel_of_an_object_has_a_class_that_can_be_one() -> None:
    ids = np.array([[[1, 0]]], np.uint32)
    found = views(instance=ids).class_sets()[:, :, :]
    assert found[0, 0, 0] == H.object_set and found[0, 0, 1] == H.unknown
    mito = H.class_names.index("mitochondria") + 1
    both = views(np.array([[[mito, mito]]], np.uint8), ids)
    assert both.class_sets()[:, :, :].ravel().tolist() == [MITO, MITO]
    assert both.instances()[:, :, :].ravel().tolist() == [1, -1]  # type: ignore[index]


def test_without_a_hierarchy_no_object_is_background() -> None:
    flat = flat_hierarchy(2)
    ids = np.array([[[1, 0]]], np.uint32)
    found = LabelViews(flat, whole_box((1, 1, 2)), None, None, PlacedLabel(source(ids)), True)
    sets = found.class_sets()[:, :, :].ravel().tolist()
    assert sets[0] & sets[1] == 0 and sets[0] == flat.object_set


def test_views_compute_only_the_box_that_is_asked_for() -> None:
    asked: list[Box] = []

    def compute(box: Box) -> np.ndarray:
        asked.append(box)
        return np.zeros([b - a for a, b in box])

    view = View((10, 10, 10), np.dtype(np.uint8), compute)
    assert view[2:4, :, 9:].shape == (2, 10, 1)
    assert asked == [((2, 4), (0, 10), (9, 10))]
    everything = views(np.full((4, 4, 4), 4, np.uint8), box=((1, 3), (0, 4), (2, 4)))
    assert everything.class_sets()[:, :, :].shape == (2, 4, 2)
    assert views(np.full((1, 1, 2), 4, np.uint8)).instances() is None


def test_a_value_of_no_meaning_is_told_with_its_place() -> None:
    labels = np.full((3, 3, 3), 4, np.uint8)
    labels[2, 1, 2] = 77
    with pytest.raises(VolumeError, match=r"class value 77 at voxel \(x, y, z\) \(2, 1, 2\)"):
        views(labels, box=((1, 3), (1, 3), (1, 3))).class_sets()[:, :, :]


def test_grey_values_are_kept_and_what_is_none_is_refused() -> None:
    signed = source(np.array([[[0, 7], [300, 40]]], np.int16))
    assert grey_type(signed) == np.uint16 and grey_type(source([1], np.uint8)) == np.uint8
    view = image_view(signed, ((0, 1), (0, 2), (0, 2)))
    assert view[:, :, :].dtype == np.uint16 and view[:, 1:, :].tolist() == [[[300, 40]]]
    signed.array[0, 1, 0] = -3
    with pytest.raises(VolumeError, match=r"grey value -3 at voxel \(x, y, z\) \(0, 1, 0\)"):
        view[:, :, :]
    with pytest.raises(VolumeError, match="an image of type float32"):
        grey_type(source([0.5], np.float32))
