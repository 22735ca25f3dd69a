"""Import refuses floats, colours, and grey values, ids and classes that it cannot store."""

from __future__ import annotations

import nibabel as nib
import nrrd
import numpy as np
import pytest
import tensorstore as ts
import tifffile
from import_cases import SHAPE, refusals
from PIL import Image
from volume_files import SIZE_NM, SIZED, hdf5, nifti, volume


@pytest.fixture
def refused(tmp_path, capsys):
    return refusals(tmp_path / "study", capsys)


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


def test_grey_values_that_do_not_fit(tmp_path, refused):
    for i, value in enumerate((-1, 70000)):
        data = volume(SHAPE).astype(np.int32)
        data[1, 2, 3] = value
        err = refused(hdf5(tmp_path / f"v{i}.h5", data))
        assert f"grey value {value} at voxel (x, y, z) (1, 2, 3)" in err
