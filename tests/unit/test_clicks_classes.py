"""Clicks that name classes change the map where they should, and only there."""

import numpy as np
from click_cases import grey_network, source

from lib.clicks.class_map import segment_classes
from lib.labels.hierarchy import flat_hierarchy
from lib.networks.study_heads import StudyHeads, with_study_heads
from lib.prediction.classes import predict_classes
from lib.prediction.filters import COUNT

HIERARCHY = flat_hierarchy(4)  # class of a grey level: the level modulo 4; class 0: no objects


def scene() -> np.ndarray:
    """Two objects of level 2 (class 2), one of level 5 (class 1), in level 4 (class 0).

    A little of levels 0 and 7, so that the contrast window is 0 to 7.
    """
    image = np.full((72, 40, 8), 4, np.float32)
    image[68:, 30:, 1:7] = 0
    image[68:, :10, 1:7] = 7
    image[4:14, 4:12, 1:7] = 2
    image[56:66, 20:30, 1:7] = 2
    image[20:30, 4:12, 1:7] = 5
    return image


def test_without_points_the_automatic_map() -> None:
    image, net = scene(), grey_network()
    clicked = source(image, net)
    automatic = predict_classes(
        net, clicked.image, (8.0, 8.0, 8.0), clicked.inference, hierarchy=HIERARCHY
    )
    for clicks in ({}, {1: []}, {1: [(900, 0, 0)]}):
        assert np.array_equal(segment_classes(clicked, clicks, HIERARCHY).classes, automatic)
    assert np.array_equal(automatic - 1, image.astype(int) % 4)


def test_points_that_agree_change_nothing() -> None:
    image = scene()
    before = image.astype(int) % 4 + 1
    after = segment_classes(source(image), {2: [(6, 6, 3)], 1: [(22, 6, 3)]}, HIERARCHY)
    assert np.array_equal(before, after.classes) and after.warnings == ()


def test_a_misjudged_point_changes_all_that_is_like_it() -> None:
    image = scene()
    answer = segment_classes(source(image), {3: [(6, 6, 3)]}, HIERARCHY).classes - 1
    assert (answer[image == 2] == 3).all()  # the far object of the same kind as well
    assert (answer[image == 5] == 1).all() and (answer[image == 4] == 0).all()


def test_points_of_two_classes_hold_each_other_back() -> None:
    image = scene()
    image[14:16, 6:9, 3:5] = 2  # the first object has a second, unlike part
    image[16:20, 4:12, 1:7] = 2
    clicks = {3: [(6, 6, 3)], 2: [(18, 8, 3)]}
    answer = segment_classes(source(image), clicks, HIERARCHY).classes - 1
    assert answer[6, 6, 3] == 3 and answer[18, 8, 3] == 2


def test_one_voxel_clicked_for_two_classes_warns() -> None:
    image = scene()
    answer = segment_classes(source(image), {3: [(6, 6, 3)], 1: [(6, 6, 3)]}, HIERARCHY)
    assert "clicked for two classes" in answer.warnings[0]
    assert answer.classes[6, 6, 3] == 1 + 1


def test_an_image_larger_than_the_cache_is_updated_near_the_points() -> None:
    from lib.prediction.feature_cache import FeatureCache

    image = scene()
    window = 32 * 32 * 8
    cache = FeatureCache(int(1.5 * 2 * 24 * window / 0.75))  # room for one window's features
    answer = segment_classes(source(image, cache=cache), {3: [(6, 6, 3)]}, HIERARCHY)
    classes = answer.classes - 1
    assert "larger than the cache" in answer.warnings[0]
    assert (classes[4:14, 4:12, 1:7] == 3).all() and (classes[56:66, 20:30, 1:7] == 2).all()


def test_points_go_on_from_heads_that_see_filter_responses() -> None:
    """A study's heads read class 3 off the responses where the image is brightest."""
    image, plain = scene(), grey_network()
    heads = StudyHeads(plain.feature_channels, {"semantic": 4}, 1, COUNT)
    heads.inner.weight.data.zero_()
    heads.inner.weight.data[0, plain.feature_channels] = 1.0  # the finest mean, 0 to 1
    heads.inner.bias.data.fill_(-0.6)
    heads.outer.weight.data[3] = 1000.0
    net = with_study_heads(plain, heads.requires_grad_(False))
    clicked = source(image, net)
    automatic = segment_classes(clicked, {}, HIERARCHY).classes - 1
    assert (automatic[image == 7] == 3).all() and (automatic[22:28, 6:10, 2:6] == 3).all()
    assert (automatic[58:64, 22:28, 2:6] == 2).all()
    agree = segment_classes(clicked, {3: [(24, 8, 3)], 2: [(6, 6, 3)]}, HIERARCHY)
    assert np.array_equal(agree.classes - 1, automatic) and agree.warnings == ()
    taught = segment_classes(clicked, {1: [(6, 6, 3)]}, HIERARCHY).classes - 1
    assert (taught[58:64, 22:28, 2:6] == 1).all(), "all that is like it"
    assert (taught[22:28, 6:10, 2:6] == 3).all(), "and nothing else"
