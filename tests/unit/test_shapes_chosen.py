"""Which objects of an item are measured, and what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from volume_files import SIZE_NM, nifti

from lib.labels.hierarchy import load_hierarchy
from lib.proofread.current import Placed
from lib.proofread.store import MACHINE_TAG, ObjectStore
from lib.shapes.chosen import AUTOMATIC, ItemObjects, lazy_objects, objects_of
from lib.shapes.commands import ids_named
from lib.volumes.boxes import whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study, StudyItem
from lib.volumes.writing import label_file

H = load_hierarchy()
SHAPE = (8, 6, 4)
AXON, SOMA, MITO, GROUP = (H.set_named(n) for n in ("axon", "soma", "mitochondria", "organelle"))


def fine(class_set: int) -> int:
    """The class of a set of one."""
    return class_set.bit_length() - 1


def halves(low: int, high: int, dtype: type = np.int64) -> np.ndarray:
    """A map that is one value for x < 4 and another beyond."""
    ids = np.full(SHAPE, high, dtype)
    ids[:4] = low
    return ids


def item_of(root: Path, **labels: np.ndarray) -> StudyItem:
    """An item "a" with an origin and the labels of a study."""
    study = Study(root, H)
    image = np.full(SHAPE, 90, np.uint8)
    return study.add_item("a", image, SIZE_NM, origin_voxels=(10, 0, 3), **labels)[0]


def put(item: StudyItem, tag: str, data: np.ndarray) -> None:
    """A map that the machine made of an item."""
    path = label_file(item.study.root, tag, item.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti(path, data)


def accept(item: StudyItem, ids: np.ndarray, object_id: int, name: str) -> None:
    """What a person accepts."""
    objects, _ = ObjectStore(item.study.root, 1).open(item.id, SHAPE)
    objects.accept(Placed(ids == object_id, whole_box(SHAPE)), object_id, name)


def test_annotated_objects_have_the_class_that_most_of_their_voxels_have(tmp_path: Path) -> None:
    sets = np.full(SHAPE, AXON, np.int32)
    sets[:2], sets[4:] = MITO, SOMA  # half of the first object's voxels each: the tie is stable
    sets[0, 0, 0] = AXON
    item = item_of(tmp_path, instance=halves(3, 7), class_sets=sets)
    found = objects_of(item, "instance")
    assert (found.ids == halves(3, 7)).all() and found.ids.dtype == np.uint32
    assert found.classes == {3: fine(AXON), 7: fine(SOMA)}
    assert found.voxel_size_nm == SIZE_NM and found.origin_voxels == (10, 0, 3)
    assert found.names == {} and found.accepted == frozenset()


def test_voxels_that_are_of_no_one_class_do_not_vote(tmp_path: Path) -> None:
    sets = np.full(SHAPE, GROUP, np.int32)
    sets[0, 0, 0], sets[4:] = MITO, H.unknown
    found = objects_of(item_of(tmp_path, instance=halves(3, 7), class_sets=sets), "instance")
    assert found.classes == {3: fine(MITO)}


def test_unknown_ids_are_no_objects(tmp_path: Path) -> None:
    found = objects_of(item_of(tmp_path, instance=halves(-1, 2**32 - 2)), "instance")
    assert np.unique(found.ids).tolist() == [0, 2**32 - 2]
    lazy = lazy_objects(item_of(tmp_path / "b", instance=halves(-1, 9)), "instance")
    part = lazy[2:6, 1:3, -2:]
    assert part.shape == (4, 2, 2) and part.dtype == np.uint32 == lazy.dtype
    assert (part == halves(0, 9)[2:6, 1:3, -2:]).all() and lazy.shape == SHAPE


def test_the_machine_names_classes_where_nobody_else_did(tmp_path: Path) -> None:
    """Its map lists classes first; what it says of groups is no class."""
    sets = np.full(SHAPE, H.unknown, np.int32)
    sets[:4] = SOMA
    item = item_of(tmp_path, instance=halves(3, 7), class_sets=sets)
    put(item, AUTOMATIC, halves(fine(AXON) + 1, fine(MITO) + 1, np.uint8))
    assert objects_of(item, "instance").classes == {3: fine(SOMA), 7: fine(MITO)}
    put(item, AUTOMATIC, halves(0, H.num_classes + 1, np.uint8))
    assert objects_of(item, "instance").classes == {3: fine(SOMA)}
    put(item, AUTOMATIC, halves(0, H.num_classes, np.uint8))
    assert objects_of(item, "instance").classes[7] == H.num_classes - 1


def test_a_class_map_of_another_shape_is_not_asked(tmp_path: Path) -> None:
    item = item_of(tmp_path, instance=halves(3, 7))
    put(item, AUTOMATIC, np.ones((8, 6, 5), np.uint8))
    assert objects_of(item, "instance").classes == {}


def test_current_objects_are_the_machines_as_people_corrected_them(tmp_path: Path) -> None:
    item = item_of(tmp_path)
    put(item, MACHINE_TAG, halves(3, 7, np.uint32))
    corner = np.zeros(SHAPE, np.int64)
    corner[6:] = 12
    accept(item, corner, 12, "soma 12")
    now, before = objects_of(item, "current"), objects_of(item, "predicted")
    expected = halves(3, 7)
    assert (before.ids == expected).all() and before.accepted == frozenset()
    expected[6:] = 12
    assert (now.ids == expected).all()
    assert now.names == {12: "soma 12"} and now.accepted == frozenset({12})
    assert now.classes == {12: fine(SOMA)} and before.names == {}


def test_a_name_says_the_class_and_a_group_or_a_free_name_none(tmp_path: Path) -> None:
    ids = halves(3, 7)
    item = item_of(tmp_path, class_sets=np.full(SHAPE, MITO, np.int32))
    accept(item, ids, 3, "axon 3")
    accept(item, ids, 7, "the big one")
    assert objects_of(item, "current").classes == {3: fine(AXON), 7: fine(MITO)}
    other = item_of(tmp_path / "b")
    accept(other, ids, 7, "organelle 7")
    assert objects_of(other, "current").classes == {}


def test_annotated_objects_have_the_names_that_were_submitted(tmp_path: Path) -> None:
    study = Study(tmp_path, H)
    image = np.full(SHAPE, 90, np.uint8)
    told = {"objects": {"3": "axon 3", "7": "my cell"}}
    item, _ = study.add_item("a", image, SIZE_NM, instance=halves(3, 7), extra=told)
    found = objects_of(item, "instance")
    assert found.names == {3: "axon 3", 7: "my cell"} and found.classes == {3: fine(AXON)}


def test_objects_that_are_not_there_are_told_with_the_remedy(tmp_path: Path) -> None:
    item = item_of(tmp_path)
    with pytest.raises(VolumeError, match="item a has no instance label"):
        lazy_objects(item, "instance")
    with pytest.raises(VolumeError, match="predict --task instances --items a"):
        lazy_objects(item, "predicted")
    with pytest.raises(VolumeError, match="--objects instance takes"):
        lazy_objects(item, "current")
    put(item, MACHINE_TAG, np.ones((8, 6, 5), np.uint32))
    for which in ("current", "predicted"):
        with pytest.raises(VolumeError, match=r"8.*6.*5"):
            lazy_objects(item, which)


CHOICE = ItemObjects(
    np.arange(60, dtype=np.uint32).reshape(5, 4, 3), SIZE_NM, (0, 0, 0),
    {7: "Axon_7", 8: "my  cell", 99: "gone", 12: "30"},
    {3: fine(AXON), 4: fine(AXON), 5: fine(SOMA), 88: fine(SOMA)}, frozenset(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("7", {7}),
        ("9", {9}),
        ("axon 7", {7}),
        ("My Cell", {8}),
        ("AXON", {3, 4}),
        ("soma", {5}),
        ("30", {12, 30}),
    ],
)
def test_a_number_a_name_or_a_class_means_objects(word: str, ids: set[int]) -> None:
    assert ids_named(CHOICE, word, H) == ids


@pytest.mark.parametrize("word", ["0", "60", "gone", "dendrite", "cell", "-3", "²", ""])
def test_a_word_that_means_no_object_gives_none(word: str) -> None:
    assert ids_named(CHOICE, word, H) == set()
