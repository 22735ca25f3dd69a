"""`import`: class labels and object ids, their encodings and their place in the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from import_cases import AXON, MITO, SHAPE, H, items, run
from volume_files import chunked, hdf5, precomputed, volume

from lib.volumes.study import Study


@pytest.fixture
def root(tmp_path):
    return tmp_path / "study"


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


@pytest.mark.parametrize(("name", "more"), [("vnc", []), ("vnc-neurites", ["glia"])])
def test_mapping_files_and_ids_together(tmp_path, root, name, more):
    """The table of the shared data's README for the fly nerve cord, and what trainings take."""
    rng = np.random.default_rng(0)
    values = np.array([0, 159, 191, 255], np.uint8)[rng.integers(0, 4, SHAPE)]
    ids = np.where(values == 255, rng.integers(0, 3, SHAPE), 0).astype(np.uint16)
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    label, derived = hdf5(tmp_path / "l.h5", values), hdf5(tmp_path / "i.h5", ids)
    mapping = Path(__file__).parents[2] / "benchmarks" / "mappings" / f"{name}.yaml"
    words = ["--semantic", label, "--mapping", mapping, "--instance", derived]
    assert run("import", source, "--studies", root, *words, "--derived-instances") == 0
    (item,) = items(root)
    sets, inside = (
        item.read_class_sets(),
        H.unknown & ~H.set_of(["extracellular space", "mitochondria", "myelin_related", *more]),
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


def test_class_set_codes_of_a_zarr_container_are_read_at_import(tmp_path, root):
    chunked("zarr", tmp_path / "l.zarr", np.full(SHAPE, 201, np.uint8).T, {"chunks": [4, 8, 8]})
    attributes = {"neuropil": {"class_sets": {"201": ["axon", "tear"]}}}
    (tmp_path / "l.zarr" / ".zattrs").write_text(json.dumps(attributes))
    source = hdf5(tmp_path / "v.h5", volume(SHAPE))
    assert run("import", source, "--studies", root, "--semantic", tmp_path / "l.zarr") == 0
    assert (items(root)[0].read_class_sets() == H.set_of(["axon", "tear"])).all()
