"""Direction and structure tensor targets: by hand, against plain loops, under turns and flips."""

import itertools
import math

import numpy as np
import pytest
import torch
from criterion_cases import ANISOTROPIC, HIERARCHY, cells
from torch import Tensor

from benchmarks import plain_criterion as plain
from lib.configs.settings import LossSettings
from lib.targets.direction import centroid_direction
from lib.targets.objects import index_objects
from lib.targets.prepare import prepare_targets
from lib.targets.skeleton import skeleton_mask
from lib.targets.smoothing import smooth_outer_products

SPACINGS = {2: (4.0, 9.0), 3: ANISOTROPIC}


def geometry(
    instance: np.ndarray, spacing: tuple[float, ...], **settings: object
) -> tuple[Tensor, Tensor]:
    """(direction (S, *S), tensor (S * S, *S)) of one patch, through `prepare_targets`."""
    ids = torch.from_numpy(np.ascontiguousarray(instance))[None]
    batch = {
        "image": torch.zeros((1, *ids.shape)),
        "class_sets": torch.full(ids.shape, HIERARCHY.unknown, dtype=torch.int32),
        "instance": ids,
        "voxel_size_nm": torch.tensor([spacing]),
    }
    loss = LossSettings.model_validate(settings)
    targets = prepare_targets(batch, HIERARCHY, loss)
    assert targets.direction is not None and targets.tensor is not None
    return targets.direction[0], targets.tensor[0]


def test_direction_by_hand_in_physical_space() -> None:
    # Two voxels, one step apart on each axis: the centroid is half a step from both.
    patch = np.zeros((2, 2), np.int64)
    patch[0, 0] = patch[1, 1] = 3
    direction, _ = geometry(patch, (3.0, 4.0))
    assert direction[:, 0, 0].tolist() == pytest.approx([0.6, 0.8])
    assert direction[:, 1, 1].tolist() == pytest.approx([-0.6, -0.8])
    assert direction[:, 0, 1].tolist() == [0, 0]


def test_direction_is_exactly_zero_at_the_centroid() -> None:
    patch = np.zeros((7, 7, 3), np.int64)
    patch[1:6, 1:6, :] = 1
    direction, _ = geometry(patch, (0.1, 0.7, 30.3))
    assert direction[:, 3, 3, 1].tolist() == [0, 0, 0]
    assert float(direction[:, 1, 1, 0].norm()) == pytest.approx(1.0)


def test_anisotropy_turns_directions() -> None:
    patch = np.zeros((2, 1, 2), np.int64)
    patch[0, 0, 0] = patch[1, 0, 1] = 1
    direction, _ = geometry(patch, ANISOTROPIC)
    expected = np.array([6.0, 0, 30.0]) / math.hypot(6, 30)
    np.testing.assert_allclose(direction[:, 0, 0, 0].numpy(), expected, rtol=1e-6)


def test_tensor_of_a_slab_is_its_normal_at_the_border_and_isotropic_in_the_middle() -> None:
    slab = np.zeros((9, 6), np.int64)
    slab[2:7] = 1
    _, tensor = geometry(slab, (8.0, 8.0), cov_sigma_nm=4.0)
    assert tensor[:, 4, 3].tolist() == pytest.approx([0.5, 0, 0, 0.5])
    # At the border d / max d is 1 / 3; the gradient is along the first axis everywhere.
    expected = [2 / 3 + 1 / 6, 0, 0, 1 / 6]
    assert tensor[:, 2, 3].tolist() == pytest.approx(expected, abs=1e-6)
    assert float(tensor[:, 0].abs().max()) == 0.0


@pytest.mark.parametrize("patch", [np.ones((4, 4, 4)), np.eye(3)[:, :, None]])
def test_no_boundary_or_one_voxel_is_isotropic(patch: np.ndarray) -> None:
    ids = (patch * np.arange(1, 1 + patch.shape[0])[:, None, None]).astype(np.int64)
    ids = ids if patch.shape[2] == 1 else patch.astype(np.int64)
    _, tensor = geometry(ids, ANISOTROPIC)
    identity = torch.eye(3).flatten() / 3
    inside = tensor.flatten(1)[:, torch.from_numpy(ids.ravel() > 0)]
    torch.testing.assert_close(inside, identity[:, None].expand_as(inside))


@pytest.mark.parametrize("unknown", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(13, 11), (11, 10, 5), (10, 9, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_geometry_equals_plain_loops(seed: int, shape: tuple[int, ...], unknown: float) -> None:
    instance = cells(np.random.default_rng(seed), shape, 6, unknown)
    spacing = SPACINGS[len(shape)]
    direction, tensor = geometry(instance, spacing, cov_sigma_nm=11.0)
    np.testing.assert_allclose(direction, plain.direction(instance, spacing), atol=1e-5)
    np.testing.assert_allclose(
        tensor, plain.tensor(instance, spacing, 11.0, truncate=12.0), atol=2e-4
    )


def test_tensor_has_trace_one_and_is_positive() -> None:
    instance = cells(np.random.default_rng(5), (16, 16, 6), 8)
    _, tensor = geometry(instance, ANISOTROPIC)
    matrices = tensor.movedim(0, -1)[torch.from_numpy(instance > 0)].view(-1, 3, 3)
    trace = matrices.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(trace, torch.ones_like(trace))
    torch.testing.assert_close(matrices, matrices.transpose(1, 2))
    assert float(torch.linalg.eigvalsh(matrices).min()) > -1e-5


def symmetries(dims: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All (axis order, axes to flip) of a square or a cube."""
    orders = list(itertools.permutations(range(dims)))
    flips = [f for n in range(dims + 1) for f in itertools.combinations(range(dims), n)]
    return list(itertools.product(orders, flips))


def moved(field: Tensor, order: tuple[int, ...], flips: tuple[int, ...]) -> Tensor:
    """Move the places of a (C, *S) field, not its channels."""
    field = field.permute(0, *[a + 1 for a in order])
    return field.flip([a + 1 for a in flips])


@pytest.mark.parametrize("dims", [2, 3])
def test_turns_and_flips_of_the_labels_turn_and_flip_the_targets(dims: int) -> None:
    shape, spacing = {2: (12, 9), 3: (10, 8, 5)}[dims], {2: (3.0, 5.0), 3: (4.0, 6.0, 30.0)}[dims]
    instance = cells(np.random.default_rng(7), shape, 5, unknown=0.2)
    direction, tensor = geometry(instance, spacing)
    for order, flips in symmetries(dims):
        turned = np.flip(instance.transpose(order), flips)
        got_direction, got_tensor = geometry(turned, tuple(spacing[a] for a in order))
        signs = torch.tensor([-1.0 if a in flips else 1.0 for a in range(dims)])
        matrix = torch.eye(dims)[list(order)] * signs[:, None]
        expected = torch.einsum("ij,j...->i...", matrix, moved(direction, order, flips))
        torch.testing.assert_close(got_direction, expected, atol=1e-5, rtol=0)
        places = moved(tensor, order, flips).unflatten(0, (dims, dims))
        expected = torch.einsum("ik,kl...,jl->ij...", matrix, places, matrix)
        torch.testing.assert_close(got_tensor, expected.flatten(0, 1), atol=2e-4, rtol=0)


def test_smoothing_does_not_depend_on_other_objects() -> None:
    rng = np.random.default_rng(2)
    instance = torch.from_numpy(cells(rng, (17, 12, 6), 7))
    vectors = torch.from_numpy(rng.normal(size=(3, *instance.shape))).float()
    together = smooth_outer_products(vectors, instance, 7, ANISOTROPIC, 20.0)
    for k in range(1, 8):
        mask = instance == k
        alone = smooth_outer_products(vectors, mask.long(), 1, ANISOTROPIC, 20.0)
        torch.testing.assert_close(together[:, mask], alone[:, mask], rtol=1e-4, atol=1e-5)


def test_centroids_of_large_patches_are_exact() -> None:
    labels = torch.ones((1, 101, 103, 1), dtype=torch.int64)
    direction = centroid_direction(index_objects(labels), torch.tensor([ANISOTROPIC]))
    assert direction[0, :, 50, 51, 0].tolist() == [0, 0, 0]


def test_direction_to_the_skeleton_of_a_rod() -> None:
    rod = np.zeros((9, 9, 24), np.int64)
    rod[2:7, 2:7, 2:22] = 4
    direction, _ = geometry(rod, (8.0, 8.0, 8.0), dir_target="skeleton")
    mask = skeleton_mask(rod)
    assert mask[4, 4, 6:18].all() and (mask & (rod == 0)).sum() == 0
    assert float(direction[:, 4, 4, 12].abs().max()) == 0.0
    assert direction[:, 2, 4, 12].tolist() == pytest.approx([1, 0, 0])
    assert direction[:, 6, 6, 12].tolist() == pytest.approx([-(0.5**0.5), -(0.5**0.5), 0])


def test_direction_to_a_cached_skeleton_is_to_the_own_object_in_nm() -> None:
    patch = np.zeros((5, 1, 5), np.int64)
    patch[0], patch[2], patch[4] = 1, 2, 3
    skeleton = np.zeros(patch.shape, bool)
    skeleton[0, 0, 0] = skeleton[2, 0, [0, 4]] = True
    batch = {
        "image": torch.zeros((1, 1, *patch.shape)),
        "class_sets": torch.full((1, *patch.shape), HIERARCHY.unknown, dtype=torch.int32),
        "instance": torch.from_numpy(patch)[None],
        "voxel_size_nm": torch.tensor([ANISOTROPIC]),
        "skeleton": torch.from_numpy(skeleton)[None],
    }
    targets = prepare_targets(batch, HIERARCHY, LossSettings(dir_target="skeleton"))
    assert targets.direction is not None
    # Object 1 points along z to its only voxel although object 2's is nearer; object 3 has
    # no skeleton voxel and is all deepest: zero.
    assert targets.direction[0, 2, 0, 0].tolist() == [0, -1, -1, -1, -1]
    assert targets.direction[0, 2, 2, 0].tolist() == pytest.approx([0, -1, -1, 1, 0])
    assert float(targets.direction[0, :, 4].abs().max()) == 0.0


@pytest.mark.parametrize("shape", [(14, 12), (12, 11, 6)])
def test_skeleton_directions_equal_plain_loops(shape: tuple[int, ...]) -> None:
    instance = cells(np.random.default_rng(1), shape, 5, unknown=0.2)
    spacing = SPACINGS[len(shape)]
    direction, _ = geometry(instance, spacing, dir_target="skeleton")
    mask = skeleton_mask(instance)
    checked = 0
    for k in plain.object_ids(instance):
        sites = np.argwhere(mask & (instance == k))
        for place in np.argwhere(instance == k) if len(sites) else []:
            offset = (sites - place) * spacing
            length = np.linalg.norm(offset, axis=1)
            nearest = offset[length <= length.min() + 1e-6]
            got = direction[(slice(None), *place)].numpy() * length.min()
            assert np.abs(nearest - got).sum(1).min() < 1e-3
            checked += 1
    assert checked > 30
