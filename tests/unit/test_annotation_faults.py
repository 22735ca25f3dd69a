"""Submissions that are refused, meet, or are cut off by a full disk or a kill: nothing is lost."""

from __future__ import annotations

import errno
import gzip
import itertools
import os
import shutil
import signal
import sys
import threading
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from submission_cases import (
    AXON,
    INFO,
    INSIDE,
    ROI,
    SHAPE,
    TEAR,
    H,
    seg_nrrd,
    strokes,
    study_of_one,
    upload,
)
from volume_files import SIZE_NM, nifti, volume

from lib.annotation import submissions
from lib.annotation.submissions import recover, submit
from lib.annotation.versions import SubmissionOptions, versions
from lib.volumes import writing
from lib.volumes.errors import DiskError, VolumeError
from lib.volumes.study import Study


@pytest.fixture
def study(tmp_path):
    return study_of_one(tmp_path / "study")


def files(study):
    root = study.root / "labels"
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


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
     "truncated or damaged"),
    ("a stray value", lambda t: seg_nrrd(t / "u.seg.nrrd", [strokes()], [("axon", 1, 0)]), None,
     "a value of one of its segments"),
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


def test_recover_derives_what_was_cut_off(tmp_path, study, monkeypatch):
    submit(study, "one", upload(tmp_path, strokes(0)), INFO)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(submissions, "stage_labels", die)
        submit(study, "one", upload(tmp_path, strokes(1)), INFO)
    assert ((study.item("one").read_final() == 255) == (strokes(0) == 4)).all()
    assert recover(study) == ["one"]
    assert ((study.item("one").read_final() == 255) == (strokes(1) == 4)).all()
    assert recover(study) == []


def test_the_next_submission_first_finishes_the_one_that_was_cut_off(tmp_path, study, monkeypatch):
    """Version 2 paints the outside, version 3 a region: both must be there."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            submissions, "stage_labels", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        submit(study, "one", upload(tmp_path, strokes(1)), INFO)
    submit(study, "one", upload(tmp_path, strokes(2)), INFO, SubmissionOptions(roi=ROI))
    final = study.item("one").read_final() == 255
    assert (final == (np.where(INSIDE, strokes(2), strokes(1)) == 4)).all()


def test_a_disk_that_fills_up_keeps_the_old_labels(tmp_path, study, monkeypatch):
    submit(study, "one", upload(tmp_path, strokes(0)), INFO)
    before = study.item("one").read_final()
    from lib.volumes import atomic

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(VolumeError, match="the disk filled up"):
            submit(study, "one", upload(tmp_path, strokes(1)), INFO)
    assert (study.item("one").read_final() == before).all()
    assert not [f for f in files(study) if f.endswith(".part")]


def poison_nifti(path, **fields):
    """A header of a label, and hardly a voxel."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((3, 3, 3))
    header["magic"], header["vox_offset"] = b"n+1", 352
    for key, value in fields.items():
        header[key] = value
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4 + 27)))
    return path


def poison_nrrd(path, fields, data=b"\0" * 8):
    text = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 13 17 9\nencoding: raw\n"
    path.write_bytes((text + fields + "\n\n").encode() + data)
    return path


HUGE = [3, 32767, 32767, 32767, 1, 1, 1, 1]
POISON = [
    ("huge", lambda t: poison_nifti(t / "u.nii.gz", dim=HUGE), "32767 x 32767|truncated"),
    ("infinite offset", lambda t: poison_nifti(t / "u.nii.gz", vox_offset=np.inf), "damaged"),
    ("NaN offset", lambda t: poison_nifti(t / "u.nii.gz", vox_offset=np.nan), "damaged"),
    ("much larger", lambda t: Path(nifti(t / "u.nii.gz", np.zeros((1200, 1000, 40), np.uint8))),
     "at most 4 times the image's voxels"),
    ("line skip", lambda t: poison_nrrd(t / "u.nrrd", "line skip: 100000000"), "line skip"),
    ("byte skip", lambda t: poison_nrrd(t / "u.nrrd", "byte skip: 100000000"), "byte skip"),
    ("elsewhere", lambda t: poison_nrrd(t / "u.nrrd", "data file: /etc/passwd"),
     "names another data file"),
    ("many layers", lambda t: seg_nrrd(t / "u.seg.nrrd", [np.zeros((100, 100, 40), np.uint8)] * 200,
     [("axon", 1, 0)]), "200 layers"),
    ("no number", lambda t: seg_nrrd(t / "u.seg.nrrd", [strokes()], [("axon", 1, 0)],
     Segment0_LabelValue="x"), "segment 'axon'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "fault"), [p[1:] for p in POISON], ids=[p[0] for p in POISON])
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path, study, make, fault):
    raw = make(tmp_path)
    tracemalloc.start()
    with pytest.raises(VolumeError, match=fault):
        submit(study, "one", raw, INFO)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert recover(study) == []
    submit(study, "one", upload(tmp_path, strokes()), INFO)


def test_a_stream_that_unpacks_to_more_than_it_says_is_read_no_further(tmp_path, study):
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 13 17 9\nencoding: gzip\n\n"
    bomb = tmp_path / "u.nrrd"
    bomb.write_bytes(header.encode() + gzip.compress(bytes(64 << 20)))
    tracemalloc.start()
    submit(study, "one", bomb, INFO)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_was_kept_on_a_full_disk_is_told_and_derived_later(
    tmp_path, study, monkeypatch, number
):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, pytest.raises(DiskError, match="submission 1 is kept"):
        patch.setattr(submissions, "stage_labels", fail)
        submit(study, "one", upload(tmp_path, strokes(3)), INFO)
    assert not versions(study, "one")[0].rejected
    assert recover(study) == ["one"]
    assert ((study.item("one").read_final() == 255) == (strokes(3) == 4)).all()


def spoil_record(folder):
    (folder / "0001.json").write_text("{")


def spoil_mark(folder):
    (folder / "derived.json").write_text("[" * 100_000)


def spoil_with_folders(folder):
    for name in ("0002.json", "derived.json", ".lock"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()


def spoil_raw(folder):
    (folder / "0001.nii.gz").unlink()
    (folder / "derived.json").unlink()


@pytest.mark.parametrize(
    "spoil", [spoil_record, spoil_mark, spoil_with_folders, spoil_raw, shutil.rmtree]
)
def test_recover_survives_every_state_of_the_folder(tmp_path, study, spoil):
    study.add_item("two", volume(SHAPE), SIZE_NM)
    for name in ("one", "two"):
        submit(study, name, upload(tmp_path, strokes(0)), INFO)
    spoil(study.root / "labels" / "submitted" / "versions" / "one")
    (study.root / "labels" / "submitted" / "versions" / "two" / "derived.json").unlink()
    (study.root / "labels" / "submitted" / "versions" / "stray").write_text("x")
    assert "two" in recover(study)
    if spoil is not spoil_with_folders:
        submit(study, "one", upload(tmp_path, strokes(1)), INFO)
        assert ((study.item("one").read_final() == 255) == (strokes(1) == 4)).all()


def test_damaged_submission_records_are_named(tmp_path, study):
    submit(study, "one", upload(tmp_path, strokes(0)), INFO)
    path = study.root / "labels" / "submitted" / "versions" / "one" / "0001.json"
    path.write_text("{}")
    with pytest.raises(VolumeError, match=r"0001\.json: not a readable submission record"):
        versions(study, "one")


def submit_until_killed(study, raw, moment):
    """Submit in a process of its own that kills itself at its n-th step on the disk.

    Returns:
        Whether the submission was finished before that.
    """
    child = os.fork()
    if child == 0:
        steps = 0

        def step(*_):
            nonlocal steps
            steps += 1
            if steps == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def watched(event, _):
            if event in ("open", "os.rename", "os.link", "os.remove"):
                step()

        fsync, write = os.fsync, writing.GzipStream.write
        os.fsync = lambda handle: (fsync(handle), step())[0]
        writing.GzipStream.write = lambda self, data: (write(self, data), step())[0]
        sys.addaudithook(watched)
        try:
            submit(study, "one", raw, [{"name": "axon 17"}, {"name": "tear"}])
        finally:
            os._exit(0 if steps < moment else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status == 0


def test_kill_at_any_moment_loses_nothing(tmp_path):
    """A submission is killed at its first step on the disk, its second, ... until it is done."""
    patterns = [strokes(i, 3) for i in range(2)]
    first, second = (upload(tmp_path, data, f"{i}.nii.gz") for i, data in enumerate(patterns))
    base = Study(tmp_path / "base", H)
    base.add_item("one", volume(SHAPE), SIZE_NM)
    submit(base, "one", first, [{"name": "axon 17"}, {"name": "tear"}])
    kept = cut_off = 0
    for moment in itertools.count(1):
        shutil.copytree(base.root, tmp_path / str(moment))
        study = Study(tmp_path / str(moment), H)
        done = submit_until_killed(study, second, moment)
        found = versions(study, "one")
        assert len(found) == 2 or not done, "what was answered is kept"
        item = study.item("one")
        for read in (item.read_final, item.read_instances, item.read_class_sets):
            assert read().shape == SHAPE, "whole, old or new"
        kept, cut_off = kept + len(found) - 1, cut_off + bool(recover(study))
        for version, raw in zip(found, (first, second), strict=False):
            folder = study.root / "labels" / "submitted" / "versions" / "one"
            assert (folder / version.file).read_bytes() == raw.read_bytes()
        last, item = patterns[len(found) - 1], study.item("one")
        assert (item.read_instances() == np.choose(last, [-1, 17, 0])).all()
        assert ((item.read_class_sets() == TEAR) == (last == 2)).all()
        assert not list(study.root.rglob("*.part"))
        assert (
            item.label_path("submitted").read_bytes()
            == [first, second][len(found) - 1].read_bytes()
        )
        shutil.rmtree(study.root)
        if done:
            break
    assert moment > 20 and 5 < kept < moment, "killed before and after it was kept"
    assert cut_off > 3, "killed between keeping and deriving"
