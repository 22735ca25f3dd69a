"""Worst cases: which are kept, what their pictures show, and the objects that are clicked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib.evaluation.click_sessions import as_points, click_sessions, clickable_objects
from lib.evaluation.worst_cases import (
    CROSS_PIXELS,
    FEWEST_PIXELS,
    GAP_PIXELS,
    LEGEND,
    MOST_PIXELS,
    WorstCases,
    class_picture,
    click_picture,
    object_picture,
)
from lib.labels.hierarchy import load_hierarchy
from lib.metrics.clicks import Click
from lib.volumes.frames import viewer_frame

H = load_hierarchy()
AXON, SOMA, MITO = (H.class_names.index(n) for n in ("axon", "soma", "mitochondria"))
GREY = np.tile(np.linspace(0, 255, 40, dtype=np.uint8)[:, None, None], (1, 30, 1))
"""(40, 30, 1): brighter towards higher x."""


def panels(picture: np.ndarray, width: int = 40) -> list[np.ndarray]:
    """The three panels of a picture, one pixel a voxel, (X, Y, 3)."""
    times = max(1, FEWEST_PIXELS // width)
    found = []
    for n in range(3):
        start = n * (width * times + GAP_PIXELS)
        found.append(picture[::times, start : start + width * times : times].transpose(1, 0, 2))
    return found


def colored(panel: np.ndarray, bare: np.ndarray) -> np.ndarray:
    """(X, Y): where something lies over the image."""
    return (np.abs(panel - bare) > 1e-6).any(2)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((40, 30, 1), (6 * 30, 6 * 40)),
        ((30, 1, 40), (6 * 40, 6 * 30)),
        ((1, 300, 200), (200, 300)),
        ((1400, 30, 1), (10, 467)),
        ((1, 1, 1), (256, 256)),
    ],
)
def test_panels_are_neither_tiny_nor_huge(shape, size) -> None:
    none = np.zeros(shape, np.int64)
    picture = object_picture(np.zeros(shape, np.uint8), none, none)
    assert picture.shape == (size[0], 3 * size[1] + 2 * GAP_PIXELS, 3)
    assert max(size) <= MOST_PIXELS
    gaps = [
        picture[:, size[1] : size[1] + GAP_PIXELS],
        picture[:, 2 * size[1] + GAP_PIXELS :][:, :4],
    ]
    assert all((gap == 1).all() for gap in gaps), "white between them"


def test_x_runs_to_the_right_and_y_down() -> None:
    none = np.zeros(GREY.shape, np.int64)
    bare, *_ = panels(object_picture(GREY, none, none))
    assert (np.diff(bare[:, 0, 0]) >= 0).all() and bare[0, 0, 0] < 0.05 and bare[-1, 0, 0] > 0.95
    assert (bare == bare[:, :1]).all() and (bare == bare[..., :1]).all()


def test_objects_are_drawn_where_the_truth_is_known() -> None:
    truth, found = np.zeros((2, *GREY.shape), np.int64)
    truth[:10], truth[30:] = 3, -1
    found[5:15], found[35:] = 8, 9
    bare, left, right = panels(object_picture(GREY, truth, found))
    assert colored(left, bare).all(1).tolist() == [True] * 10 + [False] * 30
    assert colored(right, bare).all(1).tolist() == [False] * 5 + [True] * 10 + [False] * 25
    assert not colored(right, bare)[35:].any(), "nothing is drawn on unknown voxels"


def test_classes_are_drawn_where_they_are_told_and_where_they_are_wrong() -> None:
    sets = np.full(GREY.shape, H.unknown, np.int32)
    sets[:10], sets[10:20] = 1 << AXON, (1 << AXON) | (1 << SOMA)
    guess = np.full(GREY.shape, AXON, np.int16)
    guess[15:] = MITO
    bare, left, right = panels(class_picture(GREY, sets, guess, H))
    assert colored(left, bare).all(1).tolist() == [True] * 10 + [False] * 30
    shown = colored(right, bare).all(1).tolist()
    assert shown == [True] * 10 + [False] * 5 + [True] * 5 + [False] * 20
    assert (left[:10] == right[:10]).all(), "a class has one colour"


def test_clicks_are_drawn_in_the_section_with_most_errors() -> None:
    truth = np.zeros((40, 30, 3), bool)
    truth[10:20, 10:20] = True
    answer = truth.copy()
    answer[10:12, 10:20, 0] = False
    answer[10:15, 10:20, 2] = False
    clicks = [Click((20, 15, 2), True), Click((2, 28, 2), False), Click((30, 3, 0), True)]
    bare, *_ = panels(object_picture(GREY, *np.zeros((2, *GREY.shape), np.int64)))
    marked, left, right = panels(click_picture(np.repeat(GREY, 3, 2), truth, answer, clicks))
    cross = np.zeros((40, 30), bool)
    cross[20 - CROSS_PIXELS : 20 + CROSS_PIXELS + 1, 15] = True
    cross[20, 15 - CROSS_PIXELS : 15 + CROSS_PIXELS + 1] = True
    assert (marked[cross] == 1).all()
    other = np.zeros((40, 30), bool)
    other[: 2 + CROSS_PIXELS + 1, 28] = other[2, 28 - CROSS_PIXELS :] = True
    assert (marked[other] == 0).all(), "cut off where the image ends"
    assert (marked[~cross & ~other] == bare[~cross & ~other]).all(), "and none of other sections"
    assert (colored(left, bare) == truth[:, :, 2]).all()
    assert (colored(right, bare) == answer[:, :, 2]).all()


def square() -> np.ndarray:
    """A picture of nothing much."""
    return np.full((4, 5, 3), 0.5, np.float32)


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(0, 4))
def test_the_worst_are_kept_in_their_order(values, most) -> None:
    worst = WorstCases(most)
    for n, value in enumerate(values):
        worst.offer("set", "iou", value, "item", str(n), square)
    kept = [case.value for cases in worst._kept.values() for case in cases]
    assert kept == sorted(values)[:most]


def test_each_data_set_and_figure_has_worst_cases_of_its_own(tmp_path: Path) -> None:
    worst = WorstCases(1)
    for data_set, figure, value in (("B", "iou", 0.9), ("A", "iou", 0.1), ("A", "are", 0.5)):
        worst.offer(data_set, figure, value, f"item {data_set}", "section 3", square)
    paths = worst.write(tmp_path)
    assert [p.name for p in paths] == ["a-are-1.png", "a-iou-1.png", "b-iou-1.png"]
    lines = (tmp_path / "worst.md").read_text().splitlines()
    assert lines[0] == LEGEND
    assert lines[-1] == "| ![](b-iou-1.png) | B | iou | 0.900 | item B | section 3 |"
    assert np.asarray(Image.open(paths[0])).shape == (4, 5, 3)


def test_data_sets_with_names_alike_keep_their_pictures(tmp_path: Path) -> None:
    """What file names cannot carry is left out of them, and must not make two names one."""
    worst = WorstCases(1)
    for n, name in enumerate(("a b", "a-b", "数据", "脑", "a b 2")):
        worst.offer(name, "IoU", n / 10, "item", "section 0", square)
    paths = worst.write(tmp_path)
    assert len(set(paths)) == 5 and all(p.exists() for p in paths)
    text = (tmp_path / "worst.md").read_text()
    assert all(f"![]({p.name})" in text for p in paths)


@given(
    sizes=st.lists(st.integers(1, 30), max_size=12),
    least=st.integers(0, 20),
    most=st.integers(0, 8),
)
def test_objects_that_are_clicked_are_large_enough_and_evenly_drawn(sizes, least, most) -> None:
    ids = np.repeat(np.arange(len(sizes)) * 3 + 5, sizes) if sizes else np.zeros(0, np.int64)
    large = [3 * n + 5 for n, size in enumerate(sizes) if size >= least]
    found = clickable_objects(np.concatenate([ids, [-1, 0, 0]]), least, most)
    assert found == sorted(set(found)) and set(found) <= set(large)
    assert len(found) == (min(most, len(large)) if most else len(large))
    if most > 1 and len(large) >= most:
        assert (found[0], found[-1]) == (large[0], large[-1]), "from end to end"


def test_sessions_click_each_object_on_voxels_that_are_known() -> None:
    ids = np.zeros((24, 24, 6), np.int64)
    ids[2:10, 2:10], ids[14:22, 2:22], ids[:, :, 5] = 4, 9, -1
    frame = viewer_frame(ids.shape, (10.0, 10.0, 40.0), 0.0, 1)
    asked: list[int] = []
    told: list[tuple[int, int]] = []

    def answer(clicks: list[Click]) -> np.ndarray:
        asked.append(len(clicks))
        x, y, z = clicks[0].position
        return frame.labels_to_network(ids, ((0, 24), (0, 24), (0, 6))) == ids[x, y, z]

    found = list(click_sessions(answer, frame, ids, "item", 0, 1, lambda *done: told.append(done)))
    assert [s.instance for s in found] == [4, 9] and told == [(1, 2), (2, 2)]
    for session in found:
        assert session.quality == [1.0] and (session.truth == (ids == session.instance)).all()
        assert session.truth[session.clicks[0].position]
    again = list(click_sessions(answer, frame, ids, "item", 0, 1))
    assert [s.clicks for s in again] == [s.clicks for s in found], "the same for every method"
    other = list(click_sessions(answer, frame, ids, "other", 0, 1))
    assert [s.clicks for s in other] != [s.clicks for s in found]


def test_clicks_become_points_of_both_signs_in_their_order() -> None:
    clicks = [Click((1, 2, 3), True), Click((4, 5, 6), False), Click((7, 8, 9), True)]
    points = as_points(clicks)
    assert list(points.positive) == [(1, 2, 3), (7, 8, 9)] and list(points.negative) == [(4, 5, 6)]
