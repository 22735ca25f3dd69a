"""Where a mask is cut between points, and how much a click speaks of."""

import numpy as np
import pytest
from click_cases import grey_network, source

from lib.clicks.masks import separate
from lib.clicks.ridges import RIDGE, boundary_in, ridges
from lib.clicks.scale import REACH, ball, depth_at
from lib.volumes.boxes import box_shape

SHAPE = (12, 5, 3)
BOX = ((0, 32), (0, 32), (0, 8))


def cut(steps: np.ndarray) -> list[int]:
    """What stays of the middle line of a bar between a positive and a negative point."""
    positive, negative = np.array([[1, 2, 1]]), np.array([[10, 2, 1]])
    mask = separate(np.ones(SHAPE, bool), steps, positive, negative)
    kept: list[int] = np.flatnonzero(mask[:, 2, 1]).tolist()
    return kept


def test_without_evidence_a_cut_is_half_way() -> None:
    assert cut(np.ones(SHAPE, np.float32)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("ridge", [3, 8])
def test_a_cut_follows_the_boundary_wherever_it_is(ridge: int) -> None:
    steps = np.ones(SHAPE, np.float32)
    steps[ridge] = 1 + RIDGE
    assert cut(steps) in (list(range(ridge)), list(range(ridge + 1)))


def test_what_a_cut_leaves_without_a_positive_point_goes() -> None:
    mask = np.ones((9, 9, 1), bool)
    mask[4, 1:] = False  # two halves that meet in one corner
    found = separate(
        mask, np.ones(mask.shape, np.float32), np.array([[1, 8, 0]]), np.array([[4, 0, 0]])
    )
    assert found[1, 8, 0] and not found[5:].any()


def test_boundaries_of_a_window_lie_between_its_objects() -> None:
    image = np.full(box_shape(BOX), 2, np.float32)
    image[20:] = 5
    here = source(image, grey_network())
    expected = np.zeros(image.shape, np.float32)
    expected[19:21] = 1.0
    window = here.features(BOX)
    np.testing.assert_array_equal(boundary_in(window, BOX, 1.0), expected)
    part = ((18, 25), (3, 9), (2, 3))
    np.testing.assert_array_equal(boundary_in(window, part, 1.0), expected[18:25, 3:9, 2:3])
    steps = ridges(here, part, np.array([[18, 4, 2]]))
    assert (steps[1:3] > 1).all() and (steps[0] == 1).all() and (steps[3:] == 1).all()


def bar() -> np.ndarray:
    """A body 20 wide with a neurite 4 wide on it."""
    mask = np.zeros((60, 40, 20), bool)
    mask[5:25, 5:25] = True
    mask[25:55, 12:16] = True
    return mask


@pytest.mark.parametrize(
    ("point", "central"),
    [
        ((15, 15, 10), True),
        ((6, 15, 10), False),
        ((8, 15, 10), True),  # four voxels from any border
        ((45, 13, 10), True),
        ((45, 12, 10), False),
    ],
)
def test_people_click_in_the_middle_of_what_they_mean(
    point: tuple[int, int, int], central: bool
) -> None:
    assert depth_at(bar(), point, (8.0, 8.0, 8.0)).central == central


def test_the_middle_is_a_share_of_the_depth() -> None:
    deep, middle = (depth_at(bar(), p, (8.0, 8.0, 8.0)) for p in ((8, 15, 10), (15, 15, 10)))
    assert deep.central and not deep.middle and middle.middle


def test_depth_counts_voxels_of_the_finest_axis_and_no_border_of_the_image() -> None:
    thick = np.zeros((21, 21, 9), bool)
    thick[4:17, 4:17] = True  # goes on beyond both faces along z
    assert depth_at(thick, (10, 10, 0), (8.0, 8.0, 40.0)).own == 7.0
    thick[..., 0] = False
    assert depth_at(thick, (10, 10, 1), (8.0, 8.0, 40.0)).own == 5.0  # one section is five
    assert depth_at(np.ones((9, 9, 9), bool), (0, 0, 0), (8.0, 8.0, 8.0)).own == REACH


def test_a_ball_by_hand() -> None:
    found = ball((7, 5, 3), (3, 2, 1), 2.0, (8.0, 8.0, 16.0))
    axes = np.meshgrid(np.arange(7) - 3, np.arange(5) - 2, 2 * (np.arange(3) - 1))
    distance = np.sqrt(sum(a.astype(float) ** 2 for a in axes)).transpose(1, 0, 2)
    np.testing.assert_array_equal(found, distance <= 2.0)
    assert found.sum() == 13 + 2
