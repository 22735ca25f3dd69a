"""What lies in place of a file is called by its name: never "damaged"."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from import_cases import refusals
from volume_files import SIZED, UNSIZED, volume

from lib.networks.weights import load_weights
from lib.volumes.contents import foreign_content
from lib.volumes.errors import VolumeError
from lib.volumes.listing import list_images
from lib.volumes.readers.opening import open_file, open_source

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c\nsize 12345\n"
ANNEX = b"/annex/objects/MD5E-s1769824--0d3f.nii.gz\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>\n Sign in </title>" + b" " * 3000
XHTML = b'<?xml version="1.0"?>\n<!-- a -->\n<html xmlns="http://www.w3.org/1999/xhtml"></html>'
DENIED = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'
STANDING = {
    "lfs": (LFS, "a Git LFS pointer, not the file itself; run `git lfs pull`"),
    "annex": (ANNEX, "a git-annex pointer, not the file itself; run `datalad get`"),
    "page": (PAGE, "a web page (Sign in), saved under this name; download the file itself"),
    "xhtml": (XHTML, "a web page, saved under this name"),
    "denied": (DENIED, "a server's error message (AccessDenied), saved under this name"),
}
ENDINGS = ("nii", "nii.gz", "nrrd", "nhdr", "tif", "png", "h5", "mrc", "dm3", "dm4", "region.json")


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


def told(path: Path) -> str:
    with pytest.raises(VolumeError) as error:
        open_source(str(path))
    return str(error.value)


@pytest.mark.parametrize("content", STANDING)
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_stands_in_place_of_a_file(tmp_path, content, ending):
    path = tmp_path / f"v.{ending}"
    path.write_bytes(STANDING[content][0])
    message = told(path)
    assert message.startswith(f"{path}: {STANDING[content][1]}") and "damaged" not in message


def test_import_says_it_in_one_line(tmp_path, refused):
    (tmp_path / "v.nii.gz").write_bytes(LFS)
    assert "run `git lfs pull` where it was cloned" in refused(tmp_path / "v.nii.gz")


@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "ome-zarr-0.4", "n5", "precomputed",
                                  "png-folder", "tiff-folder"])  # fmt: skip
def test_what_stands_in_place_of_a_chunk_or_a_section(tmp_path, refused, kind):
    root = Path({**SIZED, **UNSIZED}[kind](tmp_path, volume((40, 40, 20), np.uint16)))
    files = [p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")
             and p.suffix != ".json" and p.name != "info"]  # fmt: skip
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(LFS)
    words = ["--voxel-size-nm", 4] if kind in UNSIZED else []
    err = refused(root, *words)
    assert f"{largest}: a Git LFS pointer" in err and "damaged" not in err


def test_what_stands_in_place_of_the_metadata(tmp_path):
    root = Path(SIZED["precomputed"](tmp_path, volume()))
    (root / "info").write_bytes(PAGE)
    assert f"{root / 'info'}: a web page (Sign in)" in told(root)


def test_files_of_another_kind_than_their_ending_says(tmp_path):
    made = {kind: Path(SIZED[kind](tmp_path / kind, volume())) for kind in made_kinds(tmp_path)}
    tiff, hdf5 = made["imagej"].read_bytes(), made["hdf5"].read_bytes()
    packed, plain = made["nii.gz"].read_bytes(), gzip.decompress(made["nii.gz"].read_bytes())
    cases = {
        "a.nii": (tiff, "a TIFF image under another ending; let its name end in .tif"),
        "b.tif": (hdf5, "an HDF5 file under another ending; let its name end in .h5"),
        "c.nii": (packed, "a gzip file under another ending; let its name end in .nii.gz"),
        "d.nii.gz": (plain, "a NIfTI file that is not compressed under another ending"),
        "e.h5": (b"PK\x03\x04" + bytes(60), "a ZIP archive under another ending; convert it"),
        "f.dm3": (b"\xff\xd8\xff\xe0" + bytes(60), "a JPEG image under another ending"),
        "g.nrrd": (bytes(128) + b"DICM" + bytes(60), "a DICOM file under another ending"),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert f"{name}: {words}" in told(tmp_path / name)


def made_kinds(folder: Path) -> list[str]:
    """Kinds of files, each with a folder of its own."""
    kinds = ["imagej", "hdf5", "nii.gz"]
    for kind in kinds:
        (folder / kind).mkdir()
    return kinds


@pytest.mark.parametrize("kind", ["imagej", "nrrd-raw", "nii", "nii.gz", "hdf5"])
def test_what_begins_as_its_ending_says_is_damaged(tmp_path, kind):
    path = Path(SIZED[kind](tmp_path, volume((40, 40, 20), np.uint16)))
    path.write_bytes(path.read_bytes()[:380])
    assert foreign_content(path) is None
    assert "truncated" in told_reading(path)


def told_reading(path: Path) -> str:
    with pytest.raises(VolumeError) as error:
        np.asarray(open_source(str(path)))
    return str(error.value)


def test_binary_noise_and_metadata_are_no_text(tmp_path):
    noise = bytes(range(256)) * 8
    for name, data in (("a.nii", noise), (".zarray", b'{"shape": [3'), ("info", b"{")):
        (tmp_path / name).write_bytes(data)
        assert foreign_content(tmp_path / name) is None, name
    assert foreign_content(tmp_path / "nothing.nii") is None


def test_text_that_is_cut_inside_of_a_character_is_text(tmp_path):
    (tmp_path / "a.nii").write_bytes(("é" * 2000).encode()[1:])
    assert foreign_content(tmp_path / "a.nii") is None, "it begins inside of one"
    (tmp_path / "a.nii").write_bytes(b"a" + ("é" * 2000).encode())
    found = foreign_content(tmp_path / "a.nii")
    assert found is not None and found.found.startswith("text (")


def test_links_that_lead_to_nothing(tmp_path):
    (tmp_path / "a.nii").symlink_to(".git/annex/objects/Xv/1f/MD5E-s1--0/MD5E-s1--0.nii")
    (tmp_path / "b.nii").symlink_to("elsewhere.nii")
    reasons = {skipped.name: skipped.reason for skipped in list_images(tmp_path).skipped}
    assert reasons["a.nii"].startswith("a git-annex pointer, not the file itself; run `datalad")
    assert reasons["b.nii"] == "a link to a file that does not exist (elsewhere.nii)"
    with pytest.raises(VolumeError, match="git annex get"):
        open_file(tmp_path / "a.nii")


def test_weights(tmp_path):
    (tmp_path / "w.pt").write_bytes(LFS)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"w\.pt: a Git LFS pointer.*run `git lfs pull`"):
            load_weights(tmp_path / "w.pt")
        (tmp_path / "w.pt.sha256").write_text(f"{'0' * 64}  w.pt\n")
