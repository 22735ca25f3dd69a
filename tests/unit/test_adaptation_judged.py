"""The figures of the gate: counts, IoU, correlation and plausibility, by hand and by formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adaptation_cases import AXON, DENDRITE, HIERARCHY, MYELIN, UNKNOWN, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.adaptation.judged import Judged, correlation, iou, plausible, union
from lib.adaptation.one_sided import any_one_sided

NEURITES = (1 << AXON) | (1 << DENDRITE)
CLASSES = HIERARCHY.num_classes


def judged(sets: list[int], blocks: int = 2, weight: float = 1.0) -> Judged:
    """Rows of these sets, of which nothing was said yet."""
    rows = rows_of(torch.zeros((len(sets), 1)), torch.tensor(sets), blocks, weight)
    none = torch.zeros((len(sets), CLASSES))
    return Judged(rows, rows.block, none, none.clone(), HIERARCHY)


def test_counts_by_hand_block_by_block() -> None:
    axon, dendrite, myelin = 1 << AXON, 1 << DENDRITE, 1 << MYELIN
    #        block 0    1        0        1       0        1        0
    sets = [axon, axon, dendrite, myelin, UNKNOWN, NEURITES, axon]
    guess = torch.tensor([AXON, MYELIN, AXON, MYELIN, AXON, AXON, AXON])
    found = judged(sets, weight=2.0).counts(guess, [axon, NEURITES])
    assert found.shape == (2, 2, 4)
    # "axon or dendrite" is no statement on axon; unknown is none on anything
    assert found[0].tolist() == [[4.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0]]
    # whatever is surely within the set is of it
    assert found[1].tolist() == [[6.0, 0.0, 0.0, 0.0], [2.0, 0.0, 2.0, 2.0]]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30))
def test_figures_are_those_of_sets_and_of_two_columns(pairs: list[tuple[bool, bool]]) -> None:
    truth, guess = np.array(pairs).T
    hits = (truth & guess, ~truth & guess, truth & ~guess, ~truth & ~guess)
    counts = torch.tensor([int(h.sum()) for h in hits], dtype=torch.float64)
    either = max(int((truth | guess).sum()), 1)
    assert float(iou(counts)) == pytest.approx((truth & guess).sum() / either)
    changes = truth.any() and guess.any() and not truth.all() and not guess.all()
    expected = np.corrcoef(truth, guess)[0, 1] if changes else 0.0
    assert float(correlation(counts)) == pytest.approx(expected, abs=1e-6)


def test_figures_of_nothing_are_nothing() -> None:
    none = torch.zeros((3, 4), dtype=torch.float64)
    assert iou(none).tolist() == [0.0, 0.0, 0.0]
    assert correlation(none).tolist() == [0.0, 0.0, 0.0]


def test_the_union_of_sets_has_the_members_of_any() -> None:
    assert union([1 << AXON, NEURITES, 1 << MYELIN], CLASSES).nonzero()[:, 0].tolist() == sorted(
        [AXON, DENDRITE, MYELIN]
    )
    assert not union([], CLASSES).any() and len(union([], CLASSES)) == CLASSES


def test_a_guess_takes_a_share_of_the_change_where_it_is_used() -> None:
    old, change = torch.zeros((1, CLASSES)), torch.zeros((1, CLASSES))
    old[0, DENDRITE], change[0, AXON] = 1.0, 3.0
    rows = rows_of(torch.zeros((1, 1)), torch.tensor([1 << AXON]), 1)
    case = Judged(rows, rows.block, old, change, HIERARCHY)
    everything = torch.ones(CLASSES, dtype=torch.bool)
    assert case.guess(1.0, everything).tolist() == [AXON]
    assert case.guess(0.25, everything).tolist() == [DENDRITE], "0.75 < 1"
    assert case.guess(0.5, everything).tolist() == [AXON], "1.5 > 1"
    assert case.guess(1.0, union([1 << MYELIN], CLASSES)).tolist() == [DENDRITE]


def painted(inside: int, outside: int) -> Judged:
    """Axon alone was painted, and nothing is said of other voxels."""
    return judged([1 << AXON] * inside + [UNKNOWN] * outside)


def saying(axon: list[bool]) -> torch.Tensor:
    return torch.where(torch.tensor(axon), AXON, DENDRITE)


def test_more_found_everywhere_is_not_plausible() -> None:
    case = painted(4, 8)
    before = saying([True, True, False, False] + [True] * 2 + [False] * 6)
    better = saying([True] * 4 + [True] * 2 + [False] * 6)
    flooded = saying([True] * 12)
    axon = 1 << AXON
    assert plausible(case, axon, before, better), "1 / (1/4) against (1/2)^2 / (1/4)"
    assert not plausible(case, axon, before, flooded), "1 / 1 is what calling everything axon has"
    assert not plausible(case, axon, before, before), "no gain"


def test_a_gain_over_little_must_still_beat_calling_everything_so() -> None:
    """From nothing found to (2/4)^2 / (2/8) = 1, below 1.25."""
    case = painted(4, 8)
    nothing = saying([False] * 12)
    some = saying([True, True, False, False] + [True] * 2 + [False] * 6)
    assert not plausible(case, 1 << AXON, nothing, some)
    fewer = saying([True, True, False, False] + [True] + [False] * 7)
    assert plausible(case, 1 << AXON, nothing, fewer), "(2/4)^2 / (1/8) = 2"


def test_without_unknown_voxels_nothing_is_plausible_of_one_side() -> None:
    case = painted(4, 0)
    assert not plausible(case, 1 << AXON, saying([False] * 4), saying([True] * 4))


def test_single_classes_alone_can_be_one_sided() -> None:
    both = [1 << AXON] * 8 + [1 << DENDRITE] * 8
    assert not any_one_sided(judged(both).rows, HIERARCHY)
    assert any_one_sided(judged([1 << AXON] * 8 + [UNKNOWN] * 8).rows, HIERARCHY)
    assert not any_one_sided(judged([NEURITES] * 8 + [UNKNOWN] * 8).rows, HIERARCHY)
    assert not any_one_sided(judged([UNKNOWN] * 8).rows, HIERARCHY)
