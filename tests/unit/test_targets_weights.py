"""Distances inside objects, edge and bone weights: by hand and against plain loops."""

import numpy as np
import pytest
import torch
from criterion_cases import ANISOTROPIC, cells

from benchmarks import plain_criterion as plain
from lib.targets.distance import _patch_distance_torch, object_distance, relative_distance
from lib.targets.objects import index_objects
from lib.targets.weights import edge_mask, pull_weights

SPACINGS = {2: (4.0, 9.0), 3: ANISOTROPIC}


def maps(instance: np.ndarray, spacing: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(distance, depth) of one patch."""
    ids = torch.from_numpy(instance)[None]
    objects = index_objects(ids)
    distance = object_distance(objects.labels, ids < 0, torch.tensor([spacing]))
    return distance[0], relative_distance(distance, objects.labels, objects.count)[0]


def test_edges_by_hand() -> None:
    # An object, one beside it, background, unknown: unknown makes no edge, background does.
    row = torch.tensor([[1, 1, 2, 2, 2, 0, 0, 3, 3, -1, -1, 4]])
    expected = [0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert edge_mask(row).int().tolist() == [expected]


def test_a_diagonal_neighbour_makes_an_edge() -> None:
    patch = torch.ones((1, 3, 3), dtype=torch.int64)
    patch[0, 0, 0] = 2
    assert edge_mask(patch)[0].int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_distance_and_bone_by_hand() -> None:
    row = np.array([[0, 1, 1, 1, 1, -1, -1, 0]])
    distance, depth = maps(row, (7.0, 10.0))
    # The unknown voxels are no boundary; the next one known to be outside is the last.
    assert distance.tolist() == [[0, 10, 20, 30, 30, 0, 0, 0]]
    weight = pull_weights(torch.from_numpy(row), depth, 1.0, 4.0)
    assert weight.tolist() == [[0, 2, 3, 4, 4, 0, 0, 0]]


def test_the_patch_border_is_no_boundary() -> None:
    distance, depth = maps(np.array([[0, 1, 1, 1]]), (1.0, 5.0))
    assert distance.tolist() == [[0, 5, 10, 15]]
    assert depth.tolist() == [[0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1]]


@pytest.mark.parametrize("fill", [1, -1])
def test_an_object_without_boundary_has_finite_weights(fill: int) -> None:
    patch = np.ones((4, 5), np.int64)
    patch[0, 0] = fill
    distance, depth = maps(patch, (2.0, 2.0))
    assert bool(torch.isinf(distance[1:]).all())
    assert bool((depth == 0).all())
    weight = pull_weights(torch.from_numpy(patch), depth, 10.0, 10.0)
    assert weight.unique().tolist() == ([1.0] if fill == 1 else [0.0, 1.0])


def test_one_voxel_object_is_its_own_medial_axis() -> None:
    patch = np.zeros((3, 3, 3), np.int64)
    patch[1, 1, 1] = 8
    distance, depth = maps(patch, ANISOTROPIC)
    assert float(distance[1, 1, 1]) == 6.0
    assert float(depth[1, 1, 1]) == 1.0


@pytest.mark.parametrize("unknown", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("shape", [(13, 11), (9, 8, 5), (8, 9, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_and_weights_equal_plain_loops(
    seed: int, shape: tuple[int, ...], unknown: float
) -> None:
    instance = cells(np.random.default_rng(seed), shape, 6, unknown)
    spacing = SPACINGS[len(shape)]
    distance, depth = maps(instance, spacing)
    on_gpu = _patch_distance_torch(
        index_objects(torch.from_numpy(instance)[None]).labels[0],
        torch.from_numpy(instance < 0),
        spacing,
    )
    edge, bone = plain.edge_weight(instance, 7.0), plain.bone_weight(instance, spacing, 3.0)
    weight = pull_weights(torch.from_numpy(instance)[None], depth[None], 7.0, 3.0)[0].numpy()
    np.testing.assert_allclose(weight, edge * bone * (instance > 0), rtol=1e-5)
    for k in plain.object_ids(instance):
        mask = instance == k
        expected = plain.distance(instance, spacing, k)[mask]
        np.testing.assert_allclose(distance.numpy()[mask], expected, rtol=1e-5)
        np.testing.assert_allclose(on_gpu.numpy()[mask], expected, rtol=1e-5)
    assert bool((distance[torch.from_numpy(instance <= 0)] == 0).all())
    assert bool((on_gpu[torch.from_numpy(instance <= 0)] == 0).all())


def test_each_sample_uses_its_own_voxel_size() -> None:
    row = torch.tensor([[[0, 1, 1, 1, 0]]]).expand(2, 1, 5)
    objects = index_objects(row)
    size = torch.tensor([[1.0, 2.0], [1.0, 5.0]])
    distance = object_distance(objects.labels, row < 0, size)
    assert distance[:, 0, 2].tolist() == [4.0, 10.0]
