"""What came back as it was shown beside corrections holds its class, or its object, in place."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from adaptation_cases import AXON, DENDRITE, HIERARCHY, UNKNOWN, published, striped, striped_study

from lib.adaptation.came_back import REACH, with_what_came_back
from lib.adaptation.item_rows import learned_labels
from lib.adaptation.left_objects import with_left_objects
from lib.adaptation.marks import marks_of
from lib.adaptation.network import data_item
from lib.data.items import Labels
from lib.proofread.store import MACHINE_TAG
from lib.volumes.study import TOUCHED
from lib.volumes.writing import label_file

ONE, OTHER, THIRD = 1 << AXON, 1 << DENDRITE, 1 << HIERARCHY.class_names.index("soma")
SHAPE = (3 * REACH, 4, 2)


def labels_of(sets: np.ndarray) -> Labels:
    palette, codes = np.unique(sets, return_inverse=True)
    none = np.full(sets.shape, -1, np.int32)
    return Labels(codes.reshape(sets.shape).astype(np.uint8), palette.astype(np.int32), none)


def held(decided: np.ndarray, shown: np.ndarray) -> np.ndarray:
    found = with_what_came_back(labels_of(decided), shown.astype(np.int32), HIERARCHY)
    return found.palette[found.codes]


def scene() -> tuple[np.ndarray, np.ndarray]:
    """One voxel made an axon in the first section, where the machine said axon and dendrite."""
    shown = np.full(SHAPE, ONE)
    shown[:, 2:] = OTHER
    decided = np.full(SHAPE, UNKNOWN)
    decided[0, 3, 0] = shown[0, 3, 0] = ONE
    return decided, shown


def test_within_reach_in_the_same_section_and_nowhere_else() -> None:
    decided, shown = scene()
    expected = decided.copy()
    near = expected[: REACH + 1, :, 0]
    near[:, :2] = ONE
    near[:, 2:] = UNKNOWN & ~ONE  # nobody spoke of dendrites: it is no axon, that is all
    expected[0, 3, 0] = ONE
    np.testing.assert_array_equal(held(decided, shown), expected)


def test_a_class_that_was_corrected_away_is_held_by_what_took_its_place() -> None:
    """Dendrite painted over false axon: what is left of the axon is no dendrite."""
    decided, shown = scene()
    decided[0, 3, 0] = shown[0, 3, 0] = OTHER
    found = held(decided, shown)
    assert (found[:REACH, :2, 0] == UNKNOWN & ~OTHER).all()
    assert (found[1:REACH, 2:, 0] == OTHER).all()


def test_where_the_machine_had_found_little_nothing_is_said() -> None:
    decided, shown = scene()
    shown[:, :2] = OTHER
    shown[1, 0, 0] = ONE  # one voxel of axon came back, two were painted
    decided[:2, 3, 0] = shown[:2, 3, 0] = ONE
    np.testing.assert_array_equal(held(decided, shown), decided)


def test_each_section_is_judged_by_itself() -> None:
    """Painted from nothing in one section, corrected in another once it is found."""
    decided, shown = scene()
    decided[:, :, 1] = shown[:, :, 1] = ONE
    decided[0, 0, 1] = UNKNOWN
    shown[0, 0, 1] = OTHER
    found = held(decided, shown)
    assert (found[:REACH, :2, 0] == ONE).all()
    assert found[0, 0, 1] == UNKNOWN


def test_what_the_machine_was_never_shown_to_say_stays_unknown() -> None:
    decided, shown = scene()
    shown[5, 0, 0] = UNKNOWN
    assert held(decided, shown)[5, 0, 0] == UNKNOWN


def test_a_group_that_holds_the_class_stays_open() -> None:
    group = next(s for s in HIERARCHY.group_sets if s & ONE and s != ONE)
    decided, shown = scene()
    shown[10, 3, 0] = group
    shown[11, 3, 0] = THIRD
    found = held(decided, shown)
    assert found[10, 3, 0] == UNKNOWN & ~(ONE & ~group) == UNKNOWN
    assert found[11, 3, 0] == UNKNOWN & ~ONE


def objects() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four objects in a row, in two sections; the second one was drawn anew in the first."""
    machine = np.repeat(np.arange(1, 5), 4)[:, None, None] * np.ones((1, 6, 2), np.int64)
    shown = machine + 100
    shown[4:8, :, 0] = 7
    ids = np.where(shown == 7, 7, -1)
    return ids, shown, machine


def test_untouched_objects_of_the_section_count_as_marked() -> None:
    ids, shown, machine = objects()
    found = with_left_objects(ids, shown, machine)
    assert (found[..., 1] == -1).all(), "nobody looked at that section"
    first = found[..., 0]
    assert (first[4:8] == 7).all()
    parts = [np.unique(first[a : a + 4]) for a in (0, 8, 12)]
    assert all(len(p) == 1 and p[0] > 7 for p in parts)
    assert len(np.unique(np.concatenate(parts))) == 3


def test_what_is_left_of_a_cut_object_says_nothing() -> None:
    ids, shown, machine = objects()
    machine[8:12, :, 0] = 2  # one object of the machine, of which half was drawn anew
    shown[8:12, :, 0] = 102
    found = with_left_objects(ids, shown, machine)
    assert (found[8:12, :, 0] == -1).all()
    assert (found[12:, :, 0] > 7).all() and (found[:4, :, 0] > 7).all()


def test_where_corrections_outweigh_them_marks_are_alone() -> None:
    ids, shown, machine = objects()
    shown[:12, :, 0] = ids[:12, :, 0] = np.repeat((7, 8, 9), 4)[:, None]
    assert with_left_objects(ids, shown, machine) is ids


def keep(root: Path, tag: str, values: np.ndarray) -> None:
    file = label_file(root, tag, "stripes")
    file.parent.mkdir(parents=True, exist_ok=True)
    affine = np.asarray(nibabel.load(root / "stripes.nii").affine)
    nibabel.save(nibabel.Nifti1Image(values, affine), file)


def test_of_an_item_as_it_was_submitted(tmp_path: Path) -> None:
    """Some of an axon was corrected in one section; everything else came back."""
    study, item = striped_study(tmp_path)
    _, sets = striped()
    touched = np.zeros(sets.shape, np.uint8)
    touched[:2, :4, 3] = 1
    keep(study.root, TOUCHED, touched)
    item = study.item("stripes")
    data = data_item(item, published())
    before, found = data.load_labels(), learned_labels(data)
    np.testing.assert_array_equal(before.palette[before.codes] != UNKNOWN, touched != 0)
    held = found.palette[found.codes]
    near = np.zeros(sets.shape, bool)
    near[: 2 + REACH, : 4 + REACH, 3] = True
    np.testing.assert_array_equal(held != UNKNOWN, near)
    np.testing.assert_array_equal(held[near & (sets == ONE)], ONE)


def test_marks_of_an_item_as_it_was_submitted(tmp_path: Path) -> None:
    study, _ = striped_study(tmp_path)
    ids = 1 + np.arange(64)[:, None, None] // 4 * np.ones((1, 64, 8), int)
    touched = np.zeros(ids.shape, np.uint8)
    touched[:8, :, 3] = 1
    for tag, values in (("instance", ids + 50), (MACHINE_TAG, ids)):
        keep(study.root, tag, values.astype(np.uint32))
    keep(study.root, TOUCHED, touched)
    (marks,) = marks_of([study.item("stripes")], published(), 10**6, lambda _: None)
    assert len(np.unique(marks.ids[marks.ids > 0])) == 2 + REACH // 4
    assert (marks.sets != UNKNOWN).all(), "what came back is nobody's gap between objects"
