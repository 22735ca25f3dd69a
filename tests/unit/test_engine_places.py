"""The places that validate: where they lie, which are chosen, what is read of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from engine_cases import HIERARCHY, SECTIONS, add_cells, items_of
from hypothesis import given
from hypothesis import strategies as st

from lib.data.items import DataItem
from lib.data.splits import ItemSplit
from lib.engine.validation import (
    ENOUGH_KNOWN,
    LEAST_KNOWN,
    Place,
    _tiles,
    readable_places,
    validation_places,
)
from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.boxes import Box, Triple, box_shape, box_slices
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study

PATCH = (32, 32, 8)


def spaces(shape: Triple, *boxes: Box) -> DataItem:
    """An item of a shape whose boxes validate."""
    return cast(DataItem, SimpleNamespace(shape=shape, split=SimpleNamespace(val_boxes=boxes)))


def test_tiles_by_hand() -> None:
    """45 voxels by patches of 32: two, the second moved back where the volume ends."""
    item = spaces((45, 32, 4), ((0, 45), (0, 32), (0, 4)))
    assert _tiles(item, (32, 32, 8)) == [
        ((0, 32), (0, 32), (0, 4)),
        ((13, 45), (0, 32), (0, 4)),
    ]


def test_a_box_smaller_than_a_patch_is_looked_at_with_what_is_around_it() -> None:
    item = spaces((100, 100, 20), ((90, 94), (0, 3), (10, 12)))
    assert _tiles(item, PATCH) == [((68, 100), (0, 32), (10, 18))]


@given(
    shape=st.tuples(*[st.integers(1, 70)] * 3),
    patch=st.tuples(*[st.integers(1, 40)] * 3),
    data=st.data(),
)
def test_tiles_cover_what_validates_within_the_volume(
    shape: Triple, patch: Triple, data: st.DataObject
) -> None:
    spans = []
    for n in shape:
        low = data.draw(st.integers(0, n - 1))
        spans.append((low, data.draw(st.integers(low + 1, n))))
    val: Box = (spans[0], spans[1], spans[2])
    tiles = _tiles(spaces(shape, val), patch)
    assert len(set(tiles)) == len(tiles)
    covered = np.zeros(shape, bool)
    for tile in tiles:
        size = tuple(min(p, n) for p, n in zip(patch, shape, strict=True))
        assert box_shape(tile) == size, "each is a whole patch, or the whole axis"
        covered[box_slices(tile)] = True
    assert covered[box_slices(val)].all()


def test_what_may_not_validate_is_unknown_in_a_place(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "whole", (64, 64, 16))
    (item,) = items_of(study)
    item.split = ItemSplit(item.shape, (((0, 32), (8, 64), (0, 16)),), None)
    place = Place(item, ((0, 64), (0, 64), (0, 16)))
    patch, allowed = place.read(), item.split.validating(place.box)
    assert allowed.sum() == 32 * 56 * 16
    assert (patch.class_sets[~allowed] == HIERARCHY.unknown).all()
    assert (patch.instance[~allowed] == IGNORE_INDEX).all()
    assert (patch.class_sets[allowed] != HIERARCHY.unknown).all()
    assert (patch.instance[allowed] > 0).any()


def test_ids_that_are_no_true_objects_are_not_scored_in_volumes(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "sectionwise", PATCH, split="val", true_instances=False)
    add_cells(study, "section", (32, 32, 1), split="val", true_instances=False)
    read = {item.id: Place(item, _tiles(item, PATCH)[0]).read() for item in items_of(study)}
    assert (read["sectionwise"].instance == IGNORE_INDEX).all()
    assert (read["section"].instance > 0).any(), "in a single section they are what they are"


def test_a_place_has_enough_known_voxels(tmp_path: Path) -> None:
    """A share of the place, or a stroke of so many voxels."""
    box = 32 * 32 * 8
    assert LEAST_KNOWN * box < ENOUGH_KNOWN < LEAST_KNOWN * 64 * 64 * 8
    study = Study(tmp_path, HIERARCHY)
    flat = np.arange(box).reshape(PATCH)
    for name, count in (("few", 163), ("enough", 164)):
        add_cells(study, name, PATCH, known=flat < count, split="val")
    wide = np.arange(64 * 64 * 8).reshape(64, 64, 8)
    for name, count in (("thin", 199), ("stroke", 200)):
        add_cells(study, name, (64, 64, 8), known=wide < count, split="val")
    items = {item.id: item for item in items_of(study)}
    found = {p.item.id for p in validation_places([items["few"], items["enough"]], PATCH, 9)}
    assert found == {"enough"}
    found = {p.item.id for p in validation_places([items["thin"], items["stroke"]], (64, 64, 8), 9)}
    assert found == {"stroke"}


def test_groups_share_the_places_evenly_and_always_alike(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "large-one", (96, 96, 8), split="val")
    add_cells(study, "small-one", (64, 32, 8), split="val")
    items = items_of(study)
    chosen = validation_places(items, PATCH, 4)
    assert sorted(p.item.group for p in chosen) == ["large", "large", "small", "small"]
    everything = validation_places(items, PATCH, 100)
    assert len(everything) == 9 + 2
    assert validation_places(items[::-1], PATCH, 4) == chosen
    assert everything[:4] == chosen, "fewer places are the first of more"
    assert validation_places(items, PATCH, 0) == [] == validation_places([], PATCH, 5)


def test_ranks_spread_and_depend_on_the_item_and_the_box_alone() -> None:
    boxes: list[Box] = [((n, n + 1), (0, 1), (0, 1)) for n in range(200)]
    item = cast(DataItem, SimpleNamespace(id="one"))
    ranks = [Place(item, box).rank for box in boxes]
    assert all(0 <= r < 1 for r in ranks) and len(set(ranks)) == 200
    assert np.mean(ranks) == pytest.approx(0.5, abs=0.08)
    again = cast(DataItem, SimpleNamespace(id="one", more=1))
    assert [Place(again, box).rank for box in boxes] == ranks
    other = cast(DataItem, SimpleNamespace(id="two"))
    assert Place(other, boxes[0]).rank != ranks[0]


def test_places_that_cannot_be_read_are_left_out_and_named() -> None:
    class Item:
        def __init__(self, name: str, fault: str = "") -> None:
            self.id, self.fault = name, fault

    class Reading(Place):
        def read(self) -> Any:
            if fault := cast(Any, self.item).fault:
                raise VolumeError("one.h5", fault)

    box: Box = ((0, 1), (0, 1), (0, 1))
    places = [Reading(cast(Any, Item(n, f)), box) for n, f in (("a", ""), ("b", "cut short"))]
    told: list[str] = []
    assert readable_places(places, told.append) == places[:1]
    assert told == ["not validated: b ((0, 1), (0, 1), (0, 1)): one.h5: cut short"]


def test_single_sections_have_wider_places_of_about_as_many_voxels(tmp_path: Path) -> None:
    study = Study(tmp_path, HIERARCHY)
    add_cells(study, "one", (192, 32, 1), SECTIONS, split="val")
    places = validation_places(items_of(study), PATCH, 9)
    assert sorted(p.box for p in places) == [
        ((0, 96), (0, 32), (0, 1)),
        ((96, 192), (0, 32), (0, 1)),
    ]
