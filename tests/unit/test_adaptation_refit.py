"""Refit: the criterion's losses on rows, nothing from what is unknown, zero change at the start."""

import math

import numpy as np
import pytest
import torch
from adaptation_cases import (
    AXON,
    DENDRITE,
    HIERARCHY,
    MYELIN,
    UNKNOWN,
    network,
    rows_of,
    saying,
    two_classes,
)

from lib.adaptation.one_sided import one_sided
from lib.adaptation.refit import RefitOptions, change_of, refit, scaled
from lib.adaptation.row_losses import Logits, Targets, voxel_losses, within_groups
from lib.adaptation.rows import Rows
from lib.labels.class_sets import coarse_targets
from lib.networks.study_heads import StudyHeads, mixed, with_study_heads

QUICK = RefitOptions(steps=60, width=16, beside=0)


def test_losses_by_hand() -> None:
    """Two classes at odds e to 1, the others e^-30: -log p of each voxel's set."""
    classes = torch.full((4, HIERARCHY.num_classes), -30.0)
    classes[:, AXON], classes[:, DENDRITE] = 1.0, 0.0
    groups = torch.zeros((4, HIERARCHY.num_groups))
    sets = torch.tensor([1 << AXON, 1 << DENDRITE, (1 << AXON) | (1 << DENDRITE), UNKNOWN])
    found = voxel_losses(classes, groups, Targets.of(sets, HIERARCHY), coarse=0.0)
    total = 1 + math.e
    expected = [math.log(total / math.e), math.log(total), 0.0, 0.0]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    # a logit of 0 costs log 2 for each known group, whose mean counts 0.2 times
    with_groups = voxel_losses(classes, groups, Targets.of(sets, HIERARCHY), coarse=0.2)
    _, known = coarse_targets(sets[None], HIERARCHY)
    extra = [0.2 * math.log(2) if k else 0.0 for k in known[0].any(0).tolist()]
    assert (with_groups - found).tolist() == pytest.approx(extra, abs=1e-6)


def test_unknown_rows_have_no_gradient() -> None:
    classes = torch.randn((6, HIERARCHY.num_classes), requires_grad=True)
    groups = torch.randn((6, HIERARCHY.num_groups), requires_grad=True)
    sets = torch.tensor([UNKNOWN, 1 << AXON, UNKNOWN, 1 << MYELIN, UNKNOWN, UNKNOWN])
    voxel_losses(classes, groups, Targets.of(sets, HIERARCHY), 0.2).sum().backward()
    quiet = sets == UNKNOWN
    for grad in (classes.grad, groups.grad):
        assert grad is not None
        assert bool((grad[quiet] == 0).all()) and bool((grad[~quiet] != 0).any(1).all())


def test_a_refit_learns_and_each_fold_only_from_the_others() -> None:
    features, sets = two_classes()
    rows = rows_of(features, sets)
    lie = rows.fold == 2
    rows.sets[lie] = 1 << MYELIN  # what a fold says of itself must not reach its own judge
    before = saying(AXON, len(rows))
    honest, everything = refit(rows, before, None, [2, None], HIERARCHY, QUICK)
    truth = torch.where(features[:, 0] > 0, AXON, DENDRITE)

    def guesses(heads: StudyHeads) -> torch.Tensor:
        return (before.classes + change_of(heads, features)["semantic"]).argmax(1)

    assert float((guesses(honest) == truth).float().mean()) > 0.97
    assert MYELIN not in guesses(honest).unique().tolist()
    assert MYELIN in guesses(everything).unique().tolist()


def test_rehearsal_rows_are_not_forgotten() -> None:
    """The study says axon everywhere; the training data know that some of it is myelin."""
    features, _ = two_classes()
    rows = rows_of(features, torch.full((len(features),), 1 << AXON))
    old = torch.randn((800, 4), generator=torch.Generator().manual_seed(1))
    old[:, 1] += 4.0
    logits = saying(MYELIN, len(old))
    rehearsal = (old, torch.full((len(old),), 1 << MYELIN), logits)
    kept = {}
    for weight in (0.0, 1.0):
        options = RefitOptions(steps=60, width=16, rehearsal=weight, beside=0)
        (heads,) = refit(rows, saying(DENDRITE, len(rows)), rehearsal, [None], HIERARCHY, options)
        guess = (logits.classes + change_of(heads, old)["semantic"]).argmax(1)
        kept[weight] = float((guess == MYELIN).float().mean())
    assert kept[1.0] > 0.95 and kept[1.0] > kept[0.0] + 0.2


def test_one_sided_means_next_to_no_negatives() -> None:
    sets = torch.full((24,), 1 << AXON)
    sets[:2], sets[2] = UNKNOWN, 1 << DENDRITE
    rows = rows_of(torch.zeros((24, 2)), sets)
    assert one_sided(rows, 1 << AXON, HIERARCHY)
    assert not one_sided(rows, 1 << DENDRITE, HIERARCHY)
    sets[3:5] = 1 << DENDRITE
    assert not one_sided(rows_of(torch.zeros((24, 2)), sets), 1 << AXON, HIERARCHY)


def test_a_class_that_is_nearly_everything_is_known_from_both_sides() -> None:
    sets = torch.full((1600,), 1 << AXON)
    sets[:8], sets[8:16] = 1 << MYELIN, 1 << DENDRITE  # one in each of 16 blocks
    assert not one_sided(rows_of(torch.zeros((1600, 2)), sets), 1 << AXON, HIERARCHY)
    for few in (slice(0, 6), slice(8, 16)):
        fewer = sets.clone()
        fewer[few] = 1 << AXON
        assert one_sided(rows_of(torch.zeros((1600, 2)), fewer), 1 << AXON, HIERARCHY)


def test_the_network_without_heads_is_asked_about_rows() -> None:
    net = network()
    heads = StudyHeads(net.feature_channels, {"semantic": 12, "coarse": 5}, 4)
    torch.nn.init.ones_(heads.outer.weight)
    features = torch.randn((7, net.feature_channels))
    plain = Logits.of(net, features)
    changed = with_study_heads(net, heads)
    assert torch.equal(Logits.of(changed, features).classes, plain.classes)
    out = changed.task_heads.rows(features, ("semantic",))["semantic"]
    assert not torch.allclose(out, plain.classes)
    same = net.task_heads.rows(features, ("semantic",))["semantic"]
    assert torch.allclose(same, plain.classes, atol=1e-6), "the published network is not touched"


def test_heads_of_no_change_are_the_published_network_and_strength_scales() -> None:
    net = network()
    heads = StudyHeads(net.feature_channels, {"semantic": 12, "coarse": 5}, 4)
    volume = torch.rand((1, 1, 16, 16, 8))
    with torch.no_grad():
        before = net(volume)
        after = with_study_heads(net, heads)(volume)
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)
    torch.nn.init.normal_(heads.outer.weight)
    features = torch.randn((5, net.feature_channels))
    whole, half = (change_of(scaled(heads, s), features)["semantic"] for s in (1.0, 0.5))
    assert torch.allclose(whole * 0.5, half, atol=1e-6)


def test_classes_that_are_not_used_share_what_is_left_as_before() -> None:
    old = torch.tensor([[0.5, 0.3, 0.2]]).log()
    new = torch.tensor([[0.1, 0.1, 0.8]]).log()
    used = torch.tensor([False, False, True])
    found = mixed("semantic", old, new, used).softmax(1)
    expected = [0.2 * 0.5 / 0.8, 0.2 * 0.3 / 0.8, 0.8]
    assert found[0].tolist() == pytest.approx(expected)
    groups = mixed("coarse", old, new, used)
    assert groups[0].tolist() == [old[0, 0], old[0, 1], new[0, 2]]


def test_rows_of_two_items_are_joined() -> None:
    features, sets = two_classes(8)
    rows = rows_of(features, sets)
    both = Rows.joined([rows, rows[torch.arange(3)]])
    assert len(both) == 11 and torch.equal(both.sets[8:], rows.sets[:3])


def test_within_a_group_shares_stay_as_they_were() -> None:
    """By hand: 1 to 1 before and 3 to 1 after within a set of two, whatever the rest does."""
    pair = (1 << AXON) | (1 << DENDRITE)
    wide = UNKNOWN & ~(1 << MYELIN)
    sets = torch.tensor([pair, pair, 1 << AXON, UNKNOWN, wide], dtype=torch.int32)
    before = torch.zeros((5, HIERARCHY.num_classes))
    after = before.clone()
    after[:, AXON] = float(np.log(3.0))
    after[1] = before[1] + 5.0  # all the same
    after.requires_grad_(True)
    found = within_groups(before, after, Targets.of(sets, HIERARCHY))
    expected = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    np.testing.assert_allclose(found.detach(), [expected, 0.0, 0.0, 0.0, 0.0], atol=1e-6)
    found.sum().backward()
    grad = after.grad
    assert grad is not None and bool(torch.isfinite(grad).all())
    assert grad[0, AXON] > 0 > grad[0, DENDRITE]
    others = [c for c in range(HIERARCHY.num_classes) if c not in (AXON, DENDRITE)]
    assert (grad[:, others] == 0).all() and (grad[2:] == 0).all()
