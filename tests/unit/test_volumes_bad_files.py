"""Import refuses files that are damaged, incomplete, missing or of an unknown kind."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from import_cases import SHAPE, refusals
from PIL import Image
from volume_files import SIZED, UNSIZED, hdf5, ome, volume


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


FILES = ["hdf5", "imagej", "ome-tiled", "ome-strips", "ome-plain-strips", "nii", "nii.gz",
         "nrrd-raw", "nrrd-gzip"]  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("left", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_truncated_files(tmp_path, refused, kind, left):
    path = Path(SIZED[kind](tmp_path, volume((40, 40, 20), np.uint16)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    err = refused(path, "--voxel-size-nm", 4)
    assert str(path) in err and ("truncated" in err or "damaged" in err)


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd-gzip"])
def test_damaged_streams(tmp_path, refused, kind):
    path = Path(SIZED[kind](tmp_path, volume((40, 40, 20), np.uint16)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\xff" * 2000
    path.write_bytes(bytes(data))
    assert "truncated or damaged" in refused(path)


@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "ome-zarr-0.4", "ome-zarr-0.5", "n5",
                                  "precomputed", "png-folder", "tiff-folder"])  # fmt: skip
def test_damaged_chunks_and_sections(tmp_path, refused, kind):
    root = Path({**SIZED, **UNSIZED}[kind](tmp_path, volume((40, 40, 20), np.uint16)))
    files = [p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")
             and p.suffix != ".json" and p.name != "info"]  # fmt: skip
    largest = max(files, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:40])
    words = ["--voxel-size-nm", 4] if kind in UNSIZED else []
    err = refused(root, *words)
    assert "truncated or damaged" in err and str(root) in err


@pytest.mark.parametrize("kind", ["zarr2", "n5", "precomputed", "zarr3"])
def test_damaged_metadata(tmp_path, refused, kind):
    root = Path(SIZED[kind](tmp_path, volume()))
    names = {
        "zarr2": ".zarray",
        "n5": "attributes.json",
        "precomputed": "info",
        "zarr3": "zarr.json",
    }
    path = max(root.rglob(names[kind]), key=lambda p: len(p.parts))
    path.write_text(path.read_text()[:20])
    assert "damaged" in refused(root)


@pytest.mark.parametrize("suffix", ["h5", "tif", "png", "nii", "nii.gz", "nrrd"])
def test_files_of_another_kind(tmp_path, refused, suffix):
    path = tmp_path / f"v.{suffix}"
    path.write_text("these are no voxels\n" * 50)
    err = refused(path, "--voxel-size-nm", 4)
    assert f"v.{suffix}: text ('these are no voxels" in err and "damaged" not in err


def test_unknown_kinds_and_missing_files(tmp_path, refused):
    (tmp_path / "v.czi").write_text("x")
    (tmp_path / "empty").mkdir()
    assert "a kind of file that is not known; expected HDF5" in refused(tmp_path / "v.czi")
    assert "no such file or folder" in refused(tmp_path / "v.h5")
    assert "a folder without sections" in refused(tmp_path / "empty")


def test_missing_datasets_are_answered_with_those_that_exist(tmp_path, refused):
    path = hdf5(tmp_path / "v.h5", volume())
    err = refused(f"{path}:volumes/rwa")
    assert "no dataset 'volumes/rwa'; expected one of: volumes/raw (9, 17, 13)" in err
    err = refused(path, "--semantic", f"{path}:labels")
    assert "no dataset 'labels'" in err
    root = SIZED["zarr2"](tmp_path, volume())
    assert "one of: volumes/raw (9, 17, 13)" in refused(f"{root}:other")
    assert "no scale '7'" in refused(SIZED["precomputed"](tmp_path, volume()) + ":7")


def test_sections_of_different_size(tmp_path, refused):
    folder = Path(UNSIZED["png-folder"](tmp_path, volume(SHAPE)))
    Image.fromarray(np.zeros((17, 12), np.uint8)).save(folder / "section_5.png")
    err = refused(folder, "--voxel-size-nm", 4)
    assert "section_5.png" in err and "12 x 17" in err and "13 x 17" in err


def test_stacks_with_fewer_sections_than_their_metadata_says(tmp_path, refused):
    path = Path(ome(tmp_path / "v.tif", volume((13, 17, 8)), compression="zlib"))
    path.write_bytes(path.read_bytes().replace(b'SizeZ="8"', b'SizeZ="9"'))
    assert "truncated" in refused(path)


def test_compressions_that_need_a_further_package_are_named(tmp_path, refused, monkeypatch):
    Image.fromarray(volume((17, 13, 1))[:, :, 0]).save(tmp_path / "v.tif", compression="tiff_lzw")
    from lib.volumes.readers import tiff_pages

    def missing(*_):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tiff_pages, "_decode", missing)
    err = refused(tmp_path / "v.tif", "--voxel-size-nm", 4)
    assert "pip install imagecodecs" in err and "damaged" not in err and "LZW" in err


def test_unreadable_hdf5_groups_do_not_count_as_volumes(tmp_path, refused):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["text"] = "hello"
        file["list"] = np.arange(5)
    err = refused(tmp_path / "v.h5", "--voxel-size-nm", 4)
    assert "0 datasets" in err or "one named as" in err
