"""`import`: formats, crops, tiles, splits, voxel sizes and ids of items."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from import_cases import SHAPE, H, items, run
from volume_files import SIZE_NM, SIZED, UNSIZED, hdf5, nifti, precomputed, volume

from lib.volumes import writing
from lib.volumes.study import Study


@pytest.fixture
def root(tmp_path):
    return tmp_path / "study"


@pytest.mark.parametrize("kind", [*SIZED, *UNSIZED])
def test_every_format_becomes_the_same_item(tmp_path, root, kind, capsys):
    source = {**SIZED, **UNSIZED}[kind](tmp_path, volume(SHAPE))
    size = ["--voxel-size-nm", *SIZE_NM] if kind in UNSIZED else []
    assert run("import", source, "--studies", root, "--id", "one", *size) == 0
    (item,) = items(root)
    assert item.id == "one" and item.voxel_size_nm == pytest.approx(SIZE_NM)
    assert (item.open_image() == volume(SHAPE)).all()
    out = capsys.readouterr().out
    assert "one: 13 x 17 x 9 voxels (x, y, z) of 4 x 5 x 40 nm" in out and "no label" in out


def test_crop_and_its_place_in_the_source(tmp_path, root):
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    assert run("import", source, "--studies", root, "--crop", "2:9,:5,4:") == 0
    (item,) = items(root)
    assert item.id == "v"
    assert (item.open_image() == volume(SHAPE)[2:9, :5, 4:]).all()
    assert item.record.origin_voxels == (2, 0, 4)
    assert item.record.source == {
        "path": source, "dataset": "volumes/raw", "shape": [13, 17, 9], "origin": [0, 0, 0],
    }  # fmt: skip


@pytest.mark.parametrize("slab", [1, 3000, 1 << 25])
def test_slabs_do_not_show(tmp_path, root, monkeypatch, slab):
    monkeypatch.setattr(writing, "SLAB_BYTES", slab)
    ids = volume(SHAPE, np.uint32, seed=2) % 50
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids")
    assert run("import", source, "--studies", root, "--crop", ":,:,1:") == 0
    (item,) = items(root)
    assert (item.open_image() == volume(SHAPE)[:, :, 1:]).all()
    assert (item.read_instances() == np.where(ids == 0, -1, ids.astype(int))[:, :, 1:]).all()


def test_tiles(tmp_path, root):
    data = volume(SHAPE)
    source = hdf5(tmp_path / "v.h5", data)
    assert run("import", source, "--studies", root, "--tiles", 8, 17, 4, "--crop", "1:,:,:") == 0
    found = np.zeros(SHAPE, int)
    for item in items(root):
        (x, y, z), (a, b, c) = item.record.origin_voxels, item.shape
        assert item.id == f"v-x{x}y{y}z{z}" and a <= 8 and c <= 4
        assert (item.open_image() == data[x : x + a, y : y + b, z : z + c]).all()
        found[x : x + a, y : y + b, z : z + c] += 1
    assert len(items(root)) == 6 and (found[1:] == 1).all() and (found[0] == 0).all()


def test_splits_make_items_apart(tmp_path, root):
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    words = ["--split", "train=:,:,0:5", "--split", "val=:,:,6:9"]
    assert run("import", source, "--studies", root, "--id", "b", *words) == 0
    train, val = items(root)
    assert (train.id, train.record.split, train.shape[2]) == ("b-train", "train", 5)
    assert (val.id, val.record.split, val.record.origin_voxels) == ("b-val", "val", (0, 0, 6))


def test_split_of_a_whole_item(tmp_path, root):
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    assert run("import", source, "--studies", root, "--split", "val") == 0
    (item,) = items(root)
    assert item.id == "v" and item.record.split == "val"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--split", "train=:,:,0:5", "--split", "val=:,:,4:9"], "share the voxels 0:13,0:17,4:5"),
        (["--split", "train=:,:,0:5", "--split", "train=:,:,6:9"], "each of train and val once"),
        (["--split", "test"], "expected train, val, train=BOX or val=BOX"),
        (["--split", "train=0:5"], "expected X0:X1,Y0:Y1,Z0:Z1"),
    ],
)
def test_splits_that_leak_are_refused(tmp_path, root, capsys, words, fault):
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    assert run("import", source, "--studies", root, *words) == 1
    assert fault in capsys.readouterr().err and not root.exists()


def test_precomputed_crops_are_in_its_own_coordinates(tmp_path, root):
    data, ids = volume(SHAPE), volume(SHAPE, np.uint32, 4)
    source = precomputed(tmp_path / "pc", data, offset=(100, 200, 300))
    label = precomputed(tmp_path / "seg", ids[2:], "segmentation", offset=(102, 200, 300))
    words = ["--crop", "101:105,200:203,302:", "--instance", label]
    assert run("import", source, "--studies", root, *words) == 0
    (item,) = items(root)
    assert (item.open_image() == data[1:5, :3, 2:]).all()
    assert item.record.origin_voxels == (101, 200, 302)
    got = item.read_instances()
    assert (got[0] == -1).all() and (got[1:] == ids[2:5, :3, 2:]).all()


def test_signed_and_wide_greys_are_taken_when_they_fit(tmp_path, root):
    for name, data in (
        ("a", volume(SHAPE).astype(np.int16)),
        ("b", volume(SHAPE, np.uint16).astype(np.int64)),
        ("c", volume(SHAPE) > 99),
    ):
        source = hdf5(tmp_path / f"{name}.h5", data)
        assert run("import", source, "--studies", root) == 0
        assert (Study(root, H).item(name).open_image() == data).all()


def test_two_dimensional_images_take_two_sizes(tmp_path, root):
    tifffile.imwrite(tmp_path / "v.tif", volume((6, 5, 1))[:, :, 0].T)
    assert run("import", tmp_path / "v.tif", "--studies", root, "--voxel-size-nm", 7, 8) == 0
    assert items(root)[0].voxel_size_nm == (7.0, 8.0, 7.0)


@pytest.mark.parametrize("lengths", [(8, 8), (8, 8, 30, 1)])
def test_a_stack_takes_no_two_sizes(tmp_path, root, capsys, lengths):
    """Its thickness was invented: that of a voxel in the section."""
    source = hdf5(tmp_path / "v.h5", volume((6, 5, 4)))
    assert run("import", source, "--studies", root, "--voxel-size-nm", *lengths) == 1
    told = capsys.readouterr().err
    assert f"found {len(lengths)} lengths, expected 1 for all axes or 3 (x y z)" in told
    assert "4 sections" in told
    assert not items(root)


def test_a_stated_voxel_size_wins(tmp_path, root):
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    assert run("import", source, "--studies", root, "--voxel-size-nm", 9) == 0
    assert items(root)[0].voxel_size_nm == (9.0, 9.0, 9.0)


@pytest.mark.parametrize(
    ("name", "item_id"),
    [("v.nii.gz", "v"), ("a b.c.nii", "a-b-c"), ("x_1.zarr", "x_1"), ("v.h5:volumes/raw", "v"),
     ("v.h5:other/set", "v-other-set"), ("é.tif", "volume")],
)  # fmt: skip
def test_ids_are_made_of_file_names(name, item_id):
    from lib.volumes.import_plan import default_id

    assert default_id(name) == item_id


def test_import_twice_needs_replace(tmp_path, root, capsys):
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    assert run("import", source, "--studies", root) == 0
    assert run("import", source, "--studies", root) == 1
    assert "item v exists; choose another --id or use --replace" in capsys.readouterr().err
    assert run("import", source, "--studies", root, "--replace") == 0


def test_spacing_unit_from_the_command_line(tmp_path, root):
    source = nifti(tmp_path / "v.nii", volume(SHAPE), np.diag([0.004, 0.005, 0.04, 1]))
    assert run("import", source, "--studies", root, "--spacing-unit", "um") == 0
    assert items(root)[0].voxel_size_nm == pytest.approx(SIZE_NM)
