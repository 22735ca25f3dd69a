"""`import`: crops, tiles, splits, labels and what it says at the end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from volume_files import SIZE_NM, SIZED, UNSIZED, chunked, hdf5, nifti, precomputed, volume

from lib.labels.hierarchy import load_hierarchy
from lib.volumes import writing
from lib.volumes.commands import add_export_parser, add_import_parser
from lib.volumes.study import Study

H = load_hierarchy()
SHAPE = (13, 17, 9)
AXON, MITO = H.set_named("axon"), H.set_named("mitochondria")


def run(*words):
    """The command line's own parser and function."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    add_import_parser(commands)
    add_export_parser(commands)
    args = parser.parse_args([str(w) for w in words])
    return args.run(args)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "study"


def items(root):
    return Study(root, H).items()


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


def test_ids_beside_cremi_data_come_along(tmp_path, root, capsys):
    ids = (volume(SHAPE, np.uint32, 3) % 7).astype(np.uint64)
    ids[0, 0, :3] = 2**64 - 1
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids")
    assert run("import", source, "--studies", root) == 0
    (item,) = items(root)
    signed = ids.astype(np.int64)  # 2^64 - 1 becomes -1
    assert (item.read_instances() == np.where(signed == 0, -1, signed)).all()
    sets = item.read_class_sets()
    assert (sets[signed > 0] == H.object_set).all() and (sets[signed <= 0] == H.unknown).all()
    assert item.record.true_instances
    out = capsys.readouterr().out
    assert "objects: 6" in out and "any but extracellular space, tear" in out
    assert f"unknown: {(signed <= 0).mean():.2%}" in out


def test_ids_beside_cremi_data_can_be_left_out(tmp_path, root):
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    hdf5(tmp_path / "v.h5", volume(SHAPE, np.uint32), "volumes/labels/neuron_ids")
    assert run("import", source, "--studies", root, "--instance", "none") == 0
    (item,) = items(root)
    assert not item.has_label("instance") and not item.has_label("final")
    assert not item.record.true_instances


def test_fully_annotated_makes_zero_no_object(tmp_path, root):
    ids = volume(SHAPE, np.uint16, 3) % 4
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids")
    assert run("import", source, "--studies", root, "--fully-annotated") == 0
    (item,) = items(root)
    assert (item.read_instances() == ids).all() and item.record.fully_annotated
    assert (item.read_class_sets()[ids == 0] == H.unknown).all(), (
        "what a membrane is, ids do not say"
    )


def test_without_a_hierarchy_ids_are_foreground_and_the_rest_background(tmp_path, root):
    ids = volume(SHAPE, np.uint16, 3) % 4
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids")
    conf = tmp_path / "conf.yaml"
    conf.write_text("labels: {hierarchy: none, num_classes: 2}")
    words = ["--studies", root, "--fully-annotated", "--conf", conf]
    assert run("import", source, *words) == 0
    from lib.labels.hierarchy import flat_hierarchy

    sets = Study(root, flat_hierarchy(2)).item("v").read_class_sets()
    assert (sets == np.where(ids > 0, 2, 1)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.int64])
def test_plan_encoding(tmp_path, root, dtype):
    rng = np.random.default_rng(0)
    plan = rng.integers(0, 12, SHAPE)
    plan[rng.random(SHAPE) < 0.2] = 255
    if np.dtype(dtype).kind != "u":
        plan[rng.random(SHAPE) < 0.2] = -1
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label = hdf5(tmp_path / "l.h5", plan.astype(dtype), "x")
    words = ["--semantic", f"{label}:x", "--encoding", "plan"]
    assert run("import", source, "--studies", root, *words) == 0
    (item,) = items(root)
    known = (plan >= 0) & (plan < 12)
    assert (item.read_class_sets() == np.where(known, 1 << (plan % 12), H.unknown)).all()


def test_canonical_encoding_and_fully_annotated(tmp_path, root):
    rng = np.random.default_rng(0)
    final = np.array([0, 4, 104, 255], np.uint8)[rng.integers(0, 4, SHAPE)]
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label = hdf5(tmp_path / "l.h5", final)
    words = ["--studies", root, "--semantic", label]
    assert run("import", source, *words, "--id", "part") == 0
    assert run("import", source, *words, "--id", "full", "--fully-annotated") == 0
    part, full = (Study(root, H).item(i).read_class_sets() for i in ("part", "full"))
    painted = H.set_of(["axon", "organelle"])
    for value, in_part, in_full in (
        (0, H.unknown, H.unknown & ~painted),
        (4, AXON, AXON),
        (104, H.set_named("organelle"), H.set_named("organelle")),
        (255, H.unknown, H.unknown),
    ):
        assert (part[final == value] == in_part).all() and (full[final == value] == in_full).all()


def test_mapping_files_and_ids_together(tmp_path, root):
    """The table of the shared data's README for the fly nerve cord."""
    rng = np.random.default_rng(0)
    values = np.array([0, 159, 191, 255], np.uint8)[rng.integers(0, 4, SHAPE)]
    ids = np.where(values == 255, rng.integers(0, 3, SHAPE), 0).astype(np.uint16)
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label, derived = hdf5(tmp_path / "l.h5", values), hdf5(tmp_path / "i.h5", ids)
    mapping = Path(__file__).parents[2] / "benchmarks" / "mappings" / "vnc.yaml"
    words = ["--semantic", label, "--mapping", mapping, "--instance", derived]
    assert run("import", source, "--studies", root, *words, "--derived-instances") == 0
    (item,) = items(root)
    sets, inside = (
        item.read_class_sets(),
        H.unknown & ~H.set_of(["extracellular space", "mitochondria", "myelin_related"]),
    )
    assert (sets[values == 0] == H.unknown).all()
    assert (sets[values == 159] == H.set_of(["glia", "extracellular space"])).all()
    assert (sets[values == 191] == MITO).all()
    assert (sets[(values == 255) & (ids == 0)] == inside).all()
    assert (sets[ids > 0] == inside & H.object_set).all()
    assert not item.record.true_instances


def test_labels_that_cover_a_part_by_their_cremi_offset(tmp_path, root):
    ids = volume((5, 6, 4), np.uint32, 1).astype(np.uint64) + 1
    ids[0, 0, 0], ids[0, 0, 1] = 2**32 - 2, 2**64 - 1
    final = np.full((5, 6, 4), 4, np.uint8)
    offset = [80.0, 15.0, 8.0]  # z, y, x in nm: voxel (2, 3, 2)
    source = hdf5(tmp_path / "v.h5", volume(SHAPE), offset=[0.0, 0.0, 0.0])
    hdf5(tmp_path / "v.h5", ids, "volumes/labels/neuron_ids", offset=offset)
    hdf5(tmp_path / "v.h5", final, "classes", offset=offset)
    words = ["--semantic", f"{source}:classes", "--crop", "1:,:,1:"]
    assert run("import", source, "--studies", root, *words) == 0
    (item,) = items(root)
    wanted = np.full(SHAPE, -1, np.int64)
    wanted[2:7, 3:9, 2:6] = ids.astype(np.int64)
    inside = np.zeros(SHAPE, bool)
    inside[2:7, 3:9, 2:6] = True
    assert (item.read_instances() == wanted[1:, :, 1:]).all()
    assert (item.read_class_sets() == np.where(inside, AXON, H.unknown)[1:, :, 1:]).all()


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


def test_precomputed_volumes_of_one_shape_may_lie_apart(tmp_path, root):
    source = precomputed(tmp_path / "pc", volume(SHAPE), offset=(100, 200, 300))
    ids = volume(SHAPE, np.uint32, 4) + 1
    label = precomputed(tmp_path / "seg", ids, "segmentation", offset=(103, 200, 300))
    assert run("import", source, "--studies", root, "--instance", label) == 0
    got = items(root)[0].read_instances()
    assert (got[:3] == -1).all() and (got[3:] == ids[:-3]).all()


def test_a_plain_label_of_the_same_shape_fits_a_precomputed_image(tmp_path, root):
    source = precomputed(tmp_path / "pc", volume(SHAPE), offset=(100, 200, 300))
    ids = volume(SHAPE, np.uint32, 4) + 1
    label = hdf5(tmp_path / "l.h5", ids)
    assert run("import", source, "--studies", root, "--instance", label) == 0
    assert (items(root)[0].read_instances() == ids).all()


def test_fully_annotated_leaves_what_a_mapping_calls_unknown(tmp_path, root):
    (tmp_path / "m.yaml").write_text("values: {0: unknown, 1: axon}")
    values = volume(SHAPE) % 2
    source, label = hdf5(tmp_path / "v.h5", volume(SHAPE)), hdf5(tmp_path / "l.h5", values)
    words = ["--semantic", label, "--mapping", tmp_path / "m.yaml", "--fully-annotated"]
    assert run("import", source, "--studies", root, *words) == 0
    sets = items(root)[0].read_class_sets()
    assert (sets == np.where(values == 1, AXON, H.unknown)).all()


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


def export_study(tmp_path, root):
    """Two items of one source, both with class sets under the same code."""
    rng = np.random.default_rng(0)
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    for i, (box, own) in enumerate(((":,:,0:5", "[axon, dendrite]"), (":,2:,5:9", "[soma, tear]"))):
        mapping = tmp_path / f"{i}.yaml"
        mapping.write_text(f"values: {{0: unknown, 1: axon, 2: organelle, 3: {own}}}")
        label = hdf5(tmp_path / f"l{i}.h5", rng.integers(0, 4, SHAPE).astype(np.uint8))
        ids = hdf5(tmp_path / f"i{i}.h5", rng.integers(0, 9, SHAPE).astype(np.uint32))
        words = ["--semantic", label, "--mapping", mapping, "--instance", ids, "--crop", box]
        assert run("import", source, "--studies", root, "--id", f"item{i}", *words) == 0
    return Study(root, H)


def full_frame(study):
    """What both items together say: class sets and ids of the source's frame."""
    sets, ids = np.full(SHAPE, H.unknown, np.int32), np.full(SHAPE, -1, np.int64)
    for item in study.items():
        (x, y, z), (a, b, c) = item.record.origin_voxels, item.shape
        at = np.s_[x : x + a, y : y + b, z : z + c]
        sets[at], ids[at] = item.read_class_sets(), item.read_instances()
    return sets, ids


TARGETS = {
    "hdf5": "out.h5", "zarr": "out.zarr", "precomputed": "precomputed://{}/out", "tiff": "out.tif",
}  # fmt: skip


def target(tmp_path, kind, stem=""):
    text = TARGETS[kind].format(tmp_path)
    return text + stem if "://" in text else str(tmp_path / text.replace("out", "out" + stem))


@pytest.mark.parametrize("kind", ["hdf5", "zarr", "precomputed"])
def test_exported_items_fill_one_target_and_come_back(tmp_path, root, kind, capsys):
    study = export_study(tmp_path, root)
    classes, ids = target(tmp_path, kind), target(tmp_path, kind, "-ids")
    for item in study.items():
        assert run("export", item.id, classes, "--studies", root) == 0
        assert run("export", item.id, ids, "--studies", root, "--label", "instance") == 0
    assert "written to" in capsys.readouterr().out
    again = tmp_path / "again"
    words = ["--semantic", classes.removeprefix("precomputed://"), "--instance"]
    words += [ids.removeprefix("precomputed://"), "--id", "all"]
    assert run("import", tmp_path / "v.h5", "--studies", again, *words) == 0
    back = Study(again, H).item("all")
    sets, wanted = full_frame(study)
    known = wanted != 0  # 0 is read as unknown unless the volume is fully annotated
    assert (back.read_class_sets() == sets).all()
    assert (back.read_instances() == np.where(known, wanted, -1)).all()


@pytest.mark.parametrize("kind", list(TARGETS))
@pytest.mark.parametrize("crop_only", [False, True])
def test_one_exported_item_at_its_place(tmp_path, root, kind, crop_only):
    study = export_study(tmp_path, root)
    text = target(tmp_path, kind)
    words = ["--crop-only"] if crop_only else []
    assert run("export", "item1", text, "--studies", root, *words) == 0
    from lib.volumes.readers.opening import open_source

    source = open_source(text.removeprefix("precomputed://"), "semantic")
    item = study.item("item1")
    got, own = source[...], item.read_final()
    assert source.info.voxel_size_nm == pytest.approx(SIZE_NM)
    assert source.info.attributes["class_sets"] == {
        str(k): v for k, v in item.record.class_sets.items()
    }
    if crop_only:
        assert (got == own).all()
        if kind == "precomputed":
            assert source.info.origin == (0, 2, 5)
        elif kind != "tiff":
            assert source.info.offset_nm == pytest.approx((0, 10, 200))
    else:
        assert got.shape == SHAPE and (got[:, 2:, 5:] == own).all()
        outside = np.ones(SHAPE, bool)
        outside[:, 2:, 5:] = False
        assert (got[outside] == 0).all()


@pytest.mark.parametrize("kind", ["hdf5", "zarr", "tiff"])
def test_plan_encoding_and_ids_outside_the_item(tmp_path, root, kind):
    study = export_study(tmp_path, root)
    text, ids = target(tmp_path, kind), target(tmp_path, kind, "-ids")
    assert run("export", "item0", text, "--studies", root, "--encoding", "plan") == 0
    assert run("export", "item0", ids, "--studies", root, "--label", "instance") == 0
    from lib.volumes.readers.opening import open_source

    sets, item = study.item("item0").read_class_sets(), study.item("item0")
    plan = open_source(text, "semantic")[...]
    axon = sets == AXON
    assert axon.any() and (plan[:, :, :5] == np.where(axon, 3, 255)).all()
    assert (plan[:, :, 5:] == 255).all()
    got = open_source(ids, "instance")[...].astype(np.int64)
    stored = np.where(item.read_instances() < 0, 2**32 - 1, item.read_instances())
    assert (got[:, :, :5] == stored).all() and (got[:, :, 5:] == 2**32 - 1).all()


def test_hdf5_target_keeps_what_else_is_in_the_file(tmp_path, root):
    export_study(tmp_path, root)
    path = tmp_path / "v.h5"
    assert run("export", "item0", path, "--studies", root) == 0
    with h5py.File(path) as file:
        assert (volume(SHAPE) == file["volumes/raw"][...].T).all()
        made = file["volumes/labels/semantic"]
        assert made.attrs["resolution"].tolist() == list(SIZE_NM[::-1])
        assert json.loads(made.attrs["neuropil"])["class_sets"]


@pytest.mark.parametrize("kind", list(TARGETS))
def test_a_target_of_another_shape_is_only_replaced_when_asked(tmp_path, root, kind, capsys):
    export_study(tmp_path, root)
    text = target(tmp_path, kind)
    assert run("export", "item0", text, "--studies", root, "--crop-only") == 0
    assert run("export", "item0", text, "--studies", root) == 1
    assert "--replace" in capsys.readouterr().err
    assert run("export", "item0", text, "--studies", root, "--replace") == 0


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["item0", "{}/x.png"], "a target that is not known"),
        (["item9", "{}/x.h5"], "no item 'item9'; items: bare, item0, item1"),
        (["bare", "{}/x.h5"], "item bare has no final label"),
        (["item0", "precomputed://{}/p", "--encoding", "plan"], "Precomputed reads 0"),
        (["item0", "{}/text.h5"], "exists and cannot be opened"),
        (["item0", "{}/used.zarr"], "exists and is no array of this kind"),
    ],
)
def test_export_faults_are_one_line_and_leave_nothing(tmp_path, root, capsys, words, fault):
    study = export_study(tmp_path, root)
    study.add_item("bare", volume(SHAPE), SIZE_NM)
    (tmp_path / "text.h5").write_text("no HDF5")
    other = tmp_path / "used.zarr" / "volumes" / "labels" / "semantic"
    other.mkdir(parents=True)
    (other / "file").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert run("export", *[w.format(tmp_path) for w in words], "--studies", root) == 1
    err = capsys.readouterr().err
    assert fault in err and err.strip().count("\n") == 0 and err.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_class_set_codes_of_a_zarr_container_are_read_at_import(tmp_path, root):
    chunked("zarr", tmp_path / "l.zarr", np.full(SHAPE, 201, np.uint8).T, {"chunks": [4, 8, 8]})
    attributes = {"neuropil": {"class_sets": {"201": ["axon", "tear"]}}}
    (tmp_path / "l.zarr" / ".zattrs").write_text(json.dumps(attributes))
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    assert run("import", source, "--studies", root, "--semantic", tmp_path / "l.zarr") == 0
    assert (items(root)[0].read_class_sets() == H.set_of(["axon", "tear"])).all()


def test_spacing_unit_from_the_command_line(tmp_path, root):
    source = nifti(tmp_path / "v.nii", volume(SHAPE), np.diag([0.004, 0.005, 0.04, 1]))
    assert run("import", source, "--studies", root, "--spacing-unit", "um") == 0
    assert items(root)[0].voxel_size_nm == pytest.approx(SIZE_NM)
