"""The sparse prompt encoder equals the dense one, and starts harmless."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.prompts.encoder import PointPromptEncoder
from lib.prompts.points import PointPrompts


def make_encoder(
    seed: int, dims: int, kernel: int = 3, groups: int = 2, classes: int = 4
) -> PointPromptEncoder:
    torch.manual_seed(seed)
    encoder = PointPromptEncoder(classes, 8, dims, kernel, groups).double()
    for parameter in encoder.parameters():  # far from the start, where errors would show
        torch.nn.init.normal_(parameter)
    return encoder


def make_points(seed: int, batch: int, count: int, shape: tuple[int, ...]) -> PointPrompts:
    g = torch.Generator().manual_seed(seed)
    coords = torch.stack([torch.randint(s, (batch, count), generator=g) for s in shape], -1)
    return PointPrompts(
        coords,
        torch.randint(-1, 2, (batch, count), generator=g),
        torch.randint(-1, 4, (batch, count), generator=g),
        torch.rand((batch, count), generator=g) > 0.5,
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(5, 4), (1, 3), (4, 5, 3), (6, 1, 2), (1, 1, 4)]),
    count=st.integers(0, 7),
    kernel=st.sampled_from([1, 3, 5]),
    groups=st.sampled_from([1, 2, 8]),
)
def test_sparse_equals_dense(
    seed: int, shape: tuple[int, ...], count: int, kernel: int, groups: int
) -> None:
    encoder = make_encoder(seed, len(shape), kernel, groups)
    prompts = make_points(seed, 3, count, shape)
    sparse, dense = encoder(prompts, shape), encoder.dense(prompts, shape)
    torch.testing.assert_close(sparse.dense(), dense, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sparse.norm(), dense.flatten(1).norm(dim=1), rtol=1e-9, atol=1e-9)


def test_sparse_gradients_equal_dense_gradients() -> None:
    encoder = make_encoder(3, 3)
    prompts = make_points(3, 2, 6, (7, 6, 5))
    weight = torch.randn(2, 8, 7, 6, 5, dtype=torch.float64)
    gradients = []
    for out in (encoder(prompts, (7, 6, 5)).dense(), encoder.dense(prompts, (7, 6, 5))):
        gradients.append(torch.autograd.grad((out * weight).sum(), list(encoder.parameters())))
    for sparse, dense in zip(*gradients, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-8, atol=1e-8)
        assert dense.abs().max() > 0


def test_channels_are_those_of_the_specification() -> None:
    encoder = make_encoder(0, 2)
    prompts = PointPrompts(
        torch.tensor([[[0, 0], [0, 1], [1, 1], [1, 1]]]),
        torch.tensor([[1, 0, 1, 1]]),  # the last two fall on one voxel
        torch.tensor([[2, 2, -1, 0]]),
        torch.tensor([[True, True, False, False]]),
    )
    index, values = encoder.indicator(prompts, (2, 2))
    assert index.tolist() == [0, 1, 3]
    assert values.tolist() == [
        [1, 0, 0, 0, 1, 0, 1],  # positive, class 2, instance
        [0, 1, 0, 0, 1, 0, 0],  # negative, class 2; instance only at positive points
        [1, 0, 1, 0, 0, 0, 0],  # positive twice counts once, class 0
    ]


def test_no_points_give_exact_zeros() -> None:
    encoder = make_encoder(1, 3)
    prompts = make_points(1, 2, 5, (4, 4, 4)).only(torch.tensor([True, False]))
    residual = encoder(prompts, (4, 4, 4)).dense()
    assert residual[0].abs().max() > 0
    assert torch.equal(residual[1], torch.zeros_like(residual[1]))
    assert not encoder(PointPrompts.none(2), (4, 4, 4)).dense().any()


def test_starts_at_zero_and_stays_small_for_ten_steps() -> None:
    torch.manual_seed(0)
    encoder = PointPromptEncoder(12, 16, 3)
    assert encoder.conv.weight.std().item() == pytest.approx(1e-4, rel=0.1)
    prompts, shape = make_points(0, 1, 10, (32, 32, 8)), (32, 32, 8)
    target = torch.randn(1, 16, *shape)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    assert not encoder(prompts, shape).dense().any()
    for _ in range(10):
        optimiser.zero_grad()
        (encoder(prompts, shape).dense() - target).square().mean().backward()
        optimiser.step()
    residual = encoder(prompts, shape).norm() / target.norm()
    assert 0 < residual.item() < 0.1  # it learns, and features of scale 1 hardly notice yet
    assert encoder.conv.weight.grad is not None and encoder.conv.weight.grad.abs().max() > 0
