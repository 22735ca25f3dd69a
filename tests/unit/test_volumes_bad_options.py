"""Import refuses labels, voxel sizes, crops and ids that do not fit."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from import_cases import SHAPE, refusals
from volume_files import UNSIZED, hdf5, nifti, volume


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


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
    assert "found 4 lengths, expected 1 for all axes or 3 (x y z)" in err


@pytest.mark.parametrize(
    "crop", ["3:3,:,:", "5:2,:,:", ":,:,9:9", ":,:,20:30", "-2:5,:,:", ":,0:18,:"]
)
@pytest.mark.parametrize("option", ["--crop", "--split"])
def test_empty_crops_and_those_outside(tmp_path, refused, crop, option):
    text = crop if option == "--crop" else f"train={crop}"
    err = refused(hdf5(tmp_path / "v.h5", volume(SHAPE)), f"{option}={text}")
    assert "holds no voxel" in err or "reaches outside the volume" in err
    assert "0:13,0:17,0:9" in err


def test_a_bad_id(tmp_path, refused):
    assert "it holds '/'" in refused(hdf5(tmp_path / "v.h5", volume()), "--id", "../x")
