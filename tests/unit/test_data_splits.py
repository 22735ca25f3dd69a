"""Which voxels validate: fixed by the item, whatever is annotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_cases import HIERARCHY, add_cells, items_of
from hypothesis import given
from hypothesis import strategies as st

from lib.data.positions import index_positions, stratum_keys, taught_by_tissue
from lib.data.splits import GAP, split_item
from lib.volumes.record import SYNTHETIC
from lib.volumes.study import Study

SHAPES = st.tuples(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300))


@given(st.text(min_size=1, max_size=8), SHAPES, st.floats(0.05, 0.5))
def test_validation_boxes_lie_inside_and_never_overlap(
    name: str, shape: tuple[int, int, int], share: float
) -> None:
    split = split_item(name, shape, None, share)
    assert split == split_item(name, shape, None, share)
    for box in split.val_boxes:
        assert all(0 <= lo < hi <= n for (lo, hi), n in zip(box, shape, strict=True))
    voxels = sum(np.prod([hi - lo for lo, hi in box]) for box in split.val_boxes)
    if split.whole is None:
        assert 0 < voxels < np.prod(shape)
        covered = sorted(split.val_boxes)
        assert len(set(covered)) == len(covered)


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_declared_split_holds_for_the_whole_item(role: str) -> None:
    split = split_item("item", (400, 400, 100), role, 0.2)
    assert split.whole == role
    assert split.validating(((5, 9), (5, 9), (5, 9))).all() == (role == "val")


def test_every_volume_of_some_size_has_validation_blocks_and_mostly_trains() -> None:
    for number in range(20):
        split = split_item(f"item{number}", (200, 200, 60), None, 0.2)
        share = sum(np.prod([hi - lo for lo, hi in box]) for box in split.val_boxes) / 2_400_000
        assert 0.03 < share < 0.35


def test_training_voxels_keep_the_gap_to_validation_voxels(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "b", (192, 192, 32))
    (item,) = items_of(study)
    whole = ((0, 192), (0, 192), (0, 32))
    keys = stratum_keys(item, whole)
    assert (keys >= 0).any()
    for x, y, z in item.split.val_boxes:
        wide = tuple(
            slice(max(lo - g, 0), hi + g) for (lo, hi), g in zip((x, y, z), GAP, strict=True)
        )
        assert (keys[wide] == -1).all()


def test_more_labels_do_not_move_a_voxel_between_the_roles(tmp_path: Path) -> None:
    early, late = Study(tmp_path / "early", HIERARCHY), Study(tmp_path / "late", HIERARCHY)
    known = np.zeros((192, 192, 32), bool)
    known[:96] = True
    add_cells(early, "b", (192, 192, 32), known=known)
    add_cells(late, "b", (192, 192, 32))
    (before,), (after,) = items_of(early), items_of(late)
    assert before.split == after.split
    whole = ((0, 192), (0, 192), (0, 32))
    trained = stratum_keys(before, whole) >= 0
    assert not (trained & after.split.validating(whole)).any()


def test_the_index_counts_known_training_voxels_by_class_set(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    known = np.random.default_rng(0).random((64, 64, 16)) < 0.3
    add_cells(study, "b", known=known, split="train")
    (item,) = items_of(study)
    strata = index_positions(item)
    sets = study.item("b").read_class_sets()
    values, counts = np.unique(sets[known], return_counts=True)
    assert {k: s.count for k, s in strata.items()} == dict(
        zip(values.tolist(), counts.tolist(), strict=True)
    )
    generator = np.random.default_rng(1)
    for key, stratum in strata.items():
        for _ in range(20):
            assert sets[stratum.draw(generator)] == key


def test_what_synthetic_images_teach_is_not_taught_by_tissue(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "tissue", (32, 32, 8), split="train")
    add_cells(study, "made", (32, 32, 8), split="train", source={"path": f"{SYNTHETIC}, seed 3"})
    indexed = {item.id: (item, index_positions(item)) for item in items_of(study)}
    names = taught_by_tissue([indexed["tissue"]])
    assert names and names < set(HIERARCHY.class_names)
    assert taught_by_tissue(indexed.values()) == names
    assert taught_by_tissue([indexed["made"]]) == set()


def test_an_item_larger_than_the_cache_is_read_by_boxes_with_the_same_result(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "b", split="train")
    (held,), (read,) = items_of(study), items_of(study, cache_bytes=1000)
    assert held.cache.get(held) is not None and read.cache.get(read) is None
    box = ((-3, 40), (10, 70), (2, 16))
    one, other = held.read(box), read.read(box)
    for name in ("image", "class_sets", "instance"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.class_sets[:3] == HIERARCHY.unknown).all() and (one.instance[:3] == -1).all()
    assert {k: s.count for k, s in index_positions(held).items()} == {
        k: s.count for k, s in index_positions(read).items()
    }
