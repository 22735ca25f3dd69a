"""Something annotated always validates, the same blocks as labels arrive; a handful says so."""

from pathlib import Path

import numpy as np
import pytest
from engine_cases import HIERARCHY, items_of, tiny_settings

from lib.data.holding import ENOUGH, hold_back
from lib.data.items import DataItem
from lib.engine.options import RunOptions
from lib.engine.run import train
from lib.engine.validation import validation_places
from lib.networks.model import build_network
from lib.networks.weights import save_weights
from lib.volumes.boxes import box_slices
from lib.volumes.study import Study

AXON = HIERARCHY.class_names.index("axon")
SHAPE = (200, 200, 24)
VOXEL = (4.0, 4.0, 50.0)


def painted(root: Path, *boxes: tuple[tuple[int, int], ...]) -> list[DataItem]:
    """Items of a study whose only item is annotated in some boxes."""
    image = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    sets = np.full(SHAPE, HIERARCHY.unknown, np.int32)
    for box in boxes:
        sets[box_slices(box)] = 1 << AXON
    study = Study(root, HIERARCHY)
    study.add_item("tissue", image, VOXEL, sets, replace=True)
    return items_of(study)


def held(items: list[DataItem]) -> set[tuple[tuple[int, int], ...]]:
    return {box for item in items for box in item.split.val_boxes}


def test_three_partly_painted_sections_validate(tmp_path: Path) -> None:
    sections = [((10, 190), (0, 20), (z, z + 1)) for z in (3, 12, 20)]
    items = painted(tmp_path, *sections)
    assert hold_back(items, 0.2) >= ENOUGH
    places = validation_places(items, (64, 64, 16), 24)
    assert places and all((p.read().class_sets != HIERARCHY.unknown).any() for p in places)


def test_blocks_stay_as_labels_arrive(tmp_path: Path) -> None:
    first = [((0, 100), (0, 40), (5, 6)), ((0, 100), (50, 90), (5, 6))]
    before = painted(tmp_path / "a", *first)
    plain = held(before)
    hold_back(before, 0.2)
    after = painted(tmp_path / "b", *first, ((110, 200), (100, 200), (5, 6)))
    hold_back(after, 0.2)
    ranked_first = held(before) - plain
    if held(after) == plain:
        return  # the coarse blocks hold enough now, which never trained
    assert ranked_first & held(after), "a block that validates goes on validating"


def test_declared_splits_are_kept(tmp_path: Path) -> None:
    image = np.zeros(SHAPE, np.uint8)
    study = Study(tmp_path, HIERARCHY)
    sets = np.full(SHAPE, 1 << AXON, np.int32)
    study.add_item("whole", image, VOXEL, sets, split="train")
    items = items_of(study)
    assert hold_back(items, 0.2) == 0 and not items[0].split.val_boxes


def test_a_handful_of_voxels_is_told_before_a_run_starts(tmp_path: Path) -> None:
    painted(tmp_path / "study", ((0, 6), (0, 6), (2, 3)))
    settings = tiny_settings()
    published = tmp_path / "neuropil.pt"
    net = build_network(settings.model, settings.loss, HIERARCHY)
    save_weights(published, net.state_dict(), settings, HIERARCHY)
    told: list[str] = []
    options = RunOptions(
        (tmp_path / "study",), tmp_path / "run", published=published, note=told.append
    )
    with pytest.raises(ValueError, match="handful of voxels"):
        train(settings, options)
    assert not any("step" in sentence for sentence in told)
