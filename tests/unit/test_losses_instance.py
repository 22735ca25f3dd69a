"""Pull, push and norm: by hand, against plain loops, by finite differences, many objects."""

import math

import pytest
import torch
from criterion_cases import HIERARCHY, random_batch, random_outputs
from torch import Tensor

from benchmarks import plain_criterion as plain
from lib.configs.settings import LossSettings
from lib.losses import instance as module
from lib.losses.instance import instance_terms
from lib.targets.prepare import Targets, prepare_targets

PLAIN_WEIGHTS = LossSettings(weight_edge=1.0, weight_bone=1.0)


def targets_of(instance: Tensor, loss: LossSettings = PLAIN_WEIGHTS) -> Targets:
    """Targets of (B, X, Y) ids without known classes."""
    batch = {
        "image": torch.zeros((instance.shape[0], 1, *instance.shape[1:])),
        "class_sets": torch.full(instance.shape, HIERARCHY.unknown, dtype=torch.int32),
        "instance": instance,
        "voxel_size_nm": torch.full((instance.shape[0], 3), 10.0),
    }
    return prepare_targets(batch, HIERARCHY, loss)


def test_by_hand() -> None:
    # Object 1 at (0, 0) and (4, 0): centroid (2, 0), distances 2. Object 2 at (2, 1) alone.
    instance = torch.tensor([[[1, 1, 2, 0]]])
    embedding = torch.tensor([[0.0, 4.0, 2.0, 9.0], [0.0, 0.0, 1.0, 9.0]]).view(1, 2, 1, 4)
    terms = instance_terms(embedding, targets_of(instance), PLAIN_WEIGHTS)
    assert float(terms["pull"]) == pytest.approx((1.5**2 + 0) / 2)
    assert float(terms["push"]) == pytest.approx((3 - 1) ** 2)
    assert float(terms["norm"]) == pytest.approx((2 + math.sqrt(5)) / 2)


def test_weights_by_hand() -> None:
    # Voxel 2 of object 1 is beside object 2: weight 10; bone weights are off.
    loss = LossSettings(weight_bone=1.0)
    instance = torch.tensor([[[1, 1, 1, 2]]])
    embedding = torch.tensor([[[[0.0, 0.0, 3.0, 50.0]]]])
    terms = instance_terms(embedding, targets_of(instance, loss), loss)
    expected = (1 * 0.5**2 + 1 * 0.5**2 + 10 * 1.5**2) / 12 / 2
    assert float(terms["pull"]) == pytest.approx(expected)


def test_samples_without_objects_do_not_dilute() -> None:
    instance = torch.tensor([[[1, 1]], [[0, -1]]])
    embedding = torch.tensor([[[[0.0, 4.0]]], [[[7.0, 7.0]]]])
    terms = instance_terms(embedding, targets_of(instance), PLAIN_WEIGHTS)
    assert {k: v.item() for k, v in terms.items()} == {"pull": 2.25, "push": 0.0, "norm": 2.0}


def test_per_class_by_hand() -> None:
    # Class 3: objects 1, 2 at distance 1 (push 4); class -1: object 3 alone (push 0).
    instance = torch.tensor([[[1, 2, 3]]])
    embedding = torch.tensor([[[[1.0, 2.0, 2.5]]]])
    classes = torch.tensor([[[3, 3, -1]]])
    terms = instance_terms(embedding, targets_of(instance), PLAIN_WEIGHTS, classes)
    assert float(terms["push"]) == pytest.approx((4 + 0) / 2)
    assert float(terms["norm"]) == pytest.approx((1.5 + 2.5) / 2)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("shape", [(8, 9), (7, 6, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_plain_loops(seed: int, shape: tuple[int, ...], per_class: bool) -> None:
    batch = random_batch(seed, shape, batch=3)
    if seed == 0:
        batch["instance"][1] = 0  # a sample without objects
    loss = LossSettings()
    targets = prepare_targets(batch, HIERARCHY, loss)
    classes = targets.semantic_ids if per_class else None
    assert targets.weight is not None
    embedding = random_outputs(seed, batch)["instance"]
    fast = instance_terms(embedding, targets, loss, classes)
    slow = plain.instance_terms(embedding, targets.instance, targets.weight.double(), loss, classes)
    for name in ("pull", "push", "norm"):
        torch.testing.assert_close(fast[name], slow[name])
        (a,) = torch.autograd.grad(fast[name], embedding, retain_graph=True)
        (b,) = torch.autograd.grad(slow[name], embedding, retain_graph=True)
        torch.testing.assert_close(a, b)


def test_classes_passed_through_the_network_are_read_like_the_targets_own() -> None:
    batch = random_batch(2)
    targets = prepare_targets(batch, HIERARCHY, PLAIN_WEIGHTS)
    embedding = random_outputs(2, batch)["instance"]
    own = instance_terms(embedding, targets, PLAIN_WEIGHTS, targets.semantic_ids)
    passed = instance_terms(embedding, targets, PLAIN_WEIGHTS, targets.semantic_ids.clone())
    assert {k: v.item() for k, v in own.items()} == {k: v.item() for k, v in passed.items()}


def test_gradients_by_finite_differences() -> None:
    batch = random_batch(3, shape=(4, 5), objects=3)
    loss = LossSettings()
    targets = prepare_targets(batch, HIERARCHY, loss)
    embedding = random_outputs(3, batch, embedding=2)["instance"]
    assert torch.autograd.gradcheck(
        lambda x: tuple(instance_terms(x, targets, loss, targets.semantic_ids).values()), embedding
    )


def test_equal_embeddings_have_finite_gradients() -> None:
    instance = torch.tensor([[[1, 1, 2, 2]]])
    embedding = torch.zeros((1, 3, 1, 4), requires_grad=True)
    terms = instance_terms(embedding, targets_of(instance), PLAIN_WEIGHTS)
    assert float(terms["push"]) == 9.0
    sum(terms.values(), torch.zeros(())).backward()
    assert embedding.grad is not None and bool(embedding.grad.isfinite().all())


def test_push_in_blocks_equals_push_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn((37, 3), dtype=torch.float64, requires_grad=True)
    group, share = torch.zeros(37, dtype=torch.int64), torch.full((37,), 1 / 37).double()
    whole = module.push_term(points, group, share, 1.5)
    (expected,) = torch.autograd.grad(whole, points)
    monkeypatch.setattr(module, "PUSH_CHUNK", 10)
    blocks = module.push_term(points, group, share, 1.5)
    (got,) = torch.autograd.grad(blocks, points)
    torch.testing.assert_close(blocks, whole)
    torch.testing.assert_close(got, expected)


def test_a_thousand_objects_in_float32() -> None:
    instance = torch.arange(1, 1601).view(1, 40, 40).repeat_interleave(2, 1)
    targets = targets_of(instance)
    embedding = torch.randn((1, 8, 80, 40), generator=torch.Generator().manual_seed(0))
    single = instance_terms(embedding, targets, PLAIN_WEIGHTS)
    double = instance_terms(embedding.double(), targets, PLAIN_WEIGHTS)
    for name, value in single.items():
        torch.testing.assert_close(value.double(), double[name], rtol=1e-6, atol=1e-9)


def test_float32_of_a_large_object_far_from_zero() -> None:
    instance = torch.ones((1, 300, 300), dtype=torch.int64)
    targets = targets_of(instance)
    noise = torch.randn((1, 4, 300, 300), generator=torch.Generator().manual_seed(0))
    embedding = (noise + 100.0).requires_grad_()
    loss = instance_terms(embedding, targets, PLAIN_WEIGHTS)["pull"]
    (single,) = torch.autograd.grad(loss, embedding)
    exact = embedding.detach().double().requires_grad_()
    expected = instance_terms(exact, targets, PLAIN_WEIGHTS)["pull"]
    (double,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-9)


def test_weights_of_zero_skip_terms() -> None:
    loss = LossSettings(weight_pull=0.0, weight_norm=0.0)
    batch = random_batch(0)
    targets = prepare_targets(batch, HIERARCHY, loss)
    assert set(instance_terms(random_outputs(0, batch)["instance"], targets, loss)) == {"push"}
