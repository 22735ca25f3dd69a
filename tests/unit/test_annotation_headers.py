"""Uploads whose headers lie about their size: refused before anything is allocated."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from submission_cases import (
    INFO,
    seg_nrrd,
    strokes,
    upload,
)
from volume_files import nifti

from lib.annotation.submissions import recover, submit
from lib.volumes.errors import VolumeError


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
