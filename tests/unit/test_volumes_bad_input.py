"""Bad input stops with one clear line and leaves no half-written item."""

from __future__ import annotations

import argparse
import errno
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel as nib
import nrrd
import numpy as np
import pytest
import tensorstore as ts
import tifffile
from PIL import Image
from volume_files import SIZE_NM, SIZED, UNSIZED, hdf5, nifti, ome, volume

from lib.labels.hierarchy import load_hierarchy
from lib.volumes import import_plan
from lib.volumes.commands import add_import_parser
from lib.volumes.study import Study

H = load_hierarchy()
SHAPE = (13, 17, 9)
REPO = Path(__file__).parents[2]


@pytest.fixture
def refused(tmp_path, capsys):
    """Imports, expects a refusal, and gives its one line."""
    root = tmp_path / "study"

    def run(*words, keep=()):
        parser = argparse.ArgumentParser()
        add_import_parser(parser.add_subparsers(required=True))
        args = parser.parse_args(["import", *[str(w) for w in words], "--studies", str(root)])
        capsys.readouterr()
        assert args.run(args) == 1
        out, err = capsys.readouterr()
        assert err.startswith("error: ") and err.strip().count("\n") == 0, err
        assert out == ""
        left = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        assert left == sorted(keep), "no half-written item"
        return err

    return run


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
    assert f"v.{suffix}: truncated or damaged" in refused(path, "--voxel-size-nm", 4)


def test_unknown_kinds_and_missing_files(tmp_path, refused):
    (tmp_path / "v.mrc").write_text("x")
    (tmp_path / "empty").mkdir()
    assert "a kind of file that is not known; expected HDF5" in refused(tmp_path / "v.mrc")
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


@pytest.mark.parametrize("option", ["--semantic", "--instance"])
def test_labels_of_another_shape(tmp_path, refused, option):
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label = hdf5(tmp_path / "l.h5", volume((13, 16, 9)))
    err = refused(path, option, label)
    assert f"{label}:volumes/raw" in err and "13 x 16 x 9" in err and "13 x 17 x 9" in err


def test_labels_of_another_voxel_size(tmp_path, refused):
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label = nifti(tmp_path / "l.nii", volume(SHAPE), np.diag([4, 5, 30, 1]))
    assert "voxels of (4.0, 5.0, 30.0) nm; expected (4.0, 5.0, 40.0) nm" in refused(
        path, "--semantic", label
    )


def test_label_offsets_between_voxels(tmp_path, refused):
    path = hdf5(tmp_path / "v.h5", volume(SHAPE), offset=[0.0, 0.0, 0.0])
    hdf5(tmp_path / "v.h5", volume(SHAPE), "volumes/labels/neuron_ids", offset=[20.0, 0.0, 0.0])
    assert "whole voxels" in refused(path)
    with h5py.File(path, "a") as file:
        del file["volumes/raw"].attrs["resolution"]
    assert "offsets of image and label differ, and no voxel size" in refused(
        path, "--voxel-size-nm", 4
    )


@pytest.mark.parametrize("kind", list(UNSIZED))
def test_no_voxel_size_anywhere(tmp_path, refused, kind):
    err = refused(UNSIZED[kind](tmp_path, volume()))
    assert "no voxel size in the file" in err and "--voxel-size-nm X Y Z" in err


@pytest.mark.parametrize("size", [["0"], ["nan", "1", "1"], ["-1"], ["inf"], ["1e9"]])
def test_voxel_sizes_that_are_none(tmp_path, refused, size):
    err = refused(hdf5(tmp_path / "v.h5", volume()), *["--voxel-size-nm", *size])
    assert "three lengths (x, y, z) between 0.01 and 1000000 nm" in err


def test_four_voxel_sizes(tmp_path, refused):
    err = refused(hdf5(tmp_path / "v.h5", volume()), "--voxel-size-nm", 1, 2, 3, 4)
    assert "expected 1, 2 or 3 lengths, found 4" in err


def _float_h5(folder):
    return hdf5(folder / "v.h5", volume().astype(np.float32))


def _nan_nii(folder):
    return nifti(folder / "v.nii", np.full(SHAPE, np.nan, np.float32))


def _float_tiff(folder):
    tifffile.imwrite(folder / "v.tif", volume().T.astype(np.float32))
    return folder / "v.tif"


def _float_zarr(folder):
    return SIZED["zarr2"](folder, volume().astype(np.float64))


def _scaled_nii(folder):
    image = nib.Nifti1Image(volume(), np.diag([*SIZE_NM, 1]))
    image.header.set_slope_inter(2.0, 0.0)
    nib.save(image, folder / "v.nii")
    return folder / "v.nii"


@pytest.mark.parametrize(
    "make", [_float_h5, _nan_nii, _float_tiff, _float_zarr, _scaled_nii], ids=lambda f: f.__name__
)
def test_float_images(tmp_path, refused, make):
    err = refused(make(tmp_path), "--voxel-size-nm", 4)
    assert "an image of type float" in err and "convert it to uint8 or uint16" in err


def _rgb_png(folder):
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(folder / "v.png")
    return folder / "v.png"


def _palette_png(folder):
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).quantize(4).save(folder / "v.png")
    return folder / "v.png"


def _rgb_folder(folder):
    (folder / "s").mkdir()
    for z in range(2):
        Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(folder / "s" / f"{z}.png")
    return folder / "s"


def _rgb_tiff(folder):
    tifffile.imwrite(folder / "v.tif", np.zeros((4, 5, 6, 3), np.uint8), photometric="rgb")
    return folder / "v.tif"


def _palette_tiff(folder):
    tifffile.imwrite(
        folder / "v.tif", np.zeros((5, 6), np.uint8), photometric="palette",
        colormap=np.zeros((3, 256), np.uint16),
    )  # fmt: skip
    return folder / "v.tif"


def _channels_tiff(folder):
    tifffile.imwrite(
        folder / "v.tif", np.zeros((3, 2, 5, 6), np.uint8), imagej=True, metadata={"axes": "ZCYX"}
    )
    return folder / "v.tif"


def _times_tiff(folder):
    tifffile.imwrite(
        folder / "v.tif", np.zeros((3, 2, 5, 6), np.uint8), imagej=True, metadata={"axes": "TZYX"}
    )
    return folder / "v.tif"


def _rgb_nrrd(folder):
    header = {"kinds": ["RGB-color", "domain", "domain", "domain"]}
    nrrd.write(str(folder / "v.nrrd"), np.zeros((3, 5, 6, 4), np.uint8), header)
    return folder / "v.nrrd"


def _rgb_nii(folder):
    dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 4), dtype), np.eye(4)), folder / "v.nii")
    return folder / "v.nii"


def _four_axes_nii(folder):
    return nifti(folder / "v.nii", np.zeros((5, 6, 4, 2), np.uint8))


def _four_axes_h5(folder):
    return hdf5(folder / "v.h5", np.zeros((5, 6, 4, 3), np.uint8))


def _channels_zarr(folder):
    path = SIZED["ome-zarr-0.4"](folder, volume())
    store = ts.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{path}/s0/"},
         "metadata": {"shape": [3, 9, 17, 13], "dtype": "|u1"}},
        create=True, delete_existing=True,
    ).result()  # fmt: skip
    assert store.shape[0] == 3
    return path


def _channels_precomputed(folder):
    ts.open(
        {"driver": "neuroglancer_precomputed",
         "kvstore": {"driver": "file", "path": f"{folder}/pc/"},
         "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 3},
         "scale_metadata": {"size": [5, 6, 7], "encoding": "raw", "resolution": [1, 1, 1]}},
        create=True,
    ).result()  # fmt: skip
    return folder / "pc"


COLOURS = [_rgb_png, _palette_png, _rgb_folder, _rgb_tiff, _palette_tiff, _channels_tiff,
           _times_tiff, _rgb_nrrd, _rgb_nii, _four_axes_nii, _four_axes_h5, _channels_zarr,
           _channels_precomputed]  # fmt: skip


@pytest.mark.parametrize("make", COLOURS, ids=lambda f: f.__name__)
def test_colour_images_and_further_axes(tmp_path, refused, make):
    err = refused(make(tmp_path), "--voxel-size-nm", 4)
    assert any(
        w in err
        for w in ("grey", "axes (", "three axes", "one channel", "a stack", "one grey value")
    ), err


@pytest.mark.parametrize("value", [2**32, 2**32 + 5, 2**63, 2**64 - 2])
def test_ids_over_32_bits(tmp_path, refused, value):
    ids = volume(SHAPE, np.uint64)
    ids[4, 5, 6] = value
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label = hdf5(tmp_path / "l.h5", ids)
    err = refused(path, "--instance", label, "--crop", "1:,:,2:")
    assert f"instance id {value} at voxel (x, y, z) (4, 5, 6)" in err and label in err
    assert "2^32 - 2" in err and "relabel" in err


def test_ids_below_minus_one(tmp_path, refused):
    ids = volume(SHAPE).astype(np.int32)
    ids[1, 2, 3] = -7
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    err = refused(path, "--instance", hdf5(tmp_path / "l.h5", ids))
    assert "instance id -7 at voxel (x, y, z) (1, 2, 3)" in err


@pytest.mark.parametrize(
    ("encoding", "value", "allowed"),
    [("plan", 12, "-1..11, 255"), ("plan", 254, "-1..11, 255"),
     ("canonical", 13, "0..12, 101..105"), ("canonical", 201, "0..12, 101..105")],
)  # fmt: skip
def test_class_values_outside_the_encoding(tmp_path, refused, encoding, value, allowed):
    label = np.full(SHAPE, 2, np.uint8)
    label[12, 0, 8] = value
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    err = refused(
        path, "--semantic", hdf5(tmp_path / "l.h5", label), "--encoding", encoding,
        "--crop", "3:,:,1:",
    )  # fmt: skip
    assert f"class value {value} at voxel (x, y, z) (12, 0, 8)" in err and allowed in err
    assert "--encoding" in err and "--mapping" in err


def test_class_values_outside_a_mapping(tmp_path, refused):
    (tmp_path / "m.yaml").write_text("values: {0: axon}")
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label = hdf5(tmp_path / "l.h5", np.full(SHAPE, 3, np.uint8))
    err = refused(path, "--semantic", label, "--mapping", tmp_path / "m.yaml")
    assert "class value 3 at voxel (x, y, z) (0, 0, 0)" in err
    assert "mapping file" in refused(path, "--semantic", label, "--mapping", tmp_path / "none")


@pytest.mark.parametrize("option", ["--semantic", "--instance"])
@pytest.mark.parametrize(
    ("value", "found"),
    [(np.nan, "label NaN"), (1.5, "label 1.5"), (np.inf, "label inf"), (1e20, "label 1e+20")],
)
def test_labels_that_are_no_whole_numbers(tmp_path, refused, option, value, found):
    label = np.ones(SHAPE, np.float64)
    label[7, 8, 3] = value
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    err = refused(path, option, hdf5(tmp_path / "l.h5", label))
    assert f"{found} at voxel (x, y, z) (7, 8, 3)" in err and "expected whole numbers" in err


@pytest.mark.parametrize(
    "crop", ["3:3,:,:", "5:2,:,:", ":,:,9:9", ":,:,20:30", "-2:5,:,:", ":,0:18,:"]
)
@pytest.mark.parametrize("option", ["--crop", "--split"])
def test_empty_crops_and_those_outside(tmp_path, refused, crop, option):
    text = crop if option == "--crop" else f"train={crop}"
    err = refused(hdf5(tmp_path / "v.h5", volume(SHAPE)), f"{option}={text}")
    assert "holds no voxel" in err or "reaches outside the volume" in err
    assert "0:13,0:17,0:9" in err


def test_grey_values_that_do_not_fit(tmp_path, refused):
    for i, value in enumerate((-1, 70000)):
        data = volume(SHAPE).astype(np.int32)
        data[1, 2, 3] = value
        err = refused(hdf5(tmp_path / f"v{i}.h5", data))
        assert f"grey value {value} at voxel (x, y, z) (1, 2, 3)" in err


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


def test_a_bad_id(tmp_path, refused):
    assert "letters, digits" in refused(hdf5(tmp_path / "v.h5", volume()), "--id", "../x")


def test_too_little_space_is_told_before_anything_is_written(tmp_path, refused, monkeypatch):
    path = hdf5(tmp_path / "v.h5", volume())
    monkeypatch.setattr(import_plan.shutil, "disk_usage", lambda p: argparse.Namespace(free=100))
    assert "MiB free; expected" in refused(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_disk_that_fills_up(tmp_path, refused, monkeypatch, code, after):
    from lib.volumes import atomic

    ids = volume(SHAPE, np.uint32)
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids")
    real = atomic.StagedFiles.create
    writes = []

    def create(self, target):
        file = real(self, target)
        write = file.write

        class Full:
            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                writes.append(1)
                if len(writes) > after:
                    raise OSError(code, "No space left on device")
                return write(data)

        return Full()

    monkeypatch.setattr(atomic.StagedFiles, "create", create)
    err = refused(path)
    assert "the disk filled up while writing" in err and "nothing was left behind" in err


def test_a_disk_that_is_full_when_flushed(tmp_path, refused, monkeypatch):
    from lib.volumes import atomic

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    assert "the disk filled up" in refused(hdf5(tmp_path / "v.h5", volume()))


def test_a_file_size_limit_in_a_process_of_its_own(tmp_path):
    """The real thing: the operating system refuses to let the image grow."""
    path = hdf5(tmp_path / "v.h5", volume((200, 200, 30)))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    code = (
        "import signal, sys, argparse; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from lib.volumes.commands import add_import_parser as a;"
        "p = argparse.ArgumentParser(); a(p.add_subparsers());"
        "x = p.parse_args(sys.argv[1:]); sys.exit(x.run(x))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "import", path, "--studies", str(tmp_path / "study")],
        cwd=REPO, preexec_fn=limit, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "the disk filled up" in done.stderr, done.stderr
    assert not [p for p in (tmp_path / "study").rglob("*") if p.is_file()]


def test_a_fault_in_the_second_item_keeps_the_first_whole(tmp_path, refused):
    label = np.full(SHAPE, 2, np.uint8)
    label[0, 0, 7] = 99
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    err = refused(
        path, "--semantic", hdf5(tmp_path / "l.h5", label),
        "--split", "train=:,:,:5", "--split", "val=:,:,6:",
        keep=["labels/final/v-train.nii.gz", "v-train.neuropil.json", "v-train.nii"],
    )  # fmt: skip
    assert "class value 99 at voxel (x, y, z) (0, 0, 7)" in err
    item = Study(tmp_path / "study", H).item("v-train")
    assert (item.open_image() == volume(SHAPE)[:, :, :5]).all()


def test_a_killed_import_leaves_no_item_and_its_leftovers_go(tmp_path):
    """SIGKILL in the middle: nothing shows, and the next import clears up."""
    path = hdf5(tmp_path / "v.h5", volume(SHAPE))
    code = (
        "import os, signal, sys\n"
        "from lib.volumes import writing\n"
        "from lib.labels.hierarchy import load_hierarchy\n"
        "from lib.volumes.study import Study\n"
        "from lib.volumes.readers.opening import open_source\n"
        "die = lambda n: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Study(sys.argv[2], load_hierarchy()).add_item("
        "'v', open_source(sys.argv[1]), (1, 1, 1), progress=die)\n"
    )
    root = tmp_path / "study"
    done = subprocess.run([sys.executable, "-c", code, path, str(root)], cwd=REPO)
    assert done.returncode == -9
    study = Study(root, H)
    assert study.items() == [] and list(root.glob(".v.nii.*.part"))
    study.add_item("w", volume(SHAPE), SIZE_NM)
    assert not list(root.glob(".*.part"))


def test_unreadable_hdf5_groups_do_not_count_as_volumes(tmp_path, refused):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["text"] = "hello"
        file["list"] = np.arange(5)
    err = refused(tmp_path / "v.h5", "--voxel-size-nm", 4)
    assert "0 datasets" in err or "one named as" in err
