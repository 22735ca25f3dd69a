"""The agreement term: one class for all of a cell, whichever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from criterion_cases import HIERARCHY, random_batch, random_outputs

from lib.configs.settings import LossSettings
from lib.losses.agreement import agreement_term
from lib.losses.criterion import Criterion
from lib.targets.prepare import Targets, prepare_targets

CELL = [i for i, c in enumerate(HIERARCHY.classes) if not c.inside]
AXON, GLIA, MITO = (HIERARCHY.class_names.index(n) for n in ("axon", "glia", "mitochondria"))


def targets_of(instance: torch.Tensor, class_set: int = HIERARCHY.unknown) -> Targets:
    batch = {
        "image": torch.zeros(instance.shape[0], 1, *instance.shape[1:]),
        "class_sets": torch.full_like(instance, class_set, dtype=torch.int32),
        "instance": instance,
        "voxel_size_nm": torch.tensor([[10.0, 10.0, 10.0]] * instance.shape[0]),
    }
    return prepare_targets(batch, HIERARCHY, LossSettings(weight_geometry=0))


def plain(logits: np.ndarray, ids: np.ndarray) -> float:
    """Entropy of the mean distribution less the mean entropy, for each object."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    values = []
    for b in range(len(ids)):
        for i in np.unique(ids[b][ids[b] > 0]):
            rows = p[b][:, ids[b] == i]
            mass = rows[CELL].sum(0)
            own = rows[CELL] / mass
            mean = (own * mass).sum(1) / mass.sum()
            entropy = -(own * np.log(own)).sum(0)
            values.append(-(mean * np.log(mean)).sum() - (mass * entropy).sum() / mass.sum())
    return float(np.mean(values)) if values else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_the_term_is_the_divergence_and_unknown_voxels_get_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(-1, 4, (2, 4, 3, 3)))
    logits = torch.from_numpy(rng.normal(size=(2, 12, 4, 3, 3))).requires_grad_()
    found = agreement_term(logits, targets_of(ids))
    expected = plain(logits.detach().numpy(), ids.numpy())
    assert found.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(found, logits)
    voxels = gradient.abs().sum(1)
    assert (voxels[ids <= 0] == 0).all() and (voxels[ids > 0] > 0).all()


def test_one_class_agrees_a_mitochondrion_in_it_too_and_two_classes_do_not() -> None:
    ids = torch.ones(1, 6, 1, 1, dtype=torch.int64)
    logits = torch.zeros(1, 12, 6, 1, 1)
    logits[0, AXON] = 20.0
    assert agreement_term(logits, targets_of(ids)).item() == pytest.approx(0, abs=1e-4)
    logits[0, :, 2] = 0.0
    logits[0, MITO, 2] = 20.0  # what little of it is no mitochondrion hardly weighs
    assert agreement_term(logits, targets_of(ids)).item() == pytest.approx(0, abs=1e-4)
    logits[0, :, 3:] = 0.0
    logits[0, GLIA, 3:] = 20.0
    assert agreement_term(logits, targets_of(ids)).item() > 0.5
    whole = targets_of(ids, HIERARCHY.set_named("mitochondria"))
    assert agreement_term(logits, whole).item() == 0, "an organelle is no cell"
    assert agreement_term(logits, targets_of(-ids)).item() == 0


def test_it_is_a_part_of_the_class_loss_at_its_weight() -> None:
    batch = random_batch(3)
    outputs = random_outputs(3, batch)
    usual, with_it = LossSettings(), LossSettings(weight_agreement=0.5)
    targets = prepare_targets(batch, HIERARCHY, usual)
    without = Criterion(usual, HIERARCHY)(outputs, targets)
    found = Criterion(with_it, HIERARCHY)(outputs, targets)
    assert "loss_sem/agreement" not in without
    more = (found["loss_sem"] - without["loss_sem"]).item()
    assert more == pytest.approx(0.5 * found["loss_sem/agreement"].item())
