"""Simulated clicks lie where they must."""

import torch

from lib.configs.settings import TrainingSettings
from lib.labels.hierarchy import flat_hierarchy
from lib.prompts.sampling import SampledPrompts, sample_prompts

HIERARCHY = flat_hierarchy(4)


def sample(
    class_sets: torch.Tensor, instance: torch.Tensor, seed: int = 0, **options: object
) -> SampledPrompts:
    training = TrainingSettings.model_validate({"num_pos_points": 6, "num_neg_points": 4} | options)
    generator = torch.Generator().manual_seed(seed)
    return sample_prompts(class_sets, instance, HIERARCHY, training, generator)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Objects 5 (class 2) and 9 (class 1), unknown voxels, and one sample without objects."""
    instance = torch.zeros((2, 8, 8, 2), dtype=torch.int64)
    class_sets = torch.full((2, 8, 8, 2), 1, dtype=torch.int32)
    instance[0, :3], class_sets[0, :3] = 5, 4
    instance[0, 5:], class_sets[0, 5:] = 9, 2
    class_sets[0, 0, 0] = 6  # one voxel pair known as class 1 or 2 only
    instance[0, :, 6:], class_sets[0, :, 6:] = -1, HIERARCHY.unknown
    return class_sets, instance


def test_points_of_an_instance() -> None:
    class_sets, instance = scene()
    chosen = set()
    for seed in range(8):
        out = sample(class_sets, instance, seed)
        labels = out.prompts.labels[0]
        assert labels.tolist() == [1] * 6 + [0] * 4
        x, y, z = out.prompts.coords[0].unbind(1)
        ids = instance[0, x, y, z]
        target = int(ids[0])
        chosen.add(target)
        assert (ids[:6] == target).all() and (ids[6:] != target).all() and (ids[6:] >= 0).all()
        assert torch.equal(out.target[0], instance[0] == target)
        assert (out.prompts.class_ids[0] == {5: 2, 9: 1}[target]).all()
        assert out.prompts.instance[0].all()
        assert not out.known[0][instance[0] == -1].any()
        assert (out.prompts.labels[1] == -1).all() and not out.target[1].any()
    assert chosen == {5, 9}


def test_points_of_a_class() -> None:
    class_sets, instance = scene()
    out = sample(class_sets, instance, 3, point_sample_mode="class")
    class_id = int(out.prompts.class_ids[0, 0])
    x, y, z = out.prompts.coords[0].unbind(1)
    sets = class_sets[0, x, y, z]
    assert (sets[:6] == 1 << class_id).all() and (sets[6:] & 1 << class_id == 0).all()
    assert not out.prompts.instance.any()
    assert out.prompts.prompted.tolist() == [True, True]  # the second sample has class 0


def test_same_seed_same_points_and_samples_can_be_left_out() -> None:
    class_sets, instance = scene()
    first, again = sample(class_sets, instance, 4), sample(class_sets, instance, 4)
    assert torch.equal(first.prompts.coords, again.prompts.coords)
    left_out = sample_prompts(
        class_sets, instance, HIERARCHY, TrainingSettings(), samples=torch.tensor([False, True])
    )
    assert not left_out.prompts.any


def test_numbers_of_points_can_vary_as_annotators_click() -> None:
    class_sets, instance = scene()
    counts = set()
    for seed in range(40):
        labels = sample(class_sets, instance, seed, vary_points=True).prompts.labels[0]
        assert len(labels) == 10
        assert (labels[:6] != 0).all() and (labels[6:] != 1).all()
        counts.add((int((labels == 1).sum()), int((labels == 0).sum())))
    assert {p for p, _ in counts} == set(range(1, 7)) and {n for _, n in counts} == set(range(5))
