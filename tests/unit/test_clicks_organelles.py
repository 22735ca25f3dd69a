"""Clicks on what lies inside other objects: it, or the cell around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from click_cases import source, whole

from lib.clicks.answer import segment_clicked
from lib.clicks.source import Clicks
from lib.labels.hierarchy import flat_hierarchy


def inside_and_around() -> Any:
    """Grey level 5 is of class 1, which lies inside other objects."""
    image = np.full((32, 32, 8), 2, np.float32)
    image[20:26, 20:26, 2:6] = 5
    image[4:8, 4:8, 2:6] = 5
    cell = np.ones(image.shape, np.uint32)
    flat = flat_hierarchy(4)
    classes = tuple(replace(c, inside=i == 1) for i, c in enumerate(flat.classes))
    hierarchy = replace(flat, classes=classes)
    return image, replace(source(image), objects=cell, hierarchy=hierarchy)


def auto(positive: list[tuple[int, int, int]], negative: Any = ()) -> Clicks:
    """Points that are to say themselves what is meant."""
    return Clicks(positive, negative, kind="auto")


def test_a_click_means_the_cell_unless_somebody_says_otherwise() -> None:
    image, asked = inside_and_around()
    inside = (image == 5) & (np.arange(32) > 16)[:, None, None]
    cell = segment_clicked(asked, Clicks([(22, 22, 3)]))
    assert whole(cell, image).all() and cell.organelle == -1
    for kind in ("organelle", "auto"):
        found = segment_clicked(asked, Clicks([(22, 22, 3)], kind=kind))
        assert np.array_equal(whole(found, image), inside) and found.organelle == 1
    assert whole(segment_clicked(asked, auto([(16, 16, 3)])), image).all()


def test_a_cell_in_place_of_an_organelle_is_told() -> None:
    image, asked = inside_and_around()
    found = segment_clicked(asked, Clicks([(16, 16, 3)], kind="organelle"))
    assert whole(found, image).all() and found.organelle == -1
    assert any("no organelle is seen at the points" in text for text in found.warnings)
    assert not segment_clicked(asked, auto([(16, 16, 3)])).warnings


def test_points_beyond_it_mean_the_cell() -> None:
    image, asked = inside_and_around()
    found = segment_clicked(asked, auto([(22, 22, 3), (16, 16, 3)]))
    assert whole(found, image).all()


def test_points_on_two_that_lie_apart_mean_the_cell_unless_organelles_are_meant() -> None:
    image, asked = inside_and_around()
    points = [(22, 22, 3), (5, 5, 3)]
    assert whole(segment_clicked(asked, auto(points)), image).all()
    both = segment_clicked(asked, Clicks(points, kind="organelle"))
    assert np.array_equal(whole(both, image), image == 5)


def test_two_parts_of_a_broken_one_mean_it() -> None:
    image, asked = inside_and_around()
    image[23] = 2
    broken = segment_clicked(asked, auto([(21, 22, 3), (25, 22, 3)]))
    assert np.array_equal(whole(broken, image), (image == 5) & (np.arange(32) > 16)[:, None, None])


def test_what_spreads_over_the_cells_around_is_none() -> None:
    image, asked = inside_and_around()
    cells = np.ones(image.shape, np.uint32)
    cells[21:] = 2  # five sixths of it lie beyond the cell clicked on
    found = segment_clicked(replace(asked, objects=cells), auto([(20, 22, 3)]))
    assert np.array_equal(whole(found, image), cells == 1)


def test_a_negative_point_in_one_and_a_positive_one_at_its_border() -> None:
    image, asked = inside_and_around()
    less = whole(segment_clicked(asked, auto([(22, 22, 3)], [(25, 22, 3)])), image)
    assert less[20:23, 20:26, 2:6].all() and not less[25, 22, 3]  # its border moves
    more = whole(segment_clicked(asked, auto([(22, 22, 3), (26, 22, 3)])), image)
    assert more[26, 22, 3] and 144 < more.sum() < 200


def test_a_first_point_beside_one_means_the_cell_whatever_comes_after() -> None:
    image, asked = inside_and_around()
    later = segment_clicked(asked, auto([(26, 22, 3), (22, 22, 3)]))
    assert whole(later, image).all()
