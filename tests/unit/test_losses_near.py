"""The near-pair term against a plain loop, and what must not move it."""

import numpy as np
import pytest
import torch

from lib.configs.settings import LossSettings
from lib.labels.hierarchy import load_hierarchy
from lib.losses.criterion import Criterion
from lib.losses.near import APART_SHARE, near_term
from lib.targets.prepare import Targets, prepare_targets

HIERARCHY = load_hierarchy()
LOSS = LossSettings(weight_near=1.0, near_reach=(2,), weight_geometry=0)


def targets_of(instance: torch.Tensor, voxel: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Targets:
    batch = {
        "image": torch.zeros(instance.shape[0], 1, *instance.shape[1:]),
        "class_sets": torch.full_like(instance, HIERARCHY.object_set, dtype=torch.int32),
        "instance": instance,
        "voxel_size_nm": torch.tensor([voxel] * instance.shape[0]),
    }
    return prepare_targets(batch, HIERARCHY, LOSS)


def plain(embedding: np.ndarray, ids: np.ndarray, offsets: list[tuple[int, int, int]]) -> float:
    total = 0.0
    for offset in offsets:
        together, apart = [], []
        for b, *v in np.ndindex(*ids.shape):
            w = tuple(i + o for i, o in zip(v, offset, strict=True))
            if any(i >= n for i, n in zip(w, ids.shape[1:], strict=True)):
                continue
            one, other = ids[(b, *v)], ids[(b, *w)]
            if one <= 0 or other <= 0:
                continue
            d = np.linalg.norm(embedding[(b, slice(None), *v)] - embedding[(b, slice(None), *w)])
            if one == other:
                together.append(max(d - LOSS.delta_v, 0) ** 2)
            else:
                apart.append(max(2 * LOSS.delta_d - d, 0) ** 2)
        total += np.mean(together or [0.0]) + APART_SHARE * np.mean(apart or [0.0])
    return total / len(offsets)


@pytest.mark.parametrize("seed", range(3))
def test_the_term_equals_a_plain_loop_and_its_gradient_is_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, 4, (2, 5, 4, 6))
    embedding = torch.from_numpy(rng.normal(size=(2, 3, 5, 4, 6))).requires_grad_()
    nearest = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    far = [(2, 0, 0), (0, 2, 0), (0, 0, 2)]
    targets = targets_of(torch.from_numpy(ids))
    found = near_term(embedding, targets, LOSS)
    expected = plain(embedding.detach().numpy(), ids, nearest + far)
    assert found.item() == pytest.approx(expected, rel=1e-5)  # the root's small constant
    assert torch.autograd.gradcheck(lambda e: near_term(e, targets, LOSS), (embedding,))


def test_unknown_and_background_voxels_get_no_gradient() -> None:
    torch.manual_seed(0)
    ids = torch.randint(-1, 3, (1, 6, 5, 4))
    embedding = torch.randn(1, 4, 6, 5, 4, requires_grad=True)
    near_term(embedding, targets_of(ids), LOSS).backward()
    assert embedding.grad is not None
    assert (embedding.grad.movedim(1, -1)[ids <= 0] == 0).all()
    assert embedding.grad.abs().sum() > 0


def test_sections_that_are_thick_have_near_partners_in_voxels() -> None:
    ids = torch.ones(1, 6, 6, 6, dtype=torch.int64)
    ids[..., 2:] = 2
    embedding = torch.zeros(1, 2, 6, 6, 6)
    thick = near_term(embedding, targets_of(ids, (1.0, 1.0, 10.0)), LOSS).item()
    # of the five offsets only the next section crosses the boundary
    assert thick == pytest.approx(APART_SHARE * (2 * LOSS.delta_d) ** 2 / 5, rel=1e-2)


def test_flat_images_and_empty_patches() -> None:
    ids = torch.ones(1, 6, 6, dtype=torch.int64)
    ids[:, 3:] = 2
    embedding = torch.randn(1, 2, 6, 6, requires_grad=True)
    assert near_term(embedding, targets_of(ids, (1.0, 1.0)), LOSS) > 0
    empty = near_term(embedding, targets_of(torch.zeros_like(ids), (1.0, 1.0)), LOSS)
    empty.backward()
    assert empty.item() == 0.0


def test_the_criterion_counts_it_only_with_a_weight() -> None:
    ids = torch.ones(1, 6, 6, 6, dtype=torch.int64)
    ids[:, 3:] = 2
    outputs = {
        "semantic": torch.zeros(1, 12, 6, 6, 6),
        "coarse": torch.zeros(1, 5, 6, 6, 6),
        "instance": torch.zeros(1, 3, 6, 6, 6),
    }
    targets = targets_of(ids)
    with_term = Criterion(LOSS, HIERARCHY)(outputs, targets)
    without = Criterion(LOSS.model_copy(update={"weight_near": 0.0}), HIERARCHY)(outputs, targets)
    assert "loss_ins/near" not in without
    difference = with_term["loss_ins"] - without["loss_ins"]
    torch.testing.assert_close(difference, with_term["loss_ins/near"])
