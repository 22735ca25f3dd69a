"""Colours say what a voxel may be and which object it is of."""

from __future__ import annotations

import numpy as np
import pytest

from lib.labels.colors import LABEL_OPACITY, id_colors, overlay, set_colors
from lib.labels.hierarchy import load_hierarchy

HIERARCHY = load_hierarchy()


def test_a_class_has_its_colour_and_a_set_the_mean_of_its_classes() -> None:
    axon, soma = (HIERARCHY.class_names.index(n) for n in ("axon", "soma"))
    sets = np.array([[1 << axon, 1 << soma], [1 << axon | 1 << soma, HIERARCHY.unknown]])
    found = set_colors(sets, HIERARCHY)
    table = np.array([c.color for c in HIERARCHY.classes]) / 255
    assert found.shape == (2, 2, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], table[[axon, soma]], atol=1e-6)
    np.testing.assert_allclose(found[1, 0], table[[axon, soma]].mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1, 1], table.mean(0), atol=1e-6)


def test_objects_that_follow_each_other_look_different() -> None:
    found = id_colors(np.arange(-1, 200))
    assert (found[:2] == 0).all(), "no object and unknown have no colour"
    apart = np.abs(np.diff(found[2:], axis=0)).max(1)
    assert apart.min() > 0.2 and found.max() <= 1.0
    assert (found[5] == id_colors(np.array([4]))[0]).all(), "an id keeps its colour"


def test_colours_lie_over_the_image_where_they_say_something() -> None:
    grey, colors = np.full((2, 3, 3), 0.5, np.float32), np.ones((2, 3, 3), np.float32)
    where = np.zeros((2, 3), bool)
    where[0, 1] = True
    found = overlay(grey, colors, where)
    assert found[0, 1] == pytest.approx([0.5 * (1 - LABEL_OPACITY) + LABEL_OPACITY] * 3)
    assert (found[~where] == 0.5).all()
