"""Geometry loss: by hand and by finite differences."""

import torch
from criterion_cases import HIERARCHY, random_batch, random_outputs

from lib.configs.settings import LossSettings
from lib.losses.geometry import geometry_terms
from lib.targets.prepare import prepare_targets


def row_batch(instance: list[int], image: list[float]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[instance]])
    return {
        "image": torch.tensor([[[image]]]),
        "class_sets": torch.full(ids.shape, 1, dtype=torch.int32),
        "instance": ids,
        "voxel_size_nm": torch.tensor([[10.0, 10.0]]),
    }


def test_by_hand() -> None:
    # Object of three voxels in a row: directions +1, 0, -1 along the second axis.
    batch = row_batch([1, 1, 1, 0, -1], [0.5, 0.5, 0.5, 0.5, 0.5])
    loss = LossSettings(weight_cov=0.0)
    targets = prepare_targets(batch, HIERARCHY, loss)
    geometry = torch.zeros((1, 10, 1, 5))
    terms = geometry_terms(geometry, targets, loss)
    # Direction: squared errors 1, 0, 1 over three voxels and two channels.
    torch.testing.assert_close(terms["dir"], torch.tensor(2 / 6))
    # sigmoid(0) = 0.5 is right in grey and half wrong in alpha, over four channels.
    torch.testing.assert_close(terms["raw"], torch.tensor(0.25 / 4))
    assert set(terms) == {"dir", "raw"}


def test_raw_region_known_adds_known_voxels_without_object() -> None:
    batch = row_batch([1, 1, 1, 0, -1], [0.5] * 5)
    loss = LossSettings(raw_region="known", weight_dir=0.0, weight_cov=0.0)
    targets = prepare_targets(batch, HIERARCHY, loss)
    geometry = torch.zeros((1, 10, 1, 5), requires_grad=True)
    geometry_terms(geometry, targets, loss)["raw"].backward()
    assert geometry.grad is not None
    # Alpha: toward 1 on the object, toward 0 beside it, nothing where it is unknown.
    assert geometry.grad[0, -1, 0].sign().tolist() == [-1, -1, -1, 1, 0]


def test_tensor_by_hand() -> None:
    # One voxel is isotropic: target I / 2 against zero.
    loss = LossSettings(weight_dir=0.0, weight_raw=0.0)
    targets = prepare_targets(row_batch([0, 1, 0], [0.0] * 3), HIERARCHY, loss)
    terms = geometry_terms(torch.zeros((1, 10, 1, 3)), targets, loss)
    torch.testing.assert_close(terms["cov"], torch.tensor((0.25 + 0 + 0 + 0.25) / 4))


def test_gradients_by_finite_differences() -> None:
    batch = random_batch(5, shape=(3, 4), objects=2)
    loss = LossSettings(raw_region="known")
    targets = prepare_targets(batch, HIERARCHY, loss)
    geometry = random_outputs(5, batch)["geometry"]
    assert torch.autograd.gradcheck(
        lambda x: tuple(geometry_terms(x, targets, loss).values()), geometry
    )
