"""Data that turns out to be unreadable in the middle of a run is left out, by name."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import HIERARCHY, add_cells, items_of, tiny_settings, tiny_study

from lib.data.damage import TRIES, with_readable_labels
from lib.data.items import DataItem
from lib.data.sampler import PatchSampler
from lib.engine.run import RunOptions, train
from lib.engine.validation import readable_places, validation_places
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study

SIZE = (32, 32, 8)


class Holed:
    """An image with a chunk that cannot be read: x below `limit`.

    Args:
        image: of a DataItem.
        limit: along x.
    """

    def __init__(self, image: Any, limit: int) -> None:
        self.image, self.limit = image, limit

    def __getitem__(self, index: Any) -> Any:
        if (index[0].start or 0) < self.limit:
            raise VolumeError("chunk 0/0/0", "damaged")
        return self.image[index]


def holed(item: DataItem, limit: int) -> DataItem:
    """The item with a hole in its image."""
    assert item.window
    item._image = Holed(item._image, limit)  # type: ignore[assignment]
    return item


def truncate(study: Study, item_id: str) -> None:
    """Replace an item's image by half of a compressed one, whose header is whole."""
    path = study.item(item_id).image_path
    whole = gzip.compress(path.read_bytes())
    path.with_name(f"{item_id}.nii.gz").write_bytes(whole[: len(whole) // 2])
    path.unlink()


def test_other_places_are_drawn_for_those_that_cannot_be_read(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "a", (96, 64, 16), split="train")
    told: list[str] = []
    item = holed(items_of(study)[0], 32)
    sampler = PatchSampler([item], SIZE, seed=0, augment=False, note=told.append)
    for step in range(12):
        assert len(sampler.batch(step, [0, 1])) == 2
    assert len(told) == 1 and "a: places" in told[0] and "chunk 0/0/0" in told[0]
    assert sampler.entries


def test_an_item_that_is_lost_leaves_the_others(tmp_path: Path) -> None:
    study = tiny_study(tmp_path)
    add_cells(study, "b-train", (96, 96, 24), split="train")
    told: list[str] = []
    items = items_of(study)
    holed(next(i for i in items if i.id == "a-train"), 1000)
    sampler = PatchSampler(items, SIZE, seed=0, augment=True, note=told.append)
    drawn = {sampler.batch(step, [0])[0].item for step in range(4 * TRIES)}
    assert drawn == {"b-train"}
    assert [t.partition(":")[0] for t in told] == ["a-train", "left out from here on"]


def test_a_run_ends_with_a_reason_where_nothing_is_left(tmp_path: Path) -> None:
    study = tiny_study(tmp_path)
    items = items_of(study)
    holed(items[0], 1000)
    sampler = PatchSampler(items, SIZE, seed=0, augment=False, note=lambda _: None)
    with pytest.raises(ValueError, match="nothing is left to train on: a-train"):
        sampler.batch(0, [0])


def test_labels_are_read_to_the_end_before_a_run(tmp_path: Path) -> None:
    study = tiny_study(tmp_path)
    label = study.item("a-train").label_path("final")
    whole = gzip.compress(gzip.decompress(label.read_bytes()))
    label.write_bytes(whole[: len(whole) // 2])
    told: list[str] = []
    left = with_readable_labels(items_of(study), told.append)
    assert [item.id for item in left] == ["a-val"]
    assert len(told) == 1 and "a-train" in told[0] and label.name in told[0]


def test_places_that_cannot_be_read_do_not_validate(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "a", (96, 64, 16), split="val")
    item = holed(items_of(study)[0], 32)
    places = validation_places([item], SIZE, 100)
    told: list[str] = []
    left = readable_places(places, told.append)
    assert 0 < len(left) < len(places) == len(left) + len(told)
    assert all(place.box[0][0] >= 32 for place in left)


def test_a_run_goes_on_without_a_damaged_image(tmp_path: Path) -> None:
    study = tiny_study(tmp_path / "study")
    add_cells(study, "b-train", split="train")
    add_cells(study, "b-val", (32, 32, 8), split="val")
    for name in ("a-train", "a-val"):
        truncate(study, name)
    told: list[str] = []
    options = RunOptions((study.root,), tmp_path / "out", device="cpu", note=told.append)
    result = train(tiny_settings(training__max_epochs=1), options)
    assert result.steps == 2 and result.report is not None
    assert result.report.places == 1
    assert np.isfinite(result.report.score)
    assert any("not validated: a-val" in line for line in told)
