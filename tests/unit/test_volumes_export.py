"""`export`: items come back from every target, and what else is there stays."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from import_cases import AXON, SHAPE, H, run
from volume_files import SIZE_NM, SIZED, chunked, hdf5, nifti, precomputed, volume

from lib.proofread.store import ObjectStore
from lib.volumes.readers.opening import open_source
from lib.volumes.study import Study


@pytest.fixture
def root(tmp_path):
    return tmp_path / "study"


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
    "hdf5": "out.h5", "zarr": "out.zarr", "ome-zarr": "out.ome.zarr", "n5": "out.n5",
    "precomputed": "precomputed://{}/out", "tiff": "out.tif",
}  # fmt: skip


def target(tmp_path, kind, stem=""):
    text = TARGETS[kind].format(tmp_path)
    return text + stem if "://" in text else str(tmp_path / text.replace("out", "out" + stem))


@pytest.mark.parametrize("kind", [k for k in TARGETS if k != "tiff"])
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
def test_one_exported_item_at_its_place(tmp_path, root, kind, crop_only, capsys):
    study = export_study(tmp_path, root)
    text = target(tmp_path, kind)
    words = ["--crop-only"] if crop_only else []
    assert run("export", "item1", text, "--studies", root, *words) == 0
    told = capsys.readouterr().out
    assert ("semantic at voxel" in told) == (kind in ("hdf5", "zarr", "n5")), "a dataset, if any"
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
    sets, item = study.item("item0").read_class_sets(), study.item("item0")
    plan = open_source(text, "semantic")[...]
    axon = sets == AXON
    assert axon.any() and (plan[:, :, :5] == np.where(axon, 3, 255)).all()
    assert (plan[:, :, 5:] == 255).all()
    got = open_source(ids, "instance")[...].astype(np.int64)
    assert (got[:, :, :5] == np.maximum(item.read_instances(), 0)).all()
    assert (got[:, :, 5:] == 0).all(), "other viewers show 2^32 - 1 as one giant object"


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
        (["bare", "{}/x.h5"], "item bare has no final label; submit labels from a viewer"),
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


def test_predictions_and_current_objects_of_a_whole_source(tmp_path, root, capsys):
    """Objects of different items stay apart; what people did is in the current ones."""
    study = export_study(tmp_path, root)
    first, second = study.items()
    merged = {}
    (root / "labels" / "instance_predicted").mkdir(parents=True)
    for item in (first, second):
        ids = np.maximum(item.read_instances(), 0).astype(np.uint32)
        nifti(root / "labels" / "instance_predicted" / f"{item.id}.nii.gz", ids)
        objects, _ = ObjectStore(root, 1).open(item.id, item.shape)
        objects.merge([1, 2])
        merged[item.id] = np.where(ids == 2, 1, ids)
    out = tmp_path / "objects.h5"
    words = ["--studies", root, "--label", "current", "--whole-source"]
    assert run("export", first.id, f"{out}:ids", *words) == 0
    with h5py.File(out) as file:
        found = np.asarray(file["ids"]).T
    parts = []
    for item in (first, second):
        (x, y, z), (a, b, c) = item.record.origin_voxels, item.shape
        part = found[x : x + a, y : y + b, z : z + c].astype(np.int64)
        pairs = set(zip(part.ravel().tolist(), merged[item.id].ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(part)) == len(np.unique(merged[item.id]))
        parts.append(set(np.unique(part).tolist()) - {0})
    assert not parts[0] & parts[1]
    assert run("export", first.id, f"{out}:alone", "--studies", root, "--label", "predicted") == 0
    with h5py.File(out) as file:
        (x, y, z), (a, b, c) = first.record.origin_voxels, first.shape
        alone = np.asarray(file["alone"]).T[x : x + a, y : y + b, z : z + c]
    np.testing.assert_array_equal(alone, np.maximum(first.read_instances(), 0))
    assert run("export", second.id, f"{out}:c", "--studies", root, "--label", "classes") == 1
    assert "has no classes label; run predict --studies" in capsys.readouterr().err


def test_automatic_classes_are_written_in_canonical_codes(tmp_path, root):
    study = export_study(tmp_path, root)
    item = study.items()[0]
    (root / "labels" / "original").mkdir(parents=True)
    shown = np.zeros(item.shape, np.uint8)
    shown[0], shown[1], shown[2] = 4, 13, 104  # axon, the first group for viewers, a code
    nifti(root / "labels" / "original" / f"{item.id}.nii.gz", shown)
    out = tmp_path / "out.h5"
    words = ["--studies", root, "--label", "classes", "--crop-only"]
    assert run("export", item.id, f"{out}:c", *words) == 0
    with h5py.File(out) as file:
        found = np.asarray(file["c"]).T
    assert set(np.unique(found[0])) == {4}
    assert set(np.unique(found[1])) == {101 + H.group_names.index("neuron_part")}
    assert set(np.unique(found[2])) == {104}


IDS = ["--label", "instance"]


@pytest.mark.parametrize("kind", list(TARGETS))
def test_the_value_of_unknown_voxels_can_be_chosen(tmp_path, root, kind, capsys):
    study = export_study(tmp_path, root)
    item = study.item("item0")
    for number, value in enumerate((0, 77, 2**32 - 1)):
        text = target(tmp_path, kind, f"-{number}")
        words = ["export", "item0", text, "--studies", root, *IDS, "--unknown", value]
        assert run(*words, "--crop-only") == 0
        stored = np.where(item.read_instances() < 0, value, item.read_instances())
        source = open_source(text.removeprefix("precomputed://"), "instance")
        assert (source[...].astype(np.int64) == stored).all()
    capsys.readouterr()
    words = ["export", "item0", target(tmp_path, kind, "-x"), "--studies", root, *IDS]
    assert run(*words, "--unknown", 5) == 1, "an object has this id"
    err = capsys.readouterr().err
    assert "an object with id 5" in err or "reads 0 where nothing is written" in err


@pytest.mark.parametrize("encoding", ["canonical", "plan"])
@pytest.mark.parametrize(("value", "good"), [(0, True), (3, False), (99, True), (300, False)])
def test_unknown_classes_have_no_value_of_a_class(tmp_path, root, encoding, value, good, capsys):
    study = export_study(tmp_path, root)
    good = good and not (encoding == "plan" and value == 0)
    words = ["export", "item0", tmp_path / "o.h5", "--studies", root, "--crop-only"]
    done = run(*words, "--encoding", encoding, "--unknown", value)
    assert done == (0 if good else 1)
    if not good:
        assert f"--unknown {value} for final labels" in capsys.readouterr().err
        return
    unknown = study.item("item0").read_class_sets() == H.unknown
    got = open_source(str(tmp_path / "o.h5"), "semantic")[...]
    assert unknown.any() and (got[unknown] == value).all()
    if encoding == "canonical":
        assert (got[~unknown] != value).all()


OFFSET_NM = (8.0, -15.0, 120.0)
"""2, -3 and 3 voxels of SIZE_NM."""


def _placed_hdf5(folder):
    return hdf5(folder / "p.h5", volume(SHAPE), offset=OFFSET_NM[::-1])


def _placed_zarr(folder):
    chunked("zarr", folder / "p.zarr", volume(SHAPE).T, {"chunks": [4, 8, 8]})
    attributes = {"resolution": list(SIZE_NM[::-1]), "offset": list(OFFSET_NM[::-1])}
    (folder / "p.zarr" / ".zattrs").write_text(json.dumps(attributes))
    return folder / "p.zarr"


def _placed_n5(folder):
    chunked("n5", folder / "p.n5", volume(SHAPE), {"blockSize": [8, 8, 4]})
    path = folder / "p.n5" / "attributes.json"
    more = {"resolution": list(SIZE_NM), "offset": list(OFFSET_NM)}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    return folder / "p.n5"


def _placed_ome(folder):
    path = SIZED["ome-zarr-0.4"](folder, volume(SHAPE))
    data = json.loads((folder / "v.zarr" / ".zattrs").read_text())
    level = data["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    place = [0, *(v / 1e3 for v in OFFSET_NM[::-1])]
    level.append({"type": "translation", "translation": place})
    (folder / "v.zarr" / ".zattrs").write_text(json.dumps(data))
    return path


def _placed_precomputed(folder):
    return precomputed(folder / "pc", volume(SHAPE), offset=(2, -3, 3))


PLACED = [_placed_hdf5, _placed_zarr, _placed_n5, _placed_ome, _placed_precomputed]


@pytest.mark.parametrize("make", PLACED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [k for k in TARGETS if k != "tiff"])
@pytest.mark.parametrize("crop_only", [False, True])
def test_a_source_s_own_offset_goes_from_import_to_export(tmp_path, make, kind, crop_only):
    """Five ways to state an offset in, five out: the label lies where the image lies."""
    source, root = make(tmp_path), tmp_path / "study"
    ids = hdf5(tmp_path / "i.h5", np.random.default_rng(0).integers(1, 9, SHAPE).astype(np.uint32))
    first = (2, -3, 3) if make is _placed_precomputed else (0, 0, 0)
    low = [a + b for a, b in zip(first, (1, 4, 2), strict=True)]
    words = ["--crop", ",".join(f"{a}:" for a in low), "--studies", root, "--id", "one"]
    assert run("import", source, "--instance", ids, *words) == 0
    text = target(tmp_path, kind)
    more = ["--crop-only"] if crop_only else []
    assert run("export", "one", text, "--studies", root, *IDS, *more) == 0
    back = open_source(text.removeprefix("precomputed://"), "instance")
    step = (1, 4, 2) if crop_only else (0, 0, 0)
    place = [o + n * s for o, n, s in zip(OFFSET_NM, step, SIZE_NM, strict=True)]
    if kind == "precomputed":
        assert back.info.origin == tuple(round(p / s) for p, s in zip(place, SIZE_NM, strict=True))
    else:
        assert back.info.offset_nm == pytest.approx(place)
    item = Study(root, H).item("one")
    found = back[...] if crop_only else back[1:, 4:, 2:]
    assert (found == item.read_instances()).all()
    if not crop_only:  # and the label is found again for the image it belongs to
        words = ["--instance", text.removeprefix("precomputed://"), "--id", "two"]
        assert run("import", source, "--studies", root, *words) == 0
        again = Study(root, H).item("two").read_instances()
        assert (again[1:, 4:, 2:] == item.read_instances()).all()


def test_a_place_between_voxels_is_told_where_it_cannot_be_kept(tmp_path, capsys):
    source, root = hdf5(tmp_path / "p.h5", volume(SHAPE), offset=(0.0, 2.0, 0.0)), tmp_path / "s"
    ids = hdf5(tmp_path / "i.h5", np.ones(SHAPE, np.uint32))
    assert run("import", source, "--instance", ids, "--studies", root, "--id", "one") == 0
    text = f"precomputed://{tmp_path}/pc"
    assert run("export", "one", text, "--studies", root, *IDS) == 0
    assert "is no whole voxel and was rounded" in capsys.readouterr().out
