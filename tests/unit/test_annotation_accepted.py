"""Accepted objects outlive submissions that do not hold them, and what they lose is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from submission_cases import AXON, MITO, SHAPE, upload
from volume_files import Volume

from lib.annotation.accepted import told_of_accepted
from lib.annotation.deriving import Derived
from lib.annotation.submissions import submit
from lib.annotation.versions import SubmissionOptions
from lib.volumes.study import Study

NAMES = {"mitochondria 2": 2, "axon 3": 3}
BEFORE = np.zeros(SHAPE, np.uint8)
BEFORE[0:3, 0:5, 0:4] = 1
BEFORE[5:9, 0:10, 0:6] = 2
"""Values of NAMES, in their order."""


def info(*names: str) -> list[dict]:
    return [{"name": name, "idx": n} for n, name in enumerate(names, 1)]


def send(study: Study, folder: Path, data: Volume, *names: str, **options) -> Derived:
    """Submit where NAMES are accepted."""
    known = SubmissionOptions(names=NAMES, first_free=20, accepted=(2, 3), **options)
    return submit(study, "one", upload(folder, data), info(*names), known)


@pytest.fixture
def labelled(tmp_path: Path, study: Study) -> Study:
    """A study whose labels hold both."""
    submit(study, "one", upload(tmp_path, BEFORE), info(*NAMES))
    return study


def test_accepted_objects_stay_where_a_submission_paints_nothing(tmp_path, labelled):
    new = np.zeros(SHAPE, np.uint8)
    new[2:5, 0:5, 0:2] = 1
    derived = send(labelled, tmp_path, new, "dendrite 9")
    item = labelled.item("one")
    ids, sets = item.read_instances(), item.read_class_sets()
    assert ((ids == 9) == (new == 1)).all(), "what was painted holds"
    assert ((ids == 2) == ((BEFORE == 1) & (new == 0))).all()
    assert ((ids == 3) == (BEFORE == 2)).all()
    assert ((sets == AXON) == (BEFORE == 2)).all()
    assert (sets[(BEFORE == 1) & (new == 0)] == MITO).all()
    assert derived.kept == {"mitochondria 2": 50, "axon 3": 240}
    assert derived.removed == {"mitochondria 2": 10}
    told = " ".join(derived.notes)
    assert "kept: mitochondria 2 (50 voxels), axon 3 (240 voxels); do=delete" in told
    assert "no longer hold voxels of accepted objects: mitochondria 2 (10 voxels)" in told


def test_an_accepted_object_that_a_submission_holds_is_as_submitted(tmp_path, labelled):
    new = np.where(BEFORE == 2, 1, 0).astype(np.uint8)
    new[5] = 0
    derived = send(labelled, tmp_path, new, "axon 3")
    ids = labelled.item("one").read_instances()
    assert ((ids == 3) == (new == 1)).all() and ((ids == 2) == (BEFORE == 1)).all()
    assert derived.removed == {"axon 3": 60}


@pytest.mark.parametrize(
    "said",
    [{"truth": "all"}, {"fully_annotated": True}, {"roi": ((0, 13), (0, 17), (0, 9))}],
)
def test_what_is_declared_annotated_is_as_submitted_and_that_is_told(tmp_path, labelled, said):
    new = np.where(BEFORE == 2, 1, 0).astype(np.uint8)
    derived = send(labelled, tmp_path, new, "axon 3", **said)
    assert not (labelled.item("one").read_instances() == 2).any()
    assert derived.kept == {} and derived.removed == {"mitochondria 2": 60}


def test_a_merge_keeps_what_it_does_not_paint_without_a_word(tmp_path, labelled):
    new = np.zeros(SHAPE, np.uint8)
    new[0, 0, 0] = 1
    derived = send(labelled, tmp_path, new, "uncertain", mode="merge")
    assert derived.kept == {} and derived.removed == {"mitochondria 2": 1}


def test_labels_derived_again_are_the_same(tmp_path, labelled):
    send(labelled, tmp_path, np.ones(SHAPE, np.uint8) * (BEFORE == 2), "axon 3")
    before = labelled.item("one").read_instances()
    (labelled.root / "labels" / "submitted" / "versions" / "one" / "derived.json").unlink()
    send(labelled, tmp_path, np.zeros(SHAPE, np.uint8), "axon 3")
    assert (labelled.item("one").read_instances() == before).all()


def test_a_label_smaller_than_its_image_is_said_of_its_own_box(tmp_path, labelled):
    small = np.ones((6, 5, 3), np.uint8)
    small[5] = 0
    derived = send(labelled, tmp_path, small, "axon 3")
    wanted = BEFORE == 2
    wanted[0:6, 0:5, 0:3] = small
    ids = labelled.item("one").read_instances()
    assert ((ids == 3) == wanted).all()
    assert derived.region == ((0, 6), (0, 5), (0, 3))
    assert derived.removed == {"mitochondria 2": 45, "axon 3": 15}
    assert any("says nothing of what lies around it" in note for note in derived.notes)


def test_of_many_objects_the_first_are_named():
    (told,) = told_of_accepted({f"axon {n}": n for n in range(1, 8)}, {})
    assert "axon 5 (5 voxels) and 2 more" in told and "axon 6" not in told
