"""Submissions that are refused, meet or fail: each is kept, and what was there stays."""

from __future__ import annotations

import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from submission_cases import (
    AXON,
    INFO,
    SHAPE,
    SIZE_NM,
    seg_nrrd,
    strokes,
    upload,
)
from volume_files import nifti

from lib.annotation import submissions
from lib.annotation.submissions import recover, submit
from lib.annotation.versions import SubmissionOptions, versions
from lib.volumes.errors import VolumeError


def files(study):
    root = study.root / "labels"
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def beside(path: Path) -> Path:
    """A label that lies where its image ends."""
    affine = np.diag([*SIZE_NM, 1.0])
    affine[0, 3] = SHAPE[0] * SIZE_NM[0]
    return Path(nifti(path, np.ones((4, 5, 3), np.uint8), affine))


REJECTED = [
    ("another shape", lambda t: Path(nifti(t / "u.nii", strokes(shape=(5, 5, 5)), np.eye(4))), INFO,
     "another grid"),
    ("resampled", lambda t: Path(nifti(t / "u.nii", strokes(), np.diag([8, 5, 40, 1]))), INFO,
     "not resampled"),
    ("a value too many", lambda t: upload(t, strokes(high=6)), INFO, "belongs to none of the 4"),
    ("no names", lambda t: upload(t, strokes()), None, "without names of its segments"),
    ("floats", lambda t: upload(t, np.full(SHAPE, 0.5, np.float32)), INFO, "not whole"),
    ("negative", lambda t: upload(t, np.full(SHAPE, -1, np.int16)), INFO, "label values of 0"),
    ("no file of its kind", lambda t: (t / "u.nrrd", (t / "u.nrrd").write_text("x"))[0], INFO,
     "not voxels"),
    ("a stray value", lambda t: seg_nrrd(t / "u.seg.nrrd", [strokes()], [("axon", 1, 0)]), None,
     "a value of one of its segments"),
    ("painted beside the image", lambda t: beside(t / "u.nii"), INFO,
     "a label of 4 x 5 x 3 voxels, painted beside its image only; expected paint inside the "
     "image's 13 x 17 x 9 voxels"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "info", "fault"), [r[1:] for r in REJECTED], ids=[r[0] for r in REJECTED]
)
def test_what_cannot_be_used_is_kept_and_changes_nothing(tmp_path, study, make, info, fault):
    submit(study, "one", upload(tmp_path, strokes()), INFO)
    before = study.item("one").read_class_sets()
    raw = make(tmp_path)
    with pytest.raises(ValueError, match=fault):
        submit(study, "one", raw, info)
    first, second = versions(study, "one")
    assert not first.rejected and fault.replace("\\", "") in second.rejected
    folder = study.root / "labels" / "submitted" / "versions" / "one"
    assert (folder / second.file).read_bytes() == raw.read_bytes()
    assert (study.item("one").read_class_sets() == before).all()
    assert recover(study) == [], "what was rejected is not tried again"
    submit(study, "one", upload(tmp_path, strokes(2)), INFO)
    assert [v.number for v in versions(study, "one")] == [1, 2, 3]


@pytest.mark.parametrize("roi", [((0, 0), (0, 5), (0, 5)), ((0, 14), (0, 5), (0, 5))])
def test_regions_outside_are_refused(tmp_path, study, roi):
    with pytest.raises(VolumeError, match="holds no voxel or reaches outside"):
        submit(study, "one", upload(tmp_path, strokes()), INFO, SubmissionOptions(roi=roi))


def test_unknown_items_and_kinds_are_refused_without_a_trace(tmp_path, study):
    with pytest.raises(ValueError, match="no item 'two'"):
        submit(study, "two", upload(tmp_path, strokes()), INFO)
    (tmp_path / "up.txt").write_text("x")
    with pytest.raises(VolumeError, match="unknown kind"):
        submit(study, "one", tmp_path / "up.txt", INFO)
    assert [f for f in files(study) if not f.endswith(".lock")] == []


def test_submissions_at_the_same_time_come_one_after_the_other(tmp_path, study):
    uploads = [upload(tmp_path, strokes(i), f"{i}.nii.gz") for i in range(6)]
    threads = [threading.Thread(target=submit, args=(study, "one", u, INFO)) for u in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = versions(study, "one")
    assert [v.number for v in found] == [1, 2, 3, 4, 5, 6]
    folder = study.root / "labels" / "submitted" / "versions" / "one"
    last = np.asarray(nib.load(folder / found[-1].file).dataobj)
    assert ((study.item("one").read_class_sets() == AXON) == np.isin(last, (1, 3))).all()


FAILURES = [
    MemoryError("32 TiB"),
    RecursionError("deep"),
    RuntimeError("worker"),
    KeyError("x"),
    OverflowError("inf"),
    OSError(5, "Input/output error"),
    UnicodeDecodeError("ascii", b"\xff", 0, 1, "not ASCII"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda e: type(e).__name__)
def test_whatever_a_version_raises_it_is_rejected_with_the_reason(
    tmp_path, study, monkeypatch, failure
):
    def fail(*args, **kwargs):
        raise failure

    with monkeypatch.context() as patch, pytest.raises(VolumeError) as told:
        patch.setattr(submissions, "stage_labels", fail)
        submit(study, "one", upload(tmp_path, strokes()), INFO)
    assert type(failure).__name__ in str(told.value)
    assert type(failure).__name__ in versions(study, "one")[0].rejected
    assert recover(study) == []
    assert submit(study, "one", upload(tmp_path, strokes(1)), INFO).known_share


def test_damaged_submission_records_are_named(tmp_path, study):
    submit(study, "one", upload(tmp_path, strokes(0)), INFO)
    path = study.root / "labels" / "submitted" / "versions" / "one" / "0001.json"
    path.write_text("{}")
    with pytest.raises(VolumeError, match=r"0001\.json: not a readable submission record"):
        versions(study, "one")
