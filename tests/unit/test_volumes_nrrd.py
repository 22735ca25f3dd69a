"""NRRD: skips in headers, and headers that are refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from import_cases import refusals
from volume_files import volume

from lib.volumes.readers.opening import open_source

DATA = volume((13, 17, 9))


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


def nrrd_bytes(lines: str, data: bytes) -> bytes:
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 13 17 9\nspacings: 4 5 40\n"
    return (head + lines + "\n\n").encode() + data


FORTRAN = DATA.tobytes(order="F")
SKIPS = {
    "raw lines": ("encoding: raw\nline skip: 2", b"one\ntwo\n" + FORTRAN),
    "raw bytes": ("encoding: raw\nbyte skip: 5", b"12345" + FORTRAN),
    "raw lines and bytes": ("encoding: raw\nlineskip: 1\nbyteskip: 3", b"one\nabc" + FORTRAN),
    "raw from the end": ("encoding: raw\nbyte skip: -1", b"any number" + FORTRAN),
    "gzip lines": ("encoding: gzip\nline skip: 1", b"one\n" + gzip.compress(FORTRAN)),
    "gzip bytes": ("encoding: gzip\nbyte skip: 16", gzip.compress(b"0" * 16 + FORTRAN)),
    "gzip many bytes": ("encoding: gzip\nbyte skip: 90000", gzip.compress(b"0" * 90000 + FORTRAN)),
    "gzip from the end": ("encoding: gzip\nbyte skip: -1", gzip.compress(b"0" * 16 + FORTRAN)),
}


@pytest.mark.parametrize("case", list(SKIPS))
@pytest.mark.parametrize("detached", [False, True])
def test_skips_of_nrrd(tmp_path, case, detached):
    lines, data = SKIPS[case]
    path = tmp_path / ("v.nhdr" if detached else "v.nrrd")
    if detached:
        (tmp_path / "v.raw").write_bytes(data)
        path.write_bytes(nrrd_bytes(lines + "\ndata file: v.raw", b""))
    else:
        path.write_bytes(nrrd_bytes(lines, data))
    assert (np.asarray(open_source(str(path))) == DATA).all()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("encoding: raw\nline skip: 100000000", "at most"),
        ("encoding: raw\nline skip: -1", "line skip: -1"),
        ("encoding: raw\nbyte skip: -7", "byte skip: -7"),
        ("encoding: raw\ndata file: LIST", "several data files"),
        ("encoding: raw\ndata file: %03d.raw 1 9 1", "several data files"),
        ("encoding: hex", "encoding hex"),
    ],
)
def test_nrrd_headers_that_are_refused(tmp_path, refused, lines, words):
    suffix = "nhdr" if "data file" in lines else "nrrd"
    (tmp_path / f"v.{suffix}").write_bytes(nrrd_bytes(lines, FORTRAN))
    assert words in refused(tmp_path / f"v.{suffix}")


def test_nrrd_of_two_bytes_needs_its_byte_order(tmp_path, refused):
    data = nrrd_bytes("encoding: raw", FORTRAN * 2).replace(b"uint8", b"uint16")
    (tmp_path / "v.nrrd").write_bytes(data)
    assert "without `endian`" in refused(tmp_path / "v.nrrd")
