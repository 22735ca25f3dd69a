"""Marked objects of an item: the box they lie in, the plane that halves them, their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptation_cases import HIERARCHY, UNKNOWN, VOXEL, published, striped

from lib.adaptation.boundaries import BETWEEN, INSIDE, boundary_targets
from lib.adaptation.marks import MARGIN, Marks, boundary_rows, marks_of
from lib.adaptation.network import data_item
from lib.prediction.features import FeatureSource
from lib.prediction.filters import COUNT as FILTERS
from lib.volumes.study import Study, StudyItem

NETWORK = published()


def marked(root: Path, name: str = "stripes", **more: Any) -> StudyItem:
    """Four objects along x, in the middle of an item."""
    image, _ = striped()
    ids = np.full(image.shape, -1, np.int64)
    ids[26:42, 20:40, 3:6] = (np.arange(16) // 4 + 1)[:, None, None]
    ids = more.pop("ids", ids)
    sets = np.full(image.shape, UNKNOWN, np.int32)
    sets[ids > 0] = HIERARCHY.set_named("axon")
    study = Study(root, HIERARCHY)
    item, _ = study.add_item(name, image, VOXEL, sets, ids, **{"true_instances": True, **more})
    return item


def marks_in(item: StudyItem, most: int = 10**6) -> list[Marks]:
    return marks_of([item], NETWORK, most, lambda _: None)


def test_the_box_is_that_of_all_objects_with_a_margin_inside_the_image(tmp_path: Path) -> None:
    (marks,) = marks_in(marked(tmp_path))
    assert MARGIN == (24, 24, 2)
    assert marks.box == ((2, 64), (0, 64), (1, 8))
    assert marks.ids.shape == marks.sets.shape == (62, 64, 7)
    assert np.unique(marks.ids).tolist() == [-1, 1, 2, 3, 4]
    assert marks.image.shape == (64, 64, 8) and marks.voxel_size_nm == VOXEL


def test_the_plane_goes_through_the_middle_of_the_objects(tmp_path: Path) -> None:
    (marks,) = marks_in(marked(tmp_path))
    assert marks.axis == 0 and marks.middle == pytest.approx(31.5 + 2 - 2)
    side = marks.side()
    assert side.shape == (62, 1, 1) and side[0].item() == pytest.approx(-marks.middle)
    signed = np.broadcast_to(side, marks.ids.shape)
    assert {int(i) for i in np.unique(marks.ids[(signed < 0) & (marks.ids > 0)])} == {1, 2}


def test_one_object_and_none_say_nothing_of_joins(tmp_path: Path) -> None:
    one = np.full((64, 64, 8), -1, np.int64)
    one[4:9] = 3
    assert marks_in(marked(tmp_path / "a", ids=one)) == []
    assert marks_in(marked(tmp_path / "b", ids=np.full(one.shape, -1, np.int64))) == []


def test_items_without_objects_are_passed_over(tmp_path: Path) -> None:
    image, sets = striped()
    item, _ = Study(tmp_path, HIERARCHY).add_item("plain", image, VOXEL, sets)
    assert not item.has_label("instance") and marks_in(item) == []


def test_as_many_boxes_as_fit_together(tmp_path: Path) -> None:
    items = [marked(tmp_path, name) for name in ("a", "b", "c")]
    (alone,) = marks_in(items[0])
    size = alone.ids.size
    for most, names in ((size - 1, []), (size, ["a"]), (2 * size, ["a", "b"]), (9 * size, "abc")):
        found = marks_of(items, NETWORK, most, lambda _: None)
        assert [m.name for m in found] == list(names)


def test_numbers_hold_within_a_section_where_nothing_goes_on(tmp_path: Path) -> None:
    (through,) = marks_in(marked(tmp_path / "a"))
    assert not through.sectionwise
    (declared,) = marks_in(marked(tmp_path / "b", true_instances=False))
    assert declared.sectionwise, "the item says that its objects are no true ones"
    single = np.full((64, 64, 8), -1, np.int64)
    single[10:20, :, 3], single[30:40, :, 3] = 1, 2
    (one_section,) = marks_in(marked(tmp_path / "c", ids=single))
    assert one_section.sectionwise


def test_a_shelf_is_asked_for_each_item(tmp_path: Path) -> None:
    asked: list[str] = []

    def shelf(item: StudyItem) -> None:
        asked.append(item.id)

    marks_of([marked(tmp_path)], NETWORK, 10**6, shelf)
    assert asked == ["stripes"]


def test_rows_are_what_heads_see_of_the_voxels_that_marks_speak_of(tmp_path: Path) -> None:
    """Each row is found again among the features of voxels of its kind and its side."""
    item = marked(tmp_path)
    (marks,) = marks_in(item)
    features, between, side = boundary_rows(marks, NETWORK)
    targets = boundary_targets(marks.ids, marks.sets == UNKNOWN, VOXEL)
    channels = NETWORK.net.feature_channels
    assert features.shape == (int((targets >= 0).sum()), channels + FILTERS)
    assert int(between.sum()) == int((targets == BETWEEN).sum()) > 0
    assert int((~between).sum()) == int((targets == INSIDE).sum()) > 0
    distance = np.broadcast_to(marks.side(), targets.shape)
    for kind, rows in ((BETWEEN, between), (INSIDE, ~between)):
        found = np.sort(side[rows].numpy())
        np.testing.assert_allclose(found, np.sort(distance[targets == kind]))
    # filter responses are a voxel's own wherever windows lie: those of the whole image have them
    source = FeatureSource(NETWORK.net, marks.image, "float32")
    whole = ((0, 64), (0, 64), (0, 8))
    responses = source.responses([whole], VOXEL)[0]
    x, y, z = (slice(low, high) for low, high in marks.box)
    expected = responses[x, y, z][torch.from_numpy(targets == BETWEEN)]
    mean, other = (r.float().mean(0) for r in (features[between][:, channels:], expected))
    assert torch.allclose(mean, other, atol=0.15), "of the same voxels, seen from windows"


def test_rows_are_the_same_each_time(tmp_path: Path) -> None:
    (marks,) = marks_in(marked(tmp_path))
    one, other = (boundary_rows(marks, NETWORK) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_item_is_seen_in_the_networks_frame(tmp_path: Path) -> None:
    image, sets = striped()
    study = Study(tmp_path, HIERARCHY)
    turned = image.transpose(2, 0, 1)
    item, _ = study.add_item("lying", turned, (50.0, 10.0, 10.0), sets.transpose(2, 0, 1))
    data = data_item(item, NETWORK)
    assert data.shape == (64, 64, 8) and data.voxel_size_nm == (10.0, 10.0, 50.0)
