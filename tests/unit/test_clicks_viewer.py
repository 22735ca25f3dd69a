"""Clicks in viewer voxels, whatever the image's frame; windows that depend on clicks only."""

from itertools import permutations

import numpy as np
import pytest
from click_cases import LEVELS, grey_network
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lib.clicks.source import ClickSource
from lib.clicks.viewer import (
    ViewerRequest,
    classes_in_viewer,
    click_source,
    segment_in_viewer,
    whole_mask,
)
from lib.clicks.windows import (
    centrality,
    click_windows,
    comfortable,
    growth_limit,
    neighbours,
    window_at,
)
from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import flat_hierarchy
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.predictor import Predictor
from lib.volumes.boxes import box_shape, contains, whole_box
from lib.volumes.frames import ViewerFrame, viewer_frame


def setup(
    image: np.ndarray, sizes: tuple[float, ...], finest: float = 0.0, most_split: int = 1
) -> tuple[ClickSource, ViewerFrame]:
    frame = viewer_frame(image.shape, sizes, finest, most_split)
    cache = FeatureCache(2**26)
    cache.contrast("image", lambda: (0.0, float(LEVELS - 1)))
    inference = InferenceSettings(click_window=(32, 32, 8), precision="float32")
    predictor = Predictor(grey_network(), flat_hierarchy(4), inference)
    return click_source(predictor, "one", image, "image", frame, cache), frame


def scene() -> np.ndarray:
    image = np.zeros((24, 20, 6), np.float32)
    image[3:11, 4:10, 1:5] = 2
    image[11:20, 4:10, 1:5] = 6
    return image


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_answer_is_on_the_viewers_grid(order: tuple[int, ...], mirrored: bool) -> None:
    image = scene().transpose(order)
    sizes = tuple((5.0, 5.0, 40.0)[a] for a in order)
    point = np.array([5, 6, 2])[list(order)]
    if mirrored:
        image, point = image[::-1], np.array([image.shape[0] - 1 - point[0], *point[1:]])
    source, frame = setup(np.ascontiguousarray(image), sizes)
    assert frame.network_voxel_size_nm == (5.0, 5.0, 40.0)
    answer = segment_in_viewer(source, frame, ViewerRequest([point.tolist()]))
    assert np.array_equal(whole_mask(answer, image.shape), image == 2)


def test_sections_and_starting_masks_of_the_viewer() -> None:
    image = scene()
    source, frame = setup(image, (5.0, 5.0, 40.0))
    flat = segment_in_viewer(source, frame, ViewerRequest([(5, 6, 2)], section=(2, 2)))
    wanted = (image == 2) & (np.arange(6) == 2)
    assert np.array_equal(whole_mask(flat, image.shape), wanted)
    across = segment_in_viewer(source, frame, ViewerRequest([(5, 6, 2)], section=(0, 5)))
    wanted = (image == 2) & (np.arange(24) == 5)[:, None, None]
    assert np.array_equal(whole_mask(across, image.shape), wanted)
    start = (image == 2).astype(np.uint8)
    start[3] = 0  # edited by hand
    kept = segment_in_viewer(source, frame, ViewerRequest([(5, 6, 2), (15, 6, 2)], start=start))
    assert np.array_equal(whole_mask(kept, image.shape), (start > 0) | (image == 6))
    empty = segment_in_viewer(source, frame, ViewerRequest([(5, 6, 2)], start=start * 0))
    assert np.array_equal(whole_mask(empty, image.shape), image == 2)
    with pytest.raises(ValueError, match="expected the image's"):
        segment_in_viewer(source, frame, ViewerRequest([(5, 6, 2)], start=start[1:]))


def test_class_maps_are_on_the_viewers_grid() -> None:
    image = np.full((24, 20, 6), 4, np.float32)
    image[3:11, 4:10, 1:5] = 2
    image[20:, 16:, 3:] = 0
    image[20:, :4, 3:] = 7
    turned = np.ascontiguousarray(image.transpose(2, 0, 1))
    source, frame = setup(turned, (40.0, 5.0, 5.0))
    answer = classes_in_viewer(source, frame, {3: [(2, 5, 6)]}, flat_hierarchy(4))
    wanted = np.where(turned == 2, 3, turned.astype(int) % 4) + 1
    assert np.array_equal(answer.classes, wanted)


def test_binned_images_answer_at_full_size() -> None:
    image = scene().repeat(2, 0).repeat(2, 1)
    source, frame = setup(image, (2.5, 2.5, 40.0), finest=5.0)
    assert source.shape == (24, 20, 6)
    answer = segment_in_viewer(source, frame, ViewerRequest([(11, 13, 2)], [(30, 12, 2)]))
    assert np.array_equal(whole_mask(answer, image.shape), image == 2)


@pytest.mark.parametrize("turned", [False, True])
def test_split_images_answer_at_their_own_size(turned: bool) -> None:
    image, point, missed = scene(), [5, 6, 2], [15, 6, 2]
    if turned:
        image, point, missed = np.ascontiguousarray(image.T), point[::-1], missed[::-1]
    source, frame = setup(image, (10.0, 10.0, 10.0), finest=5.0, most_split=2)
    assert source.shape == tuple(2 * n for n in image.shape)
    answer = segment_in_viewer(source, frame, ViewerRequest([point], [missed]))
    found = whole_mask(answer, image.shape)
    assert found[tuple(point)] and not found[tuple(missed)]
    truth = image == 2  # the network knows grey levels, and those at a border are interpolated
    assert not (found > ndimage.binary_dilation(truth)).any()
    assert not (ndimage.binary_erosion(truth) > found).any()
    at = point[2]
    flat = segment_in_viewer(source, frame, ViewerRequest([point], section=(2, at)))
    assert np.unique(np.nonzero(whole_mask(flat, image.shape))[2]).tolist() == [at]


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 90)] * 3),
    size=st.tuples(*[st.sampled_from([1, 5, 16, 33])] * 3),
    seed=st.integers(0, 10**6),
)
def test_windows_hold_their_point_and_stay_inside(
    shape: tuple[int, int, int], size: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = [[int(rng.integers(n)) for n in shape] for _ in range(4)]
    boxes = click_windows(points, size, shape)
    assert boxes[0] == window_at(points[0], size, shape)
    wanted = tuple(min(s, n) for s, n in zip(size, shape, strict=True))
    for box in boxes:
        assert box_shape(box) == wanted and contains(whole_box(shape), box)
        assert (centrality(box, shape) > 0).all()
        for axis, side, following in neighbours(box, shape):
            assert contains(whole_box(shape), following) and box_shape(following) == wanted
            assert (following[axis][0] - box[axis][0]) * side > 0
        limit = growth_limit(box, (40, 40, 40), shape)
        assert contains(limit, box) and contains(whole_box(shape), limit)
    assert all(any(comfortable(p, b, shape) or p == points[0] for b in boxes) for p in points)
    # A further click never moves the windows of those before it.
    assert (
        click_windows(points[:2], size, shape)
        == boxes[: len(click_windows(points[:2], size, shape))]
    )
