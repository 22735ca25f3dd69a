"""Points as viewers send them: off the image, twice, of both signs, between voxels."""

from __future__ import annotations

import numpy as np

from lib.clicks.points import clean_points, inside, without

SHAPE = (10, 8, 1)


def test_points_are_whole_distinct_and_in_their_order():
    points, warnings = clean_points([[3.4, 2.6, 0], [1, 1, 0], [3, 3, 0.4]], SHAPE, "positive")
    assert points.tolist() == [[3, 3, 0], [1, 1, 0]] and not warnings
    assert points.dtype == np.int64
    points, warnings = clean_points([], SHAPE, "positive")
    assert points.shape == (0, 3) and not warnings


def test_a_near_miss_is_moved_and_a_far_one_left_out_each_with_a_word():
    points, warnings = clean_points([[-2, 3, 0], [11, 7, 1]], SHAPE, "negative")
    assert points.tolist() == [[0, 3, 0], [9, 7, 0]]
    assert warnings == ["negative point(s) just outside the image were moved onto its border"]
    points, warnings = clean_points([[-3, 3, 0], [5, 5, 3], [5, 5, 0]], SHAPE, "positive")
    assert points.tolist() == [[5, 5, 0]]
    assert warnings == ["2 positive point(s) outside the image were left out"]
    points, warnings = clean_points([[0, 0, 0], [-1, -1, 0], [50, 0, 0]], SHAPE, "positive")
    assert points.tolist() == [[0, 0, 0]] and len(warnings) == 2


def test_points_of_both_signs_and_of_a_box():
    points = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert without(points, np.array([[4, 5, 6], [0, 0, 0]])).tolist() == [[1, 2, 3], [7, 8, 9]]
    assert without(points, points).shape == (0, 3)
    box = ((1, 7), (2, 9), (3, 10))
    assert inside(points, box).tolist() == [[0, 0, 0], [3, 3, 3]], "its end is outside"
