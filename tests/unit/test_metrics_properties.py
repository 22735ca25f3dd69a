"""What no data may change in the figures of objects, classes and simulated clicks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.labels.hierarchy import load_hierarchy
from lib.metrics.class_scores import ClassScores
from lib.metrics.click_scores import LIMIT, ClickScores
from lib.metrics.clicks import (
    FIRST_CLICK_DEPTHS,
    Click,
    error_click,
    first_click,
    mask_iou,
    seeded_generator,
    simulate_clicks,
)
from lib.metrics.object_scores import (
    adapted_rand_error,
    best_overlaps,
    contingency,
    match_objects,
    object_report,
    variation_of_information,
)

H = load_hierarchy()
SIZE = (4.0, 5.0, 40.0)
IDS = st.integers(-1, 4)
PAIRS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(arrays(np.int64, n, elements=IDS), arrays(np.int64, n, elements=IDS))
)
MASKS = st.tuples(*[st.integers(1, 6)] * 3).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape), arrays(bool, shape))
)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_the_table_counts_each_pair_of_known_voxels_once(pair) -> None:
    truth, guess = pair
    table = contingency(truth, guess)
    found = dict(
        zip(
            zip(table.truth.tolist(), table.guess.tolist(), strict=True),
            table.counts.tolist(),
            strict=True,
        )
    )
    for t, g in itertools.product(range(5), range(5)):
        assert found.pop((t, g), 0) == ((truth == t) & (np.maximum(guess, 0) == g)).sum()
    assert not found
    assert (
        contingency(truth.reshape(1, -1).T, guess.reshape(1, -1).T).counts.sum()
        == (truth >= 0).sum()
    )


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(0, 1000))
def test_names_of_objects_change_no_figure(pair, seed) -> None:
    truth, guess = pair
    rng = np.random.default_rng(seed)
    names = np.concatenate([[0], rng.choice(2**40, 4, replace=False) + 1])
    renamed = names[np.maximum(guess, 0)]
    moved = np.where(truth < 0, truth, names[::-1][:5][4 - np.maximum(truth, 0)])
    assert object_report(contingency(moved, renamed)).to_dict() == pytest.approx(
        object_report(contingency(truth, guess)).to_dict()
    )


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_the_truth_itself_is_perfect(pair) -> None:
    truth, _ = pair
    table = contingency(truth, truth)
    if not (truth > 0).any():
        assert math.isnan(adapted_rand_error(table))
        assert all(math.isnan(v) for v in variation_of_information(table))
        return
    assert adapted_rand_error(table) == 0 and variation_of_information(table) == (0, 0)
    assert match_objects(table, 1.0).average_precision == 1.0
    assert set(best_overlaps(table).values()) == {1.0}


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(0, 4))
def test_best_overlaps_are_what_a_plain_loop_finds(pair, least) -> None:
    truth, guess = pair
    known = truth >= 0
    expected = {}
    for t in np.unique(truth[truth > 0]).tolist():
        mine = truth == t
        if mine.sum() < least:
            continue
        overlaps = [
            (mine & (guess == g)).sum() / (known & (mine | (guess == g))).sum()
            for g in np.unique(guess[known & (guess > 0)])
        ]
        expected[t] = max(overlaps, default=0.0)
    assert best_overlaps(contingency(truth, guess), least) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from([0.1, 0.3, 0.5, 0.75]))
def test_matches_are_one_to_one_and_fall_with_the_threshold(pair, threshold) -> None:
    table = contingency(*pair)
    found, stricter = match_objects(table, threshold), match_objects(table, threshold + 0.2)
    objects = len(np.unique(pair[0][pair[0] > 0]))
    guesses = len(np.unique(pair[1][(pair[1] > 0) & (pair[0] >= 0)]))
    assert found.matched + found.missed == objects
    assert found.matched + found.false_alarms == guesses
    assert stricter.matched <= found.matched


def test_where_pairs_compete_the_best_one_is_taken() -> None:
    """Below half: object 1 overlaps both predictions, and the better is left for it."""
    truth = np.repeat([1, 1, 1, 2, 2], [3, 4, 3, 3, 3])
    guess = np.repeat([7, 8, 0, 7, 0], [3, 4, 3, 3, 3])
    assert match_objects(contingency(truth, guess), 0.3).matched == 2
    assert match_objects(contingency(truth, guess), 0.35).matched == 1


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth of shape \(2,\), prediction of shape \(3,\)"):
        contingency(np.zeros(2, int), np.zeros(3, int))


@settings(max_examples=40, deadline=None)
@given(
    truth=arrays(np.int32, 12, elements=st.sampled_from([1, 2, 4, 6, H.unknown])),
    guess=arrays(np.int64, 12, elements=st.integers(-1, 3)),
)
def test_scores_of_sets_are_bounded_and_agree(truth, guess) -> None:
    scores = ClassScores(H)
    scores.update(truth, guess)
    report = scores.result()
    for score in (*report.by_class.values(), *report.by_set.values(), *report.exact.values()):
        if score.support or score.false_alarms:
            assert 0 <= score.iou <= score.dice <= 1
            assert score.dice == pytest.approx(2 * score.iou / (1 + score.iou))
        else:
            assert math.isnan(score.iou) and math.isnan(score.dice)
    assert report.confusion.sum() <= report.voxels == (truth != H.unknown).sum()
    back = ClassScores(H)
    back.add_rows(scores.rows())
    assert back.counts == scores.counts and scores.rows().shape == (len(scores.counts), 3)


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_an_error_click_lies_on_an_error_that_is_known(masks) -> None:
    truth, answer, known = masks
    wrong = (truth != answer) & known
    click = error_click(truth, answer, known, SIZE, seeded_generator("a", 1))
    assert (click is None) == (not wrong.any())
    if click is not None:
        assert wrong[click.position] and click.positive == truth[click.position]


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_the_overlap_of_masks_is_symmetric_and_of_known_voxels(masks) -> None:
    truth, answer, known = masks
    found = mask_iou(truth, answer, known)
    assert found == mask_iou(answer, truth, known)
    either = (truth | answer) & known
    assert found == ((truth & answer & known).sum() / either.sum() if either.any() else 1.0)
    assert mask_iou(truth, truth) == 1.0


def test_the_first_click_lies_at_depths_between_border_and_centre() -> None:
    """Of a rod along z; where sections are thick the depth is that in plane."""
    truth = np.zeros((21, 21, 30), bool)
    truth[2:19, 2:19, 1:29] = True
    low, high = (share * 9 * SIZE[0] for share in FIRST_CLICK_DEPTHS)
    depths = set()
    for n in range(60):
        x, y, z = first_click(truth, SIZE, seeded_generator("rod", n)).position
        depth = min((min(x, 20 - x) - 1) * 4, (min(y, 20 - y) - 1) * 5, min(z, 29 - z) * 40)
        assert low <= depth <= high
        depths.add(depth)
    assert len(depths) > 3


def test_a_voxel_alone_is_clicked() -> None:
    truth = np.zeros((5, 4, 3), bool)
    truth[3, 2, 1] = True
    assert first_click(truth, SIZE, seeded_generator("a", 1)) == Click((3, 2, 1), True)
    nothing = np.zeros_like(truth)
    assert error_click(nothing, truth, None, SIZE, seeded_generator("a", 1)) == Click(
        (3, 2, 1), False
    )


@pytest.mark.parametrize(
    ("qualities", "clicks"),
    [([1.0], 1), ([0.5, 1.0], 2), ([0.95] * 30, 10), ([0.5] * 11 + [0.92], 12), ([0.5] * 30, 20)],
)
def test_a_session_ends_when_it_is_perfect_good_enough_or_too_long(qualities, clicks) -> None:
    truth = np.zeros((100, 1, 1), bool)
    truth[:] = True

    def answer(points: list[Click]) -> np.ndarray:
        mask = np.zeros_like(truth)
        mask[: round(100 * qualities[len(points) - 1])] = True
        return mask

    made, quality = simulate_clicks(answer, truth, None, SIZE, seeded_generator("a", 1))
    assert len(made) == len(quality) == clicks
    assert quality == pytest.approx(qualities[:clicks])
    scores = ClickScores()
    scores.update(quality)
    reached = [n for n, q in enumerate(qualities[:clicks], 1) if q >= 0.85]
    assert scores.needed(0.85) == [reached[0] if reached else LIMIT]
