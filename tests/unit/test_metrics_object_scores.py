"""Object scores against plain loops and scikit-image."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error as skimage_are
from skimage.metrics import variation_of_information as skimage_voi

from lib.metrics.object_scores import (
    Matches,
    adapted_rand_error,
    contingency,
    match_objects,
    object_report,
    variation_of_information,
)


def random_pair(seed: int, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, 5, size)
    guess = np.where(rng.random(size) < 0.6, np.maximum(truth, 0), rng.integers(0, 6, size))
    return truth, guess


@given(seed=st.integers(0, 10_000))
def test_adapted_rand_error_counts_pairs_of_voxels(seed: int) -> None:
    truth, guess = random_pair(seed, 25)
    inside = np.flatnonzero(truth > 0)
    pairs = list(combinations(inside, 2))
    same_truth = sum(truth[i] == truth[j] for i, j in pairs)
    same_guess = sum(guess[i] == guess[j] for i, j in pairs)
    same_both = sum(truth[i] == truth[j] and guess[i] == guess[j] for i, j in pairs)
    found = adapted_rand_error(contingency(truth, guess))
    if same_truth + same_guess:
        precision_recall = 2 * same_both / (same_truth + same_guess)
        assert found == pytest.approx(1 - precision_recall, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_figures_agree_with_scikit_image(seed: int) -> None:
    truth, guess = random_pair(seed, 4000)
    table = contingency(truth, guess)
    masked = np.maximum(truth, 0)
    expected_are, _, _ = skimage_are(masked, guess, ignore_labels=(0,))
    assert adapted_rand_error(table) == pytest.approx(expected_are, abs=1e-12)
    inside = truth > 0
    split, merge = skimage_voi(truth[inside], guess[inside])
    assert variation_of_information(table) == pytest.approx((split, merge), abs=1e-12)


def test_split_and_merge_have_their_own_figures() -> None:
    whole, halves = np.array([1] * 8), np.array([1] * 4 + [2] * 4)
    assert variation_of_information(contingency(whole, halves)) == (1.0, 0.0)
    assert variation_of_information(contingency(halves, whole)) == (0.0, 1.0)


@given(seed=st.integers(0, 10_000))
def test_matches_equal_a_plain_search(seed: int) -> None:
    truth, guess = random_pair(seed)
    known = truth >= 0
    matched = 0
    for t in set(truth[truth > 0].tolist()):
        for g in set(guess[known & (guess > 0)].tolist()):
            both = np.sum(known & (truth == t) & (guess == g))
            either = np.sum(known & ((truth == t) | (guess == g)))
            matched += both / either > 0.5
    objects = len(set(truth[truth > 0].tolist()))
    guesses = len(set(guess[known & (guess > 0)].tolist()))
    found = match_objects(contingency(truth, guess), 0.5 + 1e-9)
    assert (found.matched, found.false_alarms, found.missed) == (
        matched,
        guesses - matched,
        objects - matched,
    )


def test_two_halves_at_exactly_half_match_once() -> None:
    found = match_objects(contingency(np.array([1, 1]), np.array([1, 2])), 0.5)
    assert (found.matched, found.false_alarms, found.missed) == (1, 1, 0)


def test_unknown_voxels_change_nothing() -> None:
    truth, guess = random_pair(3, 500)
    other = np.where(truth < 0, 77, guess)
    assert object_report(contingency(truth, guess)) == object_report(contingency(truth, other))


def test_small_objects_are_left_out_of_the_matching_only() -> None:
    truth = np.array([1] * 10 + [2] * 2)
    guess = np.array([1] * 10 + [0] * 2)
    assert match_objects(contingency(truth, guess), 0.5).average_precision == 0.5
    assert match_objects(contingency(truth, guess), 0.5, min_voxels=5).average_precision == 1.0


def test_huge_ids_do_not_collide() -> None:
    truth = np.array([2**40, 2**40 + 1, 5, 5], np.int64)
    guess = np.array([2**32 - 2, 2**32 - 3, 9, 9], np.uint32)
    report = object_report(contingency(truth, guess))
    assert (report.are, report.voi_split, report.voi_merge) == (0.0, 0.0, 0.0)
    assert report.matches[0.75].matched == 3


def test_nothing_known_gives_no_figures_and_valid_json() -> None:
    report = object_report(contingency(np.full(4, -1), np.arange(4)))
    assert report.voxels == 0 and math.isnan(report.are)
    assert json.loads(json.dumps(report.to_dict()))["ap_50"] is None


def test_one_object_for_everything_shows_in_the_largest_share() -> None:
    report = object_report(contingency(np.array([1, 2, 3, 4]), np.array([7, 7, 7, 8])))
    assert report.largest_share == 0.75


def test_predicted_objects_that_are_too_small_match_nothing() -> None:
    """A prediction covers 8 of 10 voxels of an object: found with a limit of 8, not of 9."""
    truth, guess = np.repeat([1, 2], 10), np.repeat([5, 0, 6], [8, 2, 10])
    table = contingency(truth, guess)
    assert match_objects(table, 0.5, 8) == Matches(2, 0, 0)
    found = match_objects(table, 0.5, 9)
    assert found == Matches(1, 0, 1) and found.average_precision == 0.5
