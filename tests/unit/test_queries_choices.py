"""What each strategy's figure is made of: by hand, and against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queries_cases import candidates

from lib.configs.settings import QuerySettings
from lib.queries.acquisition import (
    choose_disagreement,
    choose_diverse,
    choose_random,
    choose_uncertain,
    sharpness,
)

NAMES, SETTLED = ("a", "b"), 10_000
SURE = QuerySettings(class_share=0.0, sharpness=(200.0, 200.0), diverse_share=1.0)
"""Powers so high that noise decides nothing."""
NOTHING = np.zeros((0, 3), np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_random_leaves_what_is_annotated_alone() -> None:
    pool = candidates(n=4, known=[0.0, 1.0, 1.0, 1.0])
    picks = {choose_random(pool, (0, 1), rng(seed)).index for seed in range(30)}
    assert picks == {0}


def test_random_is_in_proportion_to_tissue_that_is_open() -> None:
    share = np.array([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2], [0.0, 1.0]])
    pool = candidates(n=4, class_share=share, known=[0.0, 0.0, 0.75, 0.0])
    generator = rng()
    picks = np.bincount(
        [choose_random(pool, (0,), generator).index for _ in range(2000)], minlength=4
    )
    assert picks / 2000 == pytest.approx([2 / 3, 1 / 6, 1 / 6, 0.0], abs=0.04)


def test_random_says_how_much_of_it_is_tissue() -> None:
    pool = candidates(n=1, class_share=[[0.3, 0.45]])
    choice = choose_random(pool, (0, 1), rng())
    assert choice.score == pytest.approx(0.75) and "75% of it is tissue" in choice.reason


def test_random_answers_where_nothing_is_tissue() -> None:
    assert choose_random(candidates(n=3), (), rng()).index in (0, 1, 2)


def test_the_rank_counts_those_that_are_better() -> None:
    pool = candidates(n=4, entropy=[0.1, 0.4, 0.3, 0.4])
    choice = choose_uncertain(pool, NAMES, SETTLED, SURE, rng())
    assert choice.reason == "mean entropy 0.400, rank 1 of 4"
    noisy = QuerySettings(class_share=0.0, sharpness=(1e-3, 1e-3))
    found = {}
    for seed in range(60):
        choice = choose_uncertain(pool, NAMES, 0, noisy, rng(seed))
        found[choice.index] = choice.reason.rpartition(", ")[2]
    assert found == {0: "rank 4 of 4", 1: "rank 1 of 4", 2: "rank 3 of 4", 3: "rank 1 of 4"}


def test_without_any_uncertain_class_all_voxels_decide() -> None:
    pool = candidates(n=3, class_entropy=np.zeros((3, 2)), entropy=[0.1, 0.1, 0.6])
    always = QuerySettings(class_share=1.0, sharpness=(200.0, 200.0))
    choice = choose_uncertain(pool, NAMES, 0, always, rng())
    assert choice.index == 2 and choice.reason.startswith("mean entropy 0.600")


@pytest.mark.parametrize(("served", "power"), [(0, 2.0), (5, 4.0), (10, 8.0), (11, 8.0), (99, 8.0)])
def test_the_power_goes_geometrically_to_the_settled_one(served: int, power: float) -> None:
    queries = QuerySettings(sharpness=(2.0, 8.0), settle_after=10)
    assert sharpness(served, queries) == pytest.approx(power)


def test_noise_draws_in_proportion_to_the_powered_score() -> None:
    """Scores 1 : 3 at power 2 are drawn 1 : 9."""
    pool = candidates(n=2, entropy=[0.1, 0.3])
    queries = QuerySettings(class_share=0.0, sharpness=(2.0, 2.0))
    generator = rng()
    picks = [choose_uncertain(pool, NAMES, 0, queries, generator).index for _ in range(3000)]
    assert np.mean(picks) == pytest.approx(0.9, abs=0.02)


def test_each_disagreement_is_taken_by_its_own_mean() -> None:
    """Heads: 1, 1 and 4 times a sixth of their sum; clicks a hundred times smaller, and equal."""
    pool = candidates(
        n=3, disagreement=[0.1, 0.1, 0.4], prompted=[0.004, 0.001, 0.001], known=[0, 0, 0.5]
    )
    choice = choose_disagreement(pool, SETTLED, SURE, rng())
    # region 0: 0.5 + 2, region 1: 0.5 + 0.5, region 2: half of 2 + 0.5
    assert choice.index == 0 and choice.score == pytest.approx(2.5)
    assert choice.reason == (
        "automatic and prompted classes differ, 2.0 times the mean, rank 1 of 3"
    )
    open_all = candidates(n=3, disagreement=[0.1, 0.1, 0.5], prompted=[0.004, 0.001, 0.001])
    choice = choose_disagreement(open_all, SETTLED, SURE, rng())
    assert choice.index == 2 and choice.score == pytest.approx(0.5 / (0.7 / 3) + 0.5)
    assert choice.reason.startswith("fine and coarse head differ, 2.1 times the mean")


def test_no_disagreement_anywhere_is_no_division_by_nothing() -> None:
    flat = candidates(n=3, disagreement=np.zeros(3), prompted=np.zeros(3))
    choice = choose_disagreement(flat, 0, SURE, rng())
    assert choice.score == 0.0 and 0 <= choice.index < 3


def farthest(features: Any, covered: Any, open_share: Any) -> tuple[int, float]:
    """The k-centre choice by plain loops over standardised features."""
    both = np.concatenate([features, covered]).astype(float)
    spread = both.std(0) + 1e-6
    best = (-1, -1.0)
    for i, row in enumerate(features):
        near = min(float(np.linalg.norm((row - c) / spread)) for c in covered)
        if near * open_share[i] > best[1]:
            best = (i, near * open_share[i])
    return best


@settings(max_examples=40)
@given(
    n=st.integers(1, 6), m=st.integers(1, 5), width=st.integers(1, 4), seed=st.integers(0, 10_000)
)
def test_diverse_is_the_farthest_from_the_nearest_covered(
    n: int, m: int, width: int, seed: int
) -> None:
    made = rng(seed)
    features, covered = (made.normal(3.0, 2.0, (k, width)).astype(np.float32) for k in (n, m))
    known = made.random(n) * 0.5
    pool = candidates(n=n, features=features, known=known)
    choice = choose_diverse(pool, covered, SURE, rng())
    expected = farthest(features, covered, 1 - known)
    assert choice.score == pytest.approx(expected[1], rel=1e-3, abs=1e-3)


def test_diverse_looks_at_more_covered_regions_than_go_at_once() -> None:
    """The nearest is among the last of 300, beyond the first piece of 256."""
    covered = np.full((300, 3), 50.0, np.float32)
    covered[-1] = 0.0
    pool = candidates(n=2, features=[[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    assert choose_diverse(pool, covered, SURE, rng()).index == 1


def test_diverse_keeps_a_share_of_the_most_uncertain_that_are_open() -> None:
    """Of four regions half stay: that of entropy 0.9 is nearly all known, so it does not."""
    pool = candidates(
        n=4,
        entropy=[0.9, 0.5, 0.4, 0.3],
        known=[0.9, 0.0, 0.0, 0.0],
        features=[[90.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [80.0, 0, 0]],
    )
    queries = QuerySettings(diverse_share=0.5)
    choice = choose_diverse(pool, np.zeros((1, 3), np.float32), queries, rng())
    assert choice.index == 2
    assert choice.reason.startswith("of the 50% most uncertain the one most unlike")


def test_diverse_before_anything_is_covered_is_the_most_uncertain() -> None:
    pool = candidates(n=3, entropy=[0.2, 0.6, 0.6], known=[0.0, 0.5, 0.25])
    choice = choose_diverse(pool, NOTHING, SURE, rng())
    assert choice.index == 2 and choice.score == pytest.approx(0.45)
    assert choice.reason == "mean entropy 0.450, the highest"


def test_a_single_region_is_chosen_whatever_is_asked() -> None:
    pool = candidates(n=1)
    assert choose_uncertain(pool, NAMES, 0, SURE, rng()).index == 0
    assert choose_disagreement(pool, 0, SURE, rng()).index == 0
    tiny = QuerySettings(diverse_share=0.001)
    assert choose_diverse(pool, np.ones((2, 3), np.float32), tiny, rng()).index == 0
