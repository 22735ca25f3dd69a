"""Class sets meet instance ids; classes of objects; objects as index lists."""

import torch
from criterion_cases import HIERARCHY, TWO_CLASSES, random_batch

from lib.configs.settings import LossSettings
from lib.targets.objects import PIECE, index_objects
from lib.targets.prepare import prepare_targets
from lib.targets.semantic import object_classes, paint_objects, resolve_class_sets

UNKNOWN = HIERARCHY.unknown
AXON = 1 << 3


def test_an_object_of_unknown_class_is_any_object_class() -> None:
    sets = torch.tensor([[UNKNOWN, UNKNOWN, UNKNOWN, AXON]], dtype=torch.int32)
    instance = torch.tensor([[7, 0, -1, 7]])
    resolved = resolve_class_sets(sets, instance, HIERARCHY)
    assert resolved.tolist() == [[HIERARCHY.object_set, UNKNOWN, UNKNOWN, AXON]]


def test_without_hierarchy_foreground_is_id_above_zero() -> None:
    sets = torch.full((1, 3), TWO_CLASSES.unknown, dtype=torch.int32)
    resolved = resolve_class_sets(sets, torch.tensor([[9, 0, -1]]), TWO_CLASSES)
    assert resolved.tolist() == [[2, 1, 3]]


def test_objects_are_numbered_over_the_batch_and_large_ids_survive() -> None:
    big = 2**32 - 2
    instance = torch.tensor([[[big, big - 1, 0]], [[big, -1, 5]]])
    objects = index_objects(instance)
    assert objects.labels.tolist() == [[[2, 1, 0]], [[4, 0, 3]]]
    assert objects.sample.tolist() == [0, 0, 1, 1]
    assert objects.voxels.tolist() == [1, 1, 1, 1]


def test_large_ids_without_background_are_all_objects() -> None:
    instance = torch.tensor([[2**40, 2**40 + 1, 2**62]])
    assert index_objects(instance).labels.tolist() == [[1, 2, 3]]


def test_small_and_large_ids_give_the_same_objects() -> None:
    instance = random_batch(3)["instance"]
    small = index_objects(instance)
    large = index_objects(torch.where(instance > 0, instance + 2**31, instance))
    assert torch.equal(small.labels, large.labels)
    assert torch.equal(small.sample, large.sample)


def test_no_objects() -> None:
    for instance in (torch.zeros((2, 3, 3), dtype=torch.int64), torch.full((1, 4), -1)):
        objects = index_objects(instance)
        assert objects.count == 0
        assert objects.sum(torch.ones((instance.numel(), 2))).shape == (0, 2)


def test_sums_over_objects_longer_than_a_piece_equal_float64() -> None:
    instance = torch.zeros((1, 4 * PIECE + 3), dtype=torch.int64)
    instance[0, : 3 * PIECE + 1], instance[0, -1] = 4, 9
    rows = torch.randn((instance.numel(), 3), generator=torch.Generator().manual_seed(0)) + 1e3
    sums = index_objects(instance).sum(rows)
    first = rows[: 3 * PIECE + 1].double().sum(0)
    torch.testing.assert_close(sums, torch.stack([first, rows[-1].double()]), rtol=1e-6, atol=0)


def test_the_class_of_an_object_is_the_majority_of_its_known_voxels() -> None:
    instance = torch.tensor([[1, 1, 1, 2, 2, 0, 3]])
    fine = torch.tensor([[3, 3, 2, -1, -1, 5, 0]])
    objects = index_objects(instance)
    classes = object_classes(fine, objects, 12)
    assert classes.tolist() == [3, -1, 0]
    assert paint_objects(classes, objects.labels).tolist() == [[3, 3, 3, -1, -1, -1, 0]]


def test_targets_of_a_batch_know_what_is_known() -> None:
    batch = random_batch(0)
    targets = prepare_targets(batch, HIERARCHY, LossSettings())
    known = (batch["class_sets"] != UNKNOWN) | (batch["instance"] > 0)
    assert torch.equal(targets.known, known)
    assert torch.equal(targets.foreground, batch["instance"] > 0)
    assert torch.equal(targets.instance < 0, batch["instance"] < 0)
    several = targets.known & (targets.fine < 0)
    assert targets.set_voxels.numel() == int(several.sum())
    assert targets.semantic_ids.shape == batch["instance"].shape
    assert bool((targets.semantic_ids[batch["instance"] <= 0] == -1).all())


def test_weights_of_zero_skip_targets() -> None:
    loss = LossSettings(weight_geometry=0.0, weight_pull=0.0)
    targets = prepare_targets(random_batch(0), HIERARCHY, loss)
    fields = (targets.weight, targets.direction, targets.tensor, targets.raw_region)
    assert all(field is None for field in fields)
    assert float(targets.largest_weight) == 0.0
