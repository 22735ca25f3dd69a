"""What single formats bring along; what all share is in source_contract.py."""

from __future__ import annotations

import json
import os
import pickle

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from volume_files import (
    SIZE_NM,
    SIZED,
    chunked,
    hdf5,
    nifti,
    ome,
    precomputed,
    volume,
)

from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd-gzip"])
def test_compressed_streams_can_be_read_backwards_and_by_other_processes(tmp_path, kind):
    data = volume()
    source = open_source(SIZED[kind](tmp_path, data))
    for z in (5, 2, 8, 0):
        assert (source[:, :, z] == data[:, :, z]).all()
    child = os.fork()
    if child == 0:
        os._exit(0 if (source[:, :, 1] == data[:, :, 1]).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (source[:, :, 3] == data[:, :, 3]).all(), "the child must not move this position"
    assert (pickle.loads(pickle.dumps(source))[:, :, 4] == data[:, :, 4]).all()


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd-gzip"])
def test_boxes_beside_each_other_decode_a_compressed_stream_once(tmp_path, kind, monkeypatch):
    data = volume()
    source = open_source(SIZED[kind](tmp_path, data))
    opened = []
    handles = type(source)._handles
    monkeypatch.setattr(
        type(source), "_handles",
        lambda self: opened.append(self._open is None) or handles(self),
    )  # fmt: skip
    half, third = data.shape[0] // 2, data.shape[1] // 3
    for z in range(3):
        for rows in (slice(0, third), slice(third, 2 * third)):
            for columns in (slice(half, None), slice(0, half)):
                assert (source[columns, rows, z] == data[columns, rows, z]).all()
    assert sum(opened) == 1


def test_a_big_endian_nifti(tmp_path):
    data = volume(dtype=np.uint16)
    source = open_source(nifti(tmp_path / "v.nii", data.astype(">u2")))
    assert (np.asarray(source) == data).all()


def test_a_scaled_nifti_is_float(tmp_path):
    import nibabel as nib

    data = volume()
    image = nib.Nifti1Image(data, np.diag([*SIZE_NM, 1]))
    image.header.set_slope_inter(2.0, 1.0)
    nib.save(image, tmp_path / "v.nii")
    source = open_source(str(tmp_path / "v.nii"))
    scaled = nib.load(tmp_path / "v.nii").get_fdata()
    assert source.dtype == np.float64
    assert np.allclose(source[2:5, :, 3:4], scaled[2:5, :, 3:4])


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1), ("um", 1e3), ("mm", 1e6)])
def test_spacing_unit_of_viewer_files(tmp_path, unit, factor):
    affine = np.diag([0.5, 0.25, 2, 1])
    source = open_source(nifti(tmp_path / "v.nii", volume(), affine), spacing_unit=unit)
    assert source.info.voxel_size_nm == pytest.approx((0.5 * factor, 0.25 * factor, 2 * factor))


def test_a_spacing_of_one_is_no_spacing(tmp_path):
    source = open_source(nifti(tmp_path / "v.nii", volume(), np.eye(4)))
    assert source.info.voxel_size_nm is None


@pytest.mark.parametrize("suffix", ["png", "tif", "h5", "nii.gz"])
def test_single_sections_have_depth_one(tmp_path, suffix):
    page = volume((6, 5, 1))
    path = tmp_path / f"v.{suffix}"
    if suffix == "png":
        Image.fromarray(page[:, :, 0].T.copy()).save(path)
    elif suffix == "tif":
        tifffile.imwrite(path, page[:, :, 0].T)
    elif suffix == "h5":
        with h5py.File(path, "w") as file:
            file["raw"] = page[:, :, 0].T
    else:
        nifti(path, page[:, :, 0])
    source = open_source(str(path))
    assert source.shape == (6, 5, 1)
    assert (source[...] == page).all()
    assert (source.read(((1, 4), (2, 3), (0, 1))) == page[1:4, 2:3]).all()


def test_single_imagej_section_takes_its_depth_from_the_plane(tmp_path):
    tifffile.imwrite(
        tmp_path / "v.tif", volume((6, 5, 1))[:, :, 0].T, imagej=True, resolution=(250, 200),
        metadata={"unit": "micron"},
    )  # fmt: skip
    assert open_source(str(tmp_path / "v.tif")).info.voxel_size_nm == pytest.approx((4, 5, 4))


def test_sections_are_ordered_by_number(tmp_path):
    for z in range(12):
        tifffile.imwrite(tmp_path / f"z{z}.tif", np.full((3, 4), z, np.uint8))
    (tmp_path / "notes.txt").write_text("not a section")
    assert open_source(str(tmp_path))[0, 0].tolist() == list(range(12))


def test_ome_zarr_levels_have_their_own_size(tmp_path):
    data = volume()
    for kind in ("ome-zarr-0.4", "ome-zarr-0.5"):
        (tmp_path / kind).mkdir()
        root = SIZED[kind](tmp_path / kind, data)
        for text in (f"{root}:s1", f"{root}/s1"):
            level = open_source(text)
            assert level.info.voxel_size_nm == pytest.approx((8, 10, 80))
            assert (level[...] == data[::2, ::2, ::2]).all()


def test_precomputed_keeps_its_own_coordinates(tmp_path):
    data = volume()
    source = open_source(precomputed(tmp_path / "pc", data, offset=(100, 200, 300)))
    assert source.info.origin == (100, 200, 300)
    assert (source[2:4, 5:7, 1:2] == data[2:4, 5:7, 1:2]).all()


def test_n5_downsampling_and_plain_resolution(tmp_path):
    root = SIZED["n5"](tmp_path, volume())
    path = tmp_path / "v.n5" / "volumes" / "raw" / "attributes.json"
    attributes = json.loads(path.read_text())
    attributes["downsamplingFactors"] = [2, 2, 1]
    path.write_text(json.dumps(attributes))
    assert open_source(root).info.voxel_size_nm == pytest.approx((8, 10, 40))


def test_datasets_are_found_by_role_or_named(tmp_path):
    raw, ids = volume(), volume(dtype=np.uint32, seed=1)
    path = hdf5(tmp_path / "v.h5", raw)
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids")
    hdf5(tmp_path / "v.h5", raw + 1, "other/volume")
    assert (open_source(path)[...] == raw).all()
    assert (open_source(path, "instance")[...] == ids).all()
    assert (open_source(f"{path}:/other/volume")[...] == raw + 1).all()
    with pytest.raises(VolumeError) as caught:
        open_source(f"{path}:volumes/rwa")
    for name in ("volumes/raw (9, 17, 13)", "volumes/labels/neuron_ids", "other/volume"):
        assert name in str(caught.value), "the message lists what exists"
    with pytest.raises(VolumeError, match="3 datasets and none is volumes/labels/semantic"):
        open_source(path, "semantic")


def test_zarr_datasets_are_listed(tmp_path):
    chunked("zarr", tmp_path / "v.zarr" / "a" / "b", volume(), {"chunks": [4, 4, 4]})
    chunked("zarr", tmp_path / "v.zarr" / "c", volume(), {"chunks": [4, 4, 4]})
    with pytest.raises(VolumeError, match=r"one of: a/b \(13, 17, 9\), c \(13, 17, 9\)"):
        open_source(f"{tmp_path}/v.zarr:x")
    with pytest.raises(VolumeError, match=r"2 datasets.*named as v\.zarr:DATASET"):
        open_source(f"{tmp_path}/v.zarr")
    assert open_source(f"{tmp_path}/v.zarr:a/b").shape == (9, 17, 13)


def test_ilastik_sizes_and_cremi_offsets(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["data"] = volume().T
        file["data"].attrs["element_size_um"] = [0.04, 0.005, 0.004]
        file["data"].attrs["offset"] = [80.0, 10.0, 4.0]
    info = open_source(str(tmp_path / "v.h5")).info
    assert info.voxel_size_nm == pytest.approx(SIZE_NM) and info.offset_nm == (4.0, 10.0, 80.0)


def test_grey_with_an_opaque_alpha_channel_is_grey(tmp_path):
    page = volume((6, 5, 1))[:, :, 0].T.copy()
    image = Image.fromarray(page).convert("LA")
    image.save(tmp_path / "v.png")
    assert (open_source(str(tmp_path / "v.png"))[:, :, 0] == page.T).all()
    image.putalpha(128)
    image.save(tmp_path / "v.png")
    with pytest.raises(VolumeError, match="transparent"):
        open_source(str(tmp_path / "v.png"))[...]


def test_ome_tiff_with_a_missing_depth_has_no_size(tmp_path):
    tifffile.imwrite(
        tmp_path / "v.tif", volume().T, ome=True,
        metadata={"axes": "ZYX", "PhysicalSizeX": 4, "PhysicalSizeXUnit": "nm",
                  "PhysicalSizeY": 4, "PhysicalSizeYUnit": "nm"},
    )  # fmt: skip
    assert open_source(str(tmp_path / "v.tif")).info.voxel_size_nm is None


def test_a_large_tiled_page_is_not_decoded_whole(tmp_path, monkeypatch):
    """Only the tiles that a box touches are read."""
    data = volume((64, 64, 1))
    path = ome(tmp_path / "v.tif", data, tile=(16, 16), compression="zlib")
    from lib.volumes.readers import tiff_pages

    decoded = []
    real = tiff_pages._decode
    monkeypatch.setattr(tiff_pages, "_decode", lambda p, s: decoded.append(s) or real(p, s))
    assert (open_source(path)[17:20, 30:34, :] == data[17:20, 30:34]).all()
    assert sorted(decoded) == [5, 9], "column 1 of tile rows 1 and 2"
