"""The simulated annotator and the figures of its sessions."""

import math

import numpy as np
import pytest

from lib.metrics.click_scores import ClickScores
from lib.metrics.clicks import (
    Click,
    error_click,
    first_click,
    mask_iou,
    seeded_generator,
    simulate_clicks,
)

VOXEL = (4.0, 4.0, 40.0)


def ball(center: tuple[int, int, int], radius: float, shape: tuple[int, ...]) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    offset = grid - np.array(center).reshape(3, 1, 1, 1)
    return (offset**2).sum(0) <= radius**2


def test_the_first_click_is_inside_and_off_the_centre() -> None:
    truth = ball((15, 15, 15), 9, (30, 30, 30))
    clicks = [first_click(truth, (1, 1, 1), seeded_generator("a", n)) for n in range(40)]
    distances = [math.dist(c.position, (15, 15, 15)) for c in clicks]
    assert all(c.positive and truth[c.position] for c in clicks)
    assert min(distances) > 1.0 and max(distances) < 9.0
    assert len({c.position for c in clicks}) > 30


def test_sessions_repeat_and_objects_differ() -> None:
    truth = ball((10, 10, 5), 4, (20, 20, 10))
    again = [first_click(truth, VOXEL, seeded_generator("item", 7)) for _ in range(2)]
    assert again[0] == again[1]
    other = [first_click(truth, VOXEL, seeded_generator("item", n)).position for n in range(8)]
    assert len(set(other)) > 1


def test_an_error_click_falls_in_the_largest_error_and_has_its_sign() -> None:
    truth = ball((8, 8, 8), 5, (40, 20, 20))
    answer = truth.copy()
    answer[7:9, 7:9, 7:9] = False  # a small hole
    extra = ball((28, 8, 8), 6, truth.shape)
    generator = seeded_generator("x", 1)
    for _ in range(10):
        click = error_click(truth, answer | extra, None, VOXEL, generator)
        assert click is not None and not click.positive and extra[click.position]
        click = error_click(truth, answer, None, VOXEL, generator)
        assert click is not None and click.positive and not answer[click.position]


def test_errors_on_unknown_voxels_draw_no_click() -> None:
    truth = ball((8, 8, 8), 5, (20, 20, 20))
    answer, known = truth.copy(), np.ones_like(truth)
    answer[0:3], known[0:3] = True, False
    assert error_click(truth, answer, known, VOXEL, seeded_generator("x", 1)) is None
    assert mask_iou(truth, answer, known) == 1.0 > mask_iou(truth, answer)


def test_depth_pulls_clicks_inwards_but_not_to_one_voxel() -> None:
    truth = ball((12, 12, 12), 10, (25, 25, 25))
    generator = seeded_generator("x", 2)
    nothing = np.zeros_like(truth)
    drawn = [error_click(truth, nothing, None, (1, 1, 1), generator) for _ in range(200)]
    radii = [math.dist(c.position, (12, 12, 12)) for c in drawn if c is not None]
    inside = np.argwhere(truth)
    uniform = np.linalg.norm(inside - 12, axis=1).mean()
    assert np.mean(radii) < uniform - 0.3
    assert np.std(radii) > 1.0


def test_a_2d_image_works() -> None:
    truth = ball((10, 10, 0), 6, (20, 20, 1))
    click = first_click(truth, VOXEL, seeded_generator("x", 3))
    assert truth[click.position] and click.position[2] == 0
    assert error_click(truth, ~truth, None, VOXEL, seeded_generator("x", 3)) is not None


def test_an_empty_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no voxel"):
        first_click(np.zeros((3, 3, 3), bool), VOXEL, seeded_generator("x", 1))


def test_a_session_ends_when_perfect_and_pads_its_curve() -> None:
    truth = ball((8, 8, 8), 5, (20, 20, 20))

    def answer(clicks: list[Click]) -> np.ndarray:
        return truth if len(clicks) >= 3 else truth & (np.arange(20) < 8)

    clicks, quality = simulate_clicks(answer, truth, None, VOXEL, seeded_generator("x", 4))
    assert len(clicks) == len(quality) == 3 and quality[-1] == 1.0
    scores = ClickScores()
    scores.update(quality)
    report = scores.result()
    assert report.iou_after[10] == 1.0 and report.iou_after[1] == quality[0]
    assert report.clicks_to[0.9] == 3 and report.failures[0.9] == 0


def test_a_method_that_never_succeeds_counts_twenty_clicks() -> None:
    truth = ball((8, 8, 8), 5, (20, 20, 20))
    clicks, quality = simulate_clicks(
        lambda _: np.zeros_like(truth), truth, None, VOXEL, seeded_generator("x", 5)
    )
    assert len(clicks) == 20
    scores = ClickScores()
    scores.update(quality)
    assert scores.result().clicks_to[0.8] == 20 and scores.result().failures[0.8] == 1


def test_figures_by_hand() -> None:
    scores, other = ClickScores(), ClickScores()
    scores.update([0.5, 0.82, 0.86, 0.91])
    other.update([0.8])
    scores.merge(other)
    report = scores.result()
    assert report.iou_after == {
        1: pytest.approx(0.65),
        2: pytest.approx(0.81),
        3: pytest.approx(0.83),
        5: pytest.approx(0.855),
        10: pytest.approx(0.855),
    }
    assert report.spread_after[1] == pytest.approx(0.15)
    assert report.clicks_to == {0.8: 1.5, 0.85: 11.5, 0.9: 12.0}
    assert report.failures == {0.8: 0, 0.85: 1, 0.9: 1}
    mean = ((0.5 + 0.82 + 0.86 + 7 * 0.91) / 10 + 0.8) / 2
    assert report.area == pytest.approx(mean)
    assert report.to_dict()["noc_85"] == 11.5
    with pytest.raises(ValueError, match="no session"):
        ClickScores().result()
    with pytest.raises(ValueError, match="at least one"):
        scores.update([])


def test_clicks_that_make_an_answer_much_worse_are_counted() -> None:
    scores = ClickScores()
    assert scores.update([0.9, 0.2, 0.75]) is None
    scores.update([0.5, 0.41, 0.95])  # worse by less than a tenth
    scores.update([0.8])
    assert scores.result().lost == 0.25


def test_sessions_of_one_click_have_figures() -> None:
    scores = ClickScores()
    scores.update([0.95])
    report = scores.result()
    assert report.lost == 0.0 and report.clicks_to[0.9] == 1 and report.area == 0.95
