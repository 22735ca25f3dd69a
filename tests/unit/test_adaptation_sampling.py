"""What rows stand for, how they are drawn, and the stack of heads that learns from them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from adaptation_cases import HIERARCHY, UNKNOWN, rows_of, saying, two_classes
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.adaptation.refit import RefitOptions, _draw, _ends, _schedule, change_of, refit
from lib.adaptation.row_losses import Targets, divergence, rows_at, voxel_losses
from lib.adaptation.rows import FOLDS, LEAST_ROWS, MOST_ROWS, Lattice, _thinned
from lib.adaptation.stack import Stack


@settings(max_examples=25)
@given(
    count=st.integers(1, 400),
    blocks=st.integers(1, 5),
    most=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_thinned_rows_stand_for_all_that_were_there(
    count: int, blocks: int, most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    block = rng.integers(0, blocks, count)
    values = rng.choice([1, 2, UNKNOWN], count).astype(np.int32)
    weight = rng.integers(1, 9, count).astype(float)
    known = values != UNKNOWN
    kept, share = _thinned(block, values, weight, known, most, np.random.default_rng(0))
    assert (np.diff(kept) > 0).all(), "ascending, none twice"
    groups = len(np.unique(np.stack([block, values], 1)[known], axis=0))
    limit = min(max(most // max(groups, 1), LEAST_ROWS), MOST_ROWS)
    for b, v in itertools.product(range(blocks), (1, 2, UNKNOWN)):
        here, stays = (block == b) & (values == v), (block[kept] == b) & (values[kept] == v)
        assert stays.sum() == min(here.sum(), limit)
        assert share[stays].sum() == pytest.approx(weight[here].sum())


def test_blocks_of_an_item_have_numbers_of_their_own() -> None:
    corners = np.array(list(itertools.product(range(0, 320, 16), range(0, 160, 16), (0, 4, 8))))
    ids, fold, near = Lattice("item", (16, 16, 4)).place(corners.astype(np.int64))
    assert len(np.unique(ids)) == len(corners) and (ids >= 0).all()
    assert fold.min() == 0 and fold.max() == FOLDS - 1
    assert ((near >> fold) & 1 == 1).all(), "a block's own fold is near it"


def test_neighbouring_blocks_are_held_back_at_different_times() -> None:
    size = np.array([16, 16, 4])
    at = np.array([[3, 5, 2]]) * size
    (own,) = Lattice("item", (16, 16, 4)).place(at)[1]
    for step in ((1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1)):
        (other,) = Lattice("item", (16, 16, 4)).place(at + np.array(step) * size)[1]
        assert other != own


def test_rows_are_drawn_as_often_as_they_weigh() -> None:
    ends = _ends(torch.tensor([1.0, 0.0, 3.0, 0.0]))
    drawn = _draw(ends, 4000, torch.Generator().manual_seed(0))
    assert (drawn.diff() >= 0).all(), "ascending: reads go through memory in order"
    share = torch.bincount(drawn, minlength=4) / 4000
    assert share.tolist() == pytest.approx([0.25, 0.0, 0.75, 0.0], abs=0.03)


def test_the_rate_rises_quickly_and_falls_to_nothing() -> None:
    rates = [_schedule(step, 100) for step in range(101)]
    assert rates[0] == 0.0 and rates[100] == pytest.approx(0.0, abs=1e-6)
    assert max(rates) == rates[5] > 0.99, "five in a hundred steps of warmup"
    assert all(a >= b for a, b in itertools.pairwise(rates[5:]))
    assert rates[50] == pytest.approx(0.5)
    assert _schedule(0, 0) == 0.0, "no steps are no division by nothing"


def test_divergence_by_hand() -> None:
    """KL of (1/2, 1/2) from (1/4, 3/4) is log(2/sqrt 3) in each row, whatever else is there."""
    before = torch.zeros((2, 3, 2))
    after = torch.tensor([0.25, 0.75]).log().expand(1, 3, 2)
    after = torch.cat([after, before[:1]])
    found = divergence(before, after)
    assert found.tolist() == pytest.approx([math.log(2 / math.sqrt(3)), 0.0], abs=1e-6)


def test_rows_at_places_are_those_of_a_subscription() -> None:
    values = torch.arange(24).view(6, 4)
    index = torch.tensor([[5, 0, 5], [1, 2, 3]])
    assert torch.equal(rows_at(values, index), values[index])
    assert torch.equal(rows_at(values[:, 0], index), values[:, 0][index])


def test_losses_of_several_models_are_those_of_each() -> None:
    draw = torch.Generator().manual_seed(0)
    classes = torch.randn((3, 8, HIERARCHY.num_classes), generator=draw)
    groups = torch.randn((3, 8, HIERARCHY.num_groups), generator=draw)
    sets = torch.tensor([1, 2, UNKNOWN, 3, *HIERARCHY.group_sets[:3], 1 << 7])
    targets = Targets.of(sets, HIERARCHY)
    found = voxel_losses(classes, groups, targets, 0.3)
    assert found.shape == (3, 8)
    for model in range(3):
        own = voxel_losses(classes[model], groups[model], targets, 0.3)
        assert torch.allclose(found[model], own)
    without = voxel_losses(classes, groups[..., :0], targets, 0.3)
    assert torch.equal(without, voxel_losses(classes, groups, targets, 0.0))
    some = torch.tensor([[7, 0], [1, 1]])
    assert torch.equal(targets[some].members, targets.members[some])


def test_stacked_models_start_alike_and_answer_as_their_modules() -> None:
    features = torch.randn((50, 5), generator=torch.Generator().manual_seed(0)) * 3 + 7
    stack = Stack(features, {"semantic": 3, "coarse": 2}, 2, 4, seed=1, beside=2)
    standard = stack.standard(features)
    assert standard.mean(0).abs().max() < 1e-4
    assert standard.std(0, correction=0).tolist() == pytest.approx([1.0] * 5, abs=1e-2)
    assert (stack(standard) == 0).all(), "heads of no change"
    with torch.no_grad():
        for number, parameter in enumerate(stack.parameters):
            noise = torch.Generator().manual_seed(number)
            parameter.add_(torch.randn(parameter.shape, generator=noise))
        found = stack(standard)
    assert found.shape == (2, 50, 5) and not torch.allclose(found[0], found[1])
    modules = stack.modules()
    for number, module in enumerate(modules):
        assert module.outputs == {"semantic": 3, "coarse": 2} and module.beside == 2
        assert not any(p.requires_grad for p in module.parameters()) and not module.training
        said = torch.cat(list(change_of(module, features).values()), -1)
        assert torch.allclose(said, found[number], atol=1e-4)
    before = modules[0].inner.weight.clone()
    with torch.no_grad():
        stack.parameters[0].zero_()
    assert torch.equal(modules[0].inner.weight, before), "modules are copies"


def test_a_feature_that_never_changes_is_no_division_by_nothing() -> None:
    stack = Stack(torch.full((9, 3), 5.0), {"semantic": 2}, 1, 4, seed=0)
    assert torch.isfinite(stack.standard(torch.full((2, 3), 6.0))).all()


def test_the_start_of_heads_leaves_other_draws_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    one, other = (Stack(torch.zeros((2, 3)), {"semantic": 2}, 1, 4, seed) for seed in (0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(one.parameters[0], other.parameters[0])


def test_a_network_without_groups_is_refitted_alike() -> None:
    features, sets = two_classes(400)
    rows = rows_of(features, sets)
    before = saying(3, 400)
    without = type(before)(before.classes, before.groups[:, :0])
    options = RefitOptions(steps=20, width=8, beside=0)
    (heads,) = refit(rows, without, None, [None], HIERARCHY, options)
    assert list(heads.outputs) == ["semantic"]
    assert bool((change_of(heads, features)["semantic"] != 0).any())


def test_a_refit_is_the_same_each_time_and_another_by_another_seed() -> None:
    features, sets = two_classes(400)
    rows, before = rows_of(features, sets), saying(3, 400)
    found = []
    for seed in (0, 0, 1):
        options = RefitOptions(steps=5, width=8, beside=0, seed=seed)
        (heads,) = refit(rows, before, None, [None], HIERARCHY, options)
        found.append(heads.outer.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_unknown_voxels_stay_as_they_are_where_one_side_is_known() -> None:
    """Axon alone was painted: what nobody labelled is held to what was said of it."""
    features, _ = two_classes(800)
    sets = torch.where(torch.arange(800) % 2 == 0, 1 << 3, UNKNOWN)
    rows, before = rows_of(features, sets, blocks=15), saying(2, 800, sure=2.0)
    moved = {}
    for weight in (0.0, 5.0):
        options = RefitOptions(steps=60, width=16, beside=0, unknown=weight)
        (heads,) = refit(rows, before, None, [None], HIERARCHY, options)
        quiet = change_of(heads, features[sets == UNKNOWN])["semantic"]
        moved[weight] = float(divergence(before.classes[None, :400], before.classes[:400] + quiet))
    assert moved[5.0] < 0.7 * moved[0.0]
