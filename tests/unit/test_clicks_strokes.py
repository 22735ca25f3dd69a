"""Strokes and boxes become a few points in the right places."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lib.clicks.strokes import MOST_POINTS, box_points, fewer_points, spread_points, stroke_points

SIZE = (8.0, 8.0, 30.0)


def test_a_stroke_is_a_few_points_along_its_middle():
    painted = np.zeros((60, 40, 8), bool)
    painted[5:55, 18:23, 3:5] = True
    denied = np.zeros_like(painted)
    denied[5:55, 30:33, 3:5] = True
    positive, negative = stroke_points(painted, denied, SIZE)
    assert len(positive) + len(negative) == MOST_POINTS
    assert all(painted[tuple(p)] for p in positive)
    assert all(denied[tuple(p)] for p in negative)
    along = sorted(p[0] for p in positive)
    assert along[0] < 12 and along[-1] > 47
    assert max(b - a for a, b in pairwise(along)) < 12
    assert all(19 <= p[1] <= 21 for p in positive), "the edge of a brush is less sure"


def test_one_sign_alone():
    painted = np.zeros((20, 20, 3), bool)
    painted[5:9, 5:9, 1] = True
    positive, negative = stroke_points(painted, np.zeros_like(painted), SIZE)
    assert negative == [] and 0 < len(positive) <= MOST_POINTS
    assert stroke_points(np.zeros_like(painted), painted, SIZE)[0] == []


def test_few_points_are_left_as_they_are():
    points = [[i, 2 * i, 1] for i in range(MOST_POINTS)]
    assert fewer_points(points, SIZE) == points
    many = [[i, 0, 0] for i in range(500)]
    few = fewer_points(many, SIZE)
    assert len(few) == MOST_POINTS
    assert few[0] == [0, 0, 0] and [499, 0, 0] in few


def test_the_same_point_many_times():
    rows = np.zeros((50, 3), np.int64)
    assert len(spread_points(rows, 5, SIZE)) == 1
    assert len(spread_points(rows[:0], 5, SIZE)) == 0


def test_a_box_means_what_it_was_drawn_around():
    ids = np.zeros((40, 40, 10), np.uint32)
    ids[:, :, :] = 1  # goes on far beyond the box
    ids[10:20, 10:20, 2:8] = 2
    ids[20:24, 10:20, 2:8] = 3
    points = box_points(ids, ((8, 22), (8, 22), (1, 9)), SIZE)
    assert {int(ids[tuple(p)]) for p in points} == {2}
    assert box_points(None, ((0, 10), (0, 10), (0, 4)), SIZE) == [[5, 5, 2]]
    empty = np.zeros_like(ids)
    assert box_points(empty, ((0, 10), (0, 10), (0, 4)), SIZE) == [[5, 5, 2]]
