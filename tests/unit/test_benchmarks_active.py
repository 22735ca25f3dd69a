"""The verdict on strategies: only a gain above the spread over seeds counts."""

import numpy as np
import pytest

from benchmarks.active_report import gains, load_runs, summarise, verdict

ARMS = ("plain random", "random", "hierarchy", "diverse", "uncertainty")
GAINS = {
    "random": (0.0, 0.0, 0.0),
    "hierarchy": (0.02, 0.03, 0.04),
    "diverse": (0.02, -0.03, 0.04),
    "uncertainty": (-0.02, -0.03, -0.04),
    "plain random": (0.1, 0.2),
}


@pytest.fixture
def runs():
    """Seeds differ more than arms do, as they do in truth."""
    return [
        {
            "data": "d", "arm": arm, "seed": seed,
            "rows": [
                {"boxes": 2 + 2 * n, "mean_iou": 0.1 * seed + 0.1 * n + (n > 0) * gain}
                for n in range(3)
            ],
        }
        for arm, found in GAINS.items()
        for seed, gain in enumerate(found)
    ]  # fmt: skip


def test_gains_are_taken_seed_by_seed(runs):
    np.testing.assert_allclose(gains(runs, "d", "hierarchy", "random"), GAINS["hierarchy"])
    np.testing.assert_allclose(gains(runs, "d", "random", "plain random"), (-0.1, -0.2))


@pytest.mark.parametrize(
    ("arm", "word"),
    [
        ("hierarchy", "BEATS `random`: +0.030, spread over 3 seeds 0.010"),
        ("diverse", "level with `random`"),
        ("uncertainty", "behind `random`: -0.030"),
        ("plain random", "2 seeds in common with `random`, too few to tell"),
    ],
)
def test_a_gain_counts_when_it_exceeds_the_spread(runs, arm, word):
    assert word in verdict(runs, "d", arm)


def test_the_table_has_every_round_with_its_spread(runs):
    table = summarise(runs, ARMS)
    assert "| 2 boxes | 4 boxes | 6 boxes |" in table
    assert "| random | 0.100 ± 0.100 | 0.200 ± 0.100 | 0.300 ± 0.100 | - |" in table
    assert "+0.020, +0.030, +0.040" in table


def test_a_line_cut_short_is_left_out(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"arm": "random"}\n{"arm": "div')
    assert load_runs(tmp_path / "r.jsonl") == [{"arm": "random"}]
