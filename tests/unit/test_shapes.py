"""Figures of objects on bodies of known size, and their tables, skeletons and meshes."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from zmesh import Mesh

from lib.commands import main
from lib.labels.hierarchy import load_hierarchy
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.log import EditLog
from lib.shapes.chosen import ItemObjects
from lib.shapes.measuring import measure
from lib.shapes.meshes import meshes_of
from lib.shapes.skeletons import skeletons_of
from lib.shapes.surface import surface_areas
from lib.shapes.tables import write_table
from lib.volumes.study import Study

H = load_hierarchy()
AXON, DENDRITE, MYELIN, MITO = (
    H.class_names.index(n) for n in ("axon", "dendrite", "myelin", "mitochondria")
)


def _places(shape, size) -> NDArray[np.float64]:
    """(X, Y, Z, 3) nm from the volume's middle."""
    axes = [(np.arange(n) - n / 2 + 0.5) * s for n, s in zip(shape, size, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def _across(places, direction) -> NDArray[np.float64]:
    """Distance from a line through the middle."""
    d = np.asarray(direction, float) / np.linalg.norm(direction)
    along = places @ d
    return np.sqrt((places**2).sum(-1) - along**2)


def _objects(ids, size, classes, origin=(0, 0, 0)) -> ItemObjects:
    ids = np.asfortranarray(ids.astype(np.uint32))
    return ItemObjects(ids, size, origin, {1: "axon 1"}, classes, frozenset({1}))


@pytest.mark.parametrize("size", [(8.0, 8.0, 8.0), (4.0, 4.0, 40.0), (8.0, 8.0, 30.0)])
def test_the_surface_of_a_sphere(size):
    radius = 400.0
    shape = [int(2 * radius / s) + 6 for s in size]
    ids = ((_places(shape, size) ** 2).sum(-1) < radius**2).astype(np.uint32) * 3
    found = surface_areas(ids, size)
    assert found[3] == pytest.approx(4 * math.pi * radius**2, rel=0.01)
    assert (found[:3] == 0).all()


def test_an_object_has_no_surface_where_the_volume_ends():
    ids = np.ones((20, 20, 20), np.uint32)
    assert surface_areas(ids, (8, 8, 8))[1] == 0


@pytest.mark.parametrize(
    ("size", "shape", "direction"),
    [
        ((8.0, 8.0, 8.0), (70, 70, 110), (0.2, 0.1, 1)),
        ((8.0, 8.0, 30.0), (90, 90, 60), (0.2, 0.1, 1)),
        ((8.0, 8.0, 30.0), (150, 90, 24), (1, 0.1, 0.1)),
    ],
    ids=["isotropic", "along the sections", "in the sections"],
)
def test_a_myelinated_axon(size, shape, direction):
    far = _across(_places(shape, size), direction)
    ids = np.zeros(shape, np.uint32)
    ids[far < 150] = 2
    ids[far < 80] = 1
    middle = (_places(shape, size) ** 2).sum(-1) < 40**2
    ids[middle] = 3  # a mitochondrion
    rows = measure(_objects(ids, size, {1: AXON, 2: MYELIN, 3: MITO}), H)
    axon, myelin, mito = rows
    assert axon["diameter_nm"] == pytest.approx(160, rel=0.05)
    assert axon["fibre_diameter_nm"] == pytest.approx(300, rel=0.05)
    assert axon["myelin_nm"] == pytest.approx(70, rel=0.08)
    assert axon["g_ratio"] == pytest.approx(80 / 150, rel=0.03)
    assert (axon["cell"], mito["cell"], myelin["cell"]) == (1, 1, 2)
    assert (axon["mitochondria"], mito["mitochondria"]) == (1, None)
    assert myelin["diameter_nm"] is None


def test_places_volumes_and_contacts_of_boxes():
    ids = np.zeros((30, 20, 10), np.uint32)
    ids[2:12, 5:15, 1:9] = 1
    ids[12:20, 5:15, 1:9] = 2
    size, origin = (8.0, 8.0, 40.0), (100, 0, 7)
    one, two = measure(_objects(ids, size, {1: AXON, 2: DENDRITE}, origin), H)
    assert one["voxels"] == 800 and one["volume_um3"] == pytest.approx(800 * 2560e-9)
    assert (one["low_x_nm"], one["high_x_nm"]) == (102 * 8, 112 * 8)
    assert one["centre_x_nm"] == pytest.approx((100 + 7) * 8)
    assert one["centre_z_nm"] == pytest.approx((7 + 5) * 40)
    assert one["contacts"] == 1
    assert one["contact_um2"] == pytest.approx(10 * 8 * 8 * 40 / 1e6)
    assert one["touches"].startswith("2:") and two["touches"].startswith("1:")
    assert (one["class"], two["class"]) == ("axon", "dendrite")
    assert one["accepted"] and not two["accepted"]
    assert one["g_ratio"] is None, "no sheath, no g-ratio"
    (only,) = measure(_objects(ids, size, {}, origin), H, only=[2])
    assert only["object"] == 2 and only["class"] == ""


def test_ids_may_be_any_numbers():
    ids = np.zeros((30, 20, 10), np.uint32)
    ids[2:12, 5:15, 1:9] = 4_000_000_000
    ids[12:20, 5:15, 1:9] = 17
    rows = measure(_objects(ids, (8.0, 8.0, 40.0), {17: MITO, 4_000_000_000: DENDRITE}), H)
    assert [r["object"] for r in rows] == [17, 4_000_000_000]
    assert [r["cell"] for r in rows] == [4_000_000_000, 4_000_000_000]
    assert rows[0]["touches"].startswith("4000000000:")


def test_a_skeleton_runs_along_the_axis():
    size = (8.0, 8.0, 30.0)
    far = _across(_places((40, 40, 60), size), (0, 0, 1))
    line = skeletons_of((far < 80).astype(np.uint32), size, [1])[1]
    assert line.cable_length() == pytest.approx(59 * 30, rel=0.05)
    assert np.abs(line.vertices[:, :2] - 160).max() < 16
    assert np.median(line.radii) == pytest.approx(80, rel=0.15)


def test_a_mesh_has_the_volume_of_its_body():
    size = (8.0, 8.0, 30.0)
    ids = ((_places((60, 60, 20), size) ** 2).sum(-1) < 200**2).astype(np.uint32) * 5
    ((object_id, mesh),) = meshes_of(ids, size, [5, 6])
    assert object_id == 5
    a, b, c = (mesh.vertices[mesh.faces[:, n]].astype(float) for n in range(3))
    volume = abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6
    assert volume == pytest.approx(4 / 3 * math.pi * 200**3, rel=0.08)
    assert mesh.vertices.mean(0) == pytest.approx([240, 240, 300], abs=20)


def test_the_command(tmp_path: Path, capsys):
    study = Study(tmp_path / "study", H)
    ids = np.zeros((60, 40, 30), np.uint32)
    ids[5:15, 5:35, 5:25] = 4
    ids[20:30, 5:35, 5:25] = 7
    image = np.full(ids.shape, 90, np.uint8)
    study.add_item("a", image, (8.0, 8.0, 8.0), instance=ids, origin_voxels=(10, 0, 0))
    objects = CurrentObjects(EditLog(study.root, "a"), ids.shape)
    objects.accept(Placed(ids == 7, ((0, 60), (0, 40), (0, 30))), 7, "axon 7")
    common = ["measure", "a", "--studies", str(study.root)]
    table = tmp_path / "t.csv"
    assert main([*common, "--out", str(table)]) == 0
    (row,) = csv.DictReader(table.open(newline=""))
    assert (row["item"], row["object"], row["class"]) == ("a", "7", "axon")
    assert row["accepted"] == "True" and float(row["low_x_nm"]) == 240
    assert row["g_ratio"] == "", "no sheath"
    out = tmp_path / "out"
    words = ["--objects", "instance", "--only", "4", "--out", str(table)]
    words += ["--skeletons", str(out), "--meshes", str(out)]
    assert main([*common, *words]) == 0
    assert len(table.read_text().splitlines()) == 2
    mesh = Mesh.from_ply((out / "a" / "4.ply").read_bytes())
    assert mesh.vertices[:, 0].min() == pytest.approx(15 * 8, abs=8)
    swc = [r.split() for r in (out / "a" / "4.swc").read_text().splitlines() if r[:1].isdigit()]
    assert all(15 * 8 <= float(r[2]) <= 25 * 8 for r in swc)
    assert not (out / "a" / "7.ply").exists()
    (out / "info").write_text(json.dumps({"type": "segmentation"}))
    words = ["--objects", "instance", "--meshes", str(out), "--mesh-format", "precomputed"]
    assert main([*common, *words, "--out", str(table)]) == 0
    assert json.loads((out / "info").read_text())["mesh"] == "mesh"
    assert json.loads((out / "mesh" / "4:0").read_text()) == {"fragments": ["4.mesh"]}
    capsys.readouterr()
    assert main([*common, "--only", "99", "--out", str(table)]) == 1
    assert "no such object" in capsys.readouterr().err
    assert main([*common, "--objects", "predicted", "--out", str(table)]) == 1
    assert "predict --task instances" in capsys.readouterr().err
    assert main([*common, "--out", "t.txt"]) == 1


def test_a_table_for_programs(tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    rows = [{"object": 1, "g_ratio": None}, {"object": 2, "g_ratio": 0.6}]
    write_table(tmp_path / "t.parquet", rows)
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == rows
