"""What each strategy prefers."""

from __future__ import annotations

import numpy as np
import pytest
from queries_cases import candidates

from lib.configs.settings import QuerySettings
from lib.queries.acquisition import (
    choose_disagreement,
    choose_diverse,
    choose_random,
    choose_uncertain,
    sharpness,
)

NAMES = ("a", "b")
SETTLED = 10_000


def test_uncertainty_by_class_finds_the_rare_class() -> None:
    class_entropy = np.zeros((6, 2))
    class_entropy[:, 0] = 0.3
    class_entropy[4, 1] = 0.05
    pool = candidates(class_entropy=class_entropy, entropy=[0.1, 0.9, 0.1, 0.1, 0.1, 0.1])
    by_class = QuerySettings(class_share=1.0)
    overall = QuerySettings(class_share=0.0)
    rng = np.random.default_rng(0)
    picks = [choose_uncertain(pool, NAMES, SETTLED, by_class, rng) for _ in range(40)]
    rare = [c for c in picks if "about b" in c.reason]
    assert 8 < len(rare) < 32
    assert {c.index for c in rare} == {4}
    chosen = [choose_uncertain(pool, NAMES, SETTLED, overall, rng).index for _ in range(20)]
    assert set(chosen) == {1}


def test_noise_decays_with_the_number_of_queries() -> None:
    queries = QuerySettings(class_share=0.0, sharpness=(1.0, 100.0), settle_after=10)
    assert sharpness(0, queries) == 1.0
    assert sharpness(5, queries) == pytest.approx(10.0)
    assert sharpness(99, queries) == pytest.approx(100.0)
    pool = candidates(entropy=[0.2, 0.25, 0.2, 0.2, 0.2, 0.2])
    rng = np.random.default_rng(1)
    first = {choose_uncertain(pool, NAMES, 0, queries, rng).index for _ in range(60)}
    late = {choose_uncertain(pool, NAMES, 99, queries, rng).index for _ in range(60)}
    assert first == set(range(6))
    assert late == {1}


def test_what_is_known_already_counts_less() -> None:
    pool = candidates(entropy=[0.5, 0.4, 0.1, 0.1, 0.1, 0.1], known=[0.45, 0, 0, 0, 0, 0])
    queries = QuerySettings(class_share=0.0)
    rng = np.random.default_rng(0)
    assert choose_uncertain(pool, NAMES, SETTLED, queries, rng).index == 1


def test_disagreement_of_either_kind() -> None:
    queries, rng = QuerySettings(), np.random.default_rng(0)
    heads = candidates(disagreement=[0.01, 0.01, 0.3, 0.01, 0.01, 0.01])
    choice = choose_disagreement(heads, SETTLED, queries, rng)
    assert choice.index == 2 and "fine and coarse" in choice.reason
    clicks = candidates(prompted=[0.01, 0.01, 0.01, 0.01, 0.2, 0.01])
    choice = choose_disagreement(clicks, SETTLED, queries, rng)
    assert choice.index == 4 and "prompted" in choice.reason


def test_diverse_goes_far_from_what_is_covered_among_the_uncertain() -> None:
    features = np.zeros((6, 3))
    features[1], features[2], features[3] = (5, 0, 0), (0, 9, 0), (1, 0, 0)
    pool = candidates(entropy=[0.9, 0.8, 0.1, 0.85, 0.1, 0.1], features=features)
    queries, rng = QuerySettings(diverse_share=0.5), np.random.default_rng(0)
    assert choose_diverse(pool, np.zeros((0, 3), np.float32), queries, rng).index == 0
    assert choose_diverse(pool, np.zeros((1, 3), np.float32), queries, rng).index == 1


def test_random_follows_the_share_of_tissue() -> None:
    share = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    rng = np.random.default_rng(0)
    picks = [choose_random(candidates(class_share=share), (1,), rng).index for _ in range(60)]
    assert set(picks) == {3, 4, 5}
