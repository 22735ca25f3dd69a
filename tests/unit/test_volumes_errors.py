"""Messages about files: one line, whole across processes, full disks apart from broken files."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from lib.volumes.errors import DiskError, VolumeError, damaged_target, disk_error


def test_a_message_is_one_line_with_what_is_known() -> None:
    assert str(VolumeError("a.h5", "shape\n (3,  4)")) == "a.h5: shape (3, 4)"
    told = str(VolumeError("a.h5:raw", "3 axes", "4", "name the dataset"))
    assert told == "a.h5:raw: 3 axes; expected 4; name the dataset"


@pytest.mark.parametrize(
    "error",
    [VolumeError("a", "b", "c", "d"), DiskError("a", "b", "c", "d", full=True)],
)
def test_errors_cross_a_process_border_whole(error: VolumeError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and vars(again) == vars(error) and str(again) == str(error)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_says_so(code: int) -> None:
    found = disk_error("/data/study", OSError(code, os.strerror(code)))
    assert isinstance(found, DiskError) and found.full
    assert "the disk filled up" in str(found) and "nothing was left behind" in str(found)


def test_what_was_kept_is_told() -> None:
    error = OSError(errno.ENOSPC, "full")
    assert "the submission is kept and will be used later" in str(
        disk_error("/data", error, "the submission")
    )


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_without_rights_says_so(code: int) -> None:
    found = disk_error("/data/study", OSError(code, os.strerror(code)))
    assert isinstance(found, DiskError) and not found.full
    assert "mount it for writing or change its rights" in str(found)


def test_other_faults_keep_their_words() -> None:
    assert "cannot be written (Input/output error)" in str(
        disk_error("x", OSError(errno.EIO, "Input/output error"))
    )
    assert "cannot be written (odd)" in str(disk_error("x", OSError("odd")))
    assert "remove it or choose another target" in str(damaged_target("x", ValueError("no HDF5")))
