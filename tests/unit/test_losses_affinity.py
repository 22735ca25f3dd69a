"""Pairs of voxels and the affinity term: a plain loop says the same, unknown voxels say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from criterion_cases import ANISOTROPIC, HIERARCHY, cells, random_batch, random_outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.configs.settings import LossSettings
from lib.losses.affinity import LEAST_SHARE, affinity_term
from lib.losses.criterion import Criterion
from lib.targets.cells import (
    APART,
    PAIR_CHANNELS,
    REACH,
    TOGETHER,
    UNKNOWN,
    affinity_offsets,
    pair_targets,
)
from lib.targets.prepare import Targets, prepare_targets

ONLY = LossSettings(weight_semantic=0, weight_instance=0, weight_geometry=0, weight_affinity=1.0)
AXON, DENDRITE = (HIERARCHY.set_named(name) for name in ("axon", "dendrite"))
MITO, MYELIN = (HIERARCHY.set_named(name) for name in ("mitochondria", "myelin"))
SPACE = HIERARCHY.set_named("extracellular space")


def pairs_of(
    ids: np.ndarray, sets: np.ndarray | int, voxel: tuple[float, ...] = (10.0, 10.0, 10.0)
) -> torch.Tensor:
    """(A, *S) pair targets of one sample."""
    full = np.broadcast_to(sets, ids.shape).astype(np.int32).copy()
    batch = {
        "image": torch.zeros(1, 1, *ids.shape),
        "class_sets": torch.from_numpy(full)[None],
        "instance": torch.from_numpy(ids.astype(np.int64))[None],
        "voxel_size_nm": torch.tensor([voxel]),
    }
    found = prepare_targets(batch, HIERARCHY, ONLY).pairs
    assert found is not None
    return found[0]


def test_partners_lie_equally_far_in_nm() -> None:
    assert len(affinity_offsets((10, 10, 10))) == PAIR_CHANNELS
    assert affinity_offsets((10, 10, 10))[3:6] == ((3, 0, 0), (0, 3, 0), (0, 0, 3))
    thick = affinity_offsets((9.2, 9.2, 50))
    assert [o[2] for o in thick[2::3]] == [1, 1, 2]
    assert [o[0] for o in thick[0::3]] == list(REACH)
    turned = affinity_offsets((50, 9.2, 9.2))
    assert [o[0] for o in turned[0::3]] == [1, 1, 2]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(10.0, 10.0, 10.0), ANISOTROPIC]))
def test_pairs_are_what_the_ids_say(seed: int, voxel: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    ids = cells(rng, (7, 5, 6), 3, 0.25)
    found = pairs_of(ids, HIERARCHY.unknown, voxel).numpy()
    for channel, offset in enumerate(affinity_offsets(voxel)):
        for v in np.ndindex(*ids.shape):
            w = tuple(i + o for i, o in zip(v, offset, strict=True))
            inside = all(i < n for i, n in zip(w, ids.shape, strict=True))
            if not inside or ids[v] < 0 or ids[w] < 0:
                expected = UNKNOWN
            else:
                expected = TOGETHER if ids[v] == ids[w] > 0 else APART
            assert found[(channel, *v)] == expected


def test_an_organelle_belongs_to_the_cell_around_it_also_where_the_patch_cuts_it() -> None:
    ids = np.ones((12, 6, 6))
    ids[6:] = 2
    sets = np.full(ids.shape, AXON)
    sets[6:] = DENDRITE
    ids[3:6, 2:, 2:4], sets[3:6, 2:, 2:4] = 7, MITO  # touches cell 2 with one face of the six
    near = pairs_of(ids, sets)[0]  # to the next voxel along x
    assert (near[2, 2:, 2:4] == TOGETHER).all()
    assert (near[5] == APART).all()
    lone = np.full((4, 4, 4), -1.0)
    lone[1:3, 1:3, 1:3] = 5
    found = pairs_of(lone, np.where(lone > 0, MITO, HIERARCHY.unknown))
    assert (found == UNKNOWN).all(), "the cell of this mitochondrion is not known"


def test_membranes_hold_no_cell_though_their_class_is_unknown() -> None:
    ids = np.ones((9, 4, 1))
    ids[4:6], ids[6:] = 0, 2
    near = pairs_of(ids, HIERARCHY.unknown)[0, :, 0, 0].tolist()
    assert near == [1, 1, 1, 0, 0, 0, 1, 1, UNKNOWN]


def test_classes_that_rule_each_other_out_part_two_voxels() -> None:
    unknown = np.full((4, 1, 1), -1.0)
    no_myelin = HIERARCHY.unknown & ~MYELIN
    sets = np.array([AXON, MYELIN, MYELIN, no_myelin]).reshape(4, 1, 1)
    assert pairs_of(unknown, sets)[0, :, 0, 0].tolist() == [0, UNKNOWN, 0, UNKNOWN]
    # a mitochondrion says nothing of its cell; extracellular space says there is none
    sets = np.array([MITO, AXON, SPACE, SPACE]).reshape(4, 1, 1)
    assert pairs_of(unknown, sets)[0, :, 0, 0].tolist() == [UNKNOWN, 0, 0, UNKNOWN]


def test_ids_within_sections_say_nothing_across_them() -> None:
    ids = torch.ones(2, 4, 4, 4, dtype=torch.int64)
    sets = torch.full_like(ids, HIERARCHY.unknown, dtype=torch.int32)
    sizes = torch.tensor([[10.0, 10.0, 50.0]] * 2)
    found = pair_targets(ids, sets, sizes, HIERARCHY, torch.tensor([True, False]))
    assert (found[0, 2::3] == UNKNOWN).all() and (found[1, 2, ..., :3] == TOGETHER).all()
    assert (found[0, :2] == found[1, :2]).all()


def test_a_two_dimensional_network_has_no_pairs_across() -> None:
    ids = np.ones((12, 12))
    found = pairs_of(ids, AXON, (10.0, 10.0))
    assert found.shape == (PAIR_CHANNELS, 12, 12)
    assert (found[2::3] == UNKNOWN).all() and (found[6, :3] == TOGETHER).all()


def plain(logits: np.ndarray, pairs: np.ndarray) -> float:
    terms = []
    for channel in range(pairs.shape[1]):
        x, p = logits[:, channel].ravel(), pairs[:, channel].ravel()
        known = p != UNKNOWN
        if not known.any():
            continue
        total = 0.0
        for kind in (APART, TOGETHER):
            here = p == kind
            share = max(here.sum() / known.sum(), LEAST_SHARE)
            sign = 1 if kind == TOGETHER else -1
            total += 0.5 / share * np.logaddexp(0, -sign * x[here]).sum() / known.sum()
        terms.append(total)
    return float(np.mean(terms)) if terms else 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_term_is_balanced_and_unknown_pairs_get_exactly_nothing(
    seed: int, unknown: float
) -> None:
    rng = np.random.default_rng(seed)
    pairs = rng.choice([APART, TOGETHER], (2, 3, 4, 3, 2), p=[0.1, 0.9]).astype(np.int8)
    pairs[rng.random(pairs.shape) < unknown] = UNKNOWN
    logits = torch.from_numpy(rng.normal(size=pairs.shape)).requires_grad_()
    found = affinity_term(logits, torch.from_numpy(pairs))
    assert found.item() == pytest.approx(plain(logits.detach().numpy(), pairs))
    (gradient,) = torch.autograd.grad(found, logits)
    assert (gradient[torch.from_numpy(pairs == UNKNOWN)] == 0).all()
    assert (gradient[torch.from_numpy(pairs != UNKNOWN)] != 0).all()


def test_the_criterion_has_it_at_its_weight_and_without_a_weight_not_at_all() -> None:
    batch = random_batch(3)
    outputs = random_outputs(3, batch)
    shape = (2, PAIR_CHANNELS, *batch["instance"].shape[1:])
    outputs["affinity"] = torch.randn(shape, dtype=torch.float64)
    usual = LossSettings()
    without = Criterion(usual, HIERARCHY)(outputs, prepare_targets(batch, HIERARCHY, usual))
    both = usual.model_copy(update={"weight_affinity": 2.0})
    found = Criterion(both, HIERARCHY)(outputs, prepare_targets(batch, HIERARCHY, both))
    assert "loss_aff" not in without
    assert found["loss"].item() == pytest.approx((without["loss"] + 2 * found["loss_aff"]).item())


def test_unknown_voxels_get_no_gradient_through_the_criterion() -> None:
    batch = random_batch(5, unknown=0.5)
    batch["class_sets"][batch["instance"] < 0] = HIERARCHY.unknown
    targets: Targets = prepare_targets(batch, HIERARCHY, ONLY)
    shape = (2, PAIR_CHANNELS, *batch["instance"].shape[1:])
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    embedding = random_outputs(5, batch)["instance"]
    outputs = {"affinity": logits, "instance": embedding}
    Criterion(ONLY, HIERARCHY)(outputs, targets)["loss"].backward()
    for values in (logits, embedding):
        assert values.grad is not None
        voxels = values.grad.abs().sum(1)
        assert (voxels[batch["instance"] < 0] == 0).all() and (voxels > 0).any()
