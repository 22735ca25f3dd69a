"""Drawing patches: from known voxels, balanced, the same for the same step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_cases import HIERARCHY, ISOTROPIC, add_cells, items_of

from lib.data.batches import collate, compact_ids
from lib.data.prefetch import Prefetcher
from lib.data.sampler import PatchSampler
from lib.volumes.study import Study

SIZE = (32, 32, 8)


def numbered_study(root: Path, voxel_size_nm: tuple[float, float, float]) -> Study:
    """Every voxel is its own object and every second block of voxels is unknown."""
    study = Study(root, HIERARCHY)
    shape = (96, 96, 24)
    ids = np.arange(1, np.prod(shape) + 1).reshape(shape)
    known = np.indices(shape).sum(0) // 7 % 2 == 0
    sets = np.where(known, HIERARCHY.set_named("axon"), HIERARCHY.unknown).astype(np.int32)
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    study.add_item("n", image, voxel_size_nm, sets, np.where(known, ids, -1))
    return study


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, (10.0, 10.0, 40.0)])
@pytest.mark.parametrize("augment", [False, True])
def test_labels_come_from_training_voxels_only_and_stay_together(
    tmp_path: Path, voxel_size_nm: tuple[float, float, float], augment: bool
) -> None:
    study = numbered_study(tmp_path, voxel_size_nm)
    items = items_of(study)
    sampler = PatchSampler(items, SIZE, seed=3, augment=augment)
    sets, ids = study.item("n").read_class_sets(), study.item("n").read_instances()
    whole = ((0, 96), (0, 96), (0, 24))
    validating = items[0].split.validating(whole)
    assert validating.any()
    for step in range(15):
        (patch,) = sampler.batch(step, [0])
        assert patch.image.shape == patch.class_sets.shape == patch.instance.shape
        assert patch.image.min() >= 0 and patch.image.max() <= 1
        found = patch.instance > 0
        assert found.any(), "a patch holds the known voxel it was drawn at"
        where = np.unravel_index(patch.instance[found] - 1, ids.shape)
        assert not validating[where].any()
        np.testing.assert_array_equal(patch.class_sets[found], sets[where])
        assert (patch.class_sets[~found] == HIERARCHY.unknown).all()


def test_a_turned_patch_shows_the_same_image_at_each_voxel(tmp_path: Path) -> None:
    study = numbered_study(tmp_path, ISOTROPIC)
    items = items_of(study)
    raw = np.asarray(study.item("n").open_image()[:, :, :]).ravel()
    low, high = items[0].window
    sampler = PatchSampler(items, SIZE, seed=1, augment=False)
    for step in range(5):
        (patch,) = sampler.batch(step, [0])
        found = patch.instance > 0
        expected = np.clip((raw[patch.instance[found] - 1] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(patch.image[found], expected, atol=1e-5)


def test_classes_that_occur_are_drawn_alike(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    shape = (64, 64, 16)
    sets = np.full(shape, HIERARCHY.set_named("axon"), np.int32)
    sets[5, 5, 3] = HIERARCHY.set_named("tear")  # one voxel in 65536
    sets[40:44, 40:44] = HIERARCHY.set_named("organelle")
    study.add_item("n", np.zeros(shape, np.uint8), ISOTROPIC, sets, None, split="train")
    sampler = PatchSampler(items_of(study), (8, 8, 8), seed=0, augment=False)
    held: Counter[str] = Counter()
    for step in range(150):
        (patch,) = sampler.batch(step, [0])
        held.update(HIERARCHY.describe(int(v)) for v in np.unique(patch.class_sets))
    assert 30 < held["tear"] < 75 and held["organelle"] > 40
    shares = sampler.class_shares(HIERARCHY)
    assert shares == {name: pytest.approx(1 / 3) for name in ("axon", "tear", "organelle")}


def test_groups_weigh_by_the_root_of_their_voxels_however_they_are_cut(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "one-whole", (64, 64, 16), split="train")
    add_cells(study, "cut-a", (64, 32, 16), split="train")
    add_cells(study, "cut-b", (64, 32, 16), split="train")
    add_cells(study, "small-a", (32, 32, 16), split="train")
    shares = PatchSampler(items_of(study), SIZE, seed=0, augment=False).group_shares()
    assert shares == {
        k: pytest.approx(v) for k, v in {"cut": 0.4, "one": 0.4, "small": 0.2}.items()
    }


def test_group_weights_change_the_shares_and_must_name_groups(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    for name in ("one-a", "two-a"):
        add_cells(study, name, (32, 32, 16), split="train")
    items = items_of(study)
    weighted = PatchSampler(items, SIZE, 0, False, {"two": 3.0})
    assert weighted.group_shares() == pytest.approx({"one": 0.25, "two": 0.75})
    with pytest.raises(ValueError, match=r"no training patches from three; .*one, two"):
        PatchSampler(items, SIZE, 0, False, {"three": 2.0})


def test_a_draw_depends_on_seed_step_and_place_only(tmp_path: Path) -> None:
    items = items_of(numbered_study(tmp_path, ISOTROPIC))
    one, other = (PatchSampler(items, SIZE, seed=5, augment=True) for _ in range(2))
    for step in (7, 2):
        together = one.batch(step, [0, 1, 2, 3])
        halves = other.batch(step, [0, 1]) + other.batch(step, [2, 3])
        for a, b in zip(together, halves, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.instance, b.instance)
    assert not np.array_equal(one.batch(0, [0])[0].image, one.batch(1, [0])[0].image)


def test_a_batch_has_one_shape_whatever_the_items_are(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "iso", (40, 40, 40), ISOTROPIC, split="train")
    add_cells(study, "few", (64, 64, 6), split="train")
    add_cells(study, "flat", (96, 80, 1), split="train")
    add_cells(study, "derived", (64, 64, 16), split="train", true_instances=False)
    sampler = PatchSampler(items_of(study), SIZE, seed=0, augment=True)
    shapes: Counter[tuple[int, ...]] = Counter()
    for step in range(40):
        batch = collate(sampler.batch(step, [0, 1]))
        shapes[tuple(batch["image"].shape[2:])] += 1
        assert batch["image"].is_contiguous() and batch["instance"].is_contiguous()
        if batch["item"] == ["derived", "derived"] and batch["image"].shape[-1] > 1:
            assert (batch["instance"] == -1).all(), "ids of sections are no objects of a volume"
            assert batch["within_sections"].all() and (batch["section_ids"] > 0).any()
        else:
            assert torch.equal(batch["instance"], batch["section_ids"])
    assert {shape[2] for shape in shapes} == {1, 6, 8, 16}


def test_every_data_set_is_drawn_by_its_size(tmp_path: Path) -> None:
    # Two shapes with two data sets each: the numbers that choose the shape must not be those
    # that choose the data set, or one of each pair is never seen.
    study = Study(tmp_path, HIERARCHY)
    sets = {
        "a-1": ISOTROPIC,
        "b-1": ISOTROPIC,
        "c-1": (10.0, 10.0, 40.0),
        "d-1": (10.0, 10.0, 40.0),
    }
    for item, voxel_size_nm in sets.items():
        add_cells(study, item, (48, 48, 16), voxel_size_nm, split="train")
    sampler = PatchSampler(items_of(study), SIZE, seed=0, augment=False)
    assert len(sampler.shapes) == 2
    drawn = Counter(sampler.batch(step, [0])[0].item for step in range(400))
    assert set(drawn) == set(sets)
    assert all(60 < count < 140 for count in drawn.values()), drawn


def test_nothing_known_is_told_plainly(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "n", known=np.zeros((64, 64, 16), bool))
    with pytest.raises(ValueError, match=r"nothing to train on.*annotate"):
        PatchSampler(items_of(study), SIZE, seed=0, augment=False)


def test_ids_become_compact_and_keep_their_signs() -> None:
    ids = np.array([[-1, 0, 2**32 - 2], [7, 7, 2**40]])
    found = compact_ids(ids)
    assert found[0, 0] == -1 and found[0, 1] == 0 and found[1, 0] == found[1, 1]
    assert sorted(np.unique(found[found > 0])) == [1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_keeps_the_order_and_passes_errors_on(workers: int) -> None:
    assert list(Prefetcher(lambda step: step * step, 3, 12, workers)) == [
        n * n for n in range(3, 12)
    ]

    def fails(step: int) -> int:
        if step == 2:
            raise ValueError("step 2 is bad")
        return step

    seen = []
    with pytest.raises(ValueError, match="step 2 is bad"):
        for value in Prefetcher(fails, 0, 5, workers):
            seen.append(value)
    assert seen == [0, 1]
