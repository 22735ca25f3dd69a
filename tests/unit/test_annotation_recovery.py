"""Submissions that a full disk or a kill cuts off: what was kept is derived later."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import sys

import numpy as np
import pytest
from submission_cases import (
    INFO,
    INSIDE,
    ROI,
    SHAPE,
    TEAR,
    H,
    strokes,
    upload,
)
from volume_files import SIZE_NM, volume

from lib.annotation import submissions
from lib.annotation.submissions import recover, submit
from lib.annotation.versions import SubmissionOptions, versions
from lib.volumes import writing
from lib.volumes.errors import DiskError, VolumeError
from lib.volumes.study import Study


def files(study):
    root = study.root / "labels"
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


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
