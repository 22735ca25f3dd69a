"""Tables and meshes as files, and the ends of the `measure` command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from zmesh import Mesh

from lib.commands import main
from lib.labels.hierarchy import load_hierarchy
from lib.shapes.meshes import meshes_of, name_meshes, write_mesh
from lib.shapes.tables import write_table
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study

SIZE = (4.0, 5.0, 40.0)


def cuboid() -> np.ndarray:
    """Two boxes, ids 2 and 9, in 30 x 30 x 12 voxels."""
    ids = np.zeros((30, 30, 12), np.uint32)
    ids[5:15, 6:26, 2:10] = 2
    ids[20:30, 0:30, 0:12] = 9
    return ids


def test_a_table_for_people_keeps_text_and_gaps(tmp_path: Path) -> None:
    rows = [
        {"object": 1, "name": 'axon, "the long" one\nof two', "g_ratio": None},
        {"object": 2, "name": "Zürich µ", "g_ratio": 0.6},
    ]
    write_table(tmp_path / "new" / "t.csv", rows)
    with (tmp_path / "new" / "t.csv").open(newline="", encoding="utf-8") as file:
        back = list(csv.DictReader(file))
    assert [r["name"] for r in back] == [r["name"] for r in rows]
    assert [r["g_ratio"] for r in back] == ["", "0.6"] and list(back[0]) == list(rows[0])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_nothing_is_a_file(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    path = tmp_path / f"t{suffix}"
    write_table(path, [])
    assert path.exists()


@pytest.mark.parametrize("name", ["t.txt", "t", "t.CSV.gz"])
def test_a_table_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(VolumeError, match=r"\.csv or \.parquet"):
        write_table(tmp_path / name, [{"object": 1}])
    assert list(tmp_path.iterdir()) == []


def test_meshes_are_closed_surfaces_of_the_objects_asked_for() -> None:
    found = dict(meshes_of(cuboid(), SIZE, [9, 2, 77]))
    assert list(found) == [9, 2]
    for object_id, (low, high) in {
        2: ((5, 6, 2), (15, 26, 10)), 9: ((20, 0, 0), (30, 30, 12)),
    }.items():  # fmt: skip
        vertices = found[object_id].vertices
        assert vertices.min(0) == pytest.approx(np.multiply(low, SIZE), abs=max(SIZE))
        assert vertices.max(0) == pytest.approx(np.multiply(high, SIZE), abs=max(SIZE))
        assert (np.abs(vertices.min(0) - np.multiply(low, SIZE)) <= SIZE).all()
        edges = np.sort(found[object_id].faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
        _, counts = np.unique(edges, axis=0, return_counts=True)
        assert (counts == 2).all(), "each edge is of two triangles: nothing is open"


def test_meshes_are_simplified() -> None:
    places = np.stack(np.meshgrid(*[np.arange(40) - 20] * 3, indexing="ij"), -1)
    ball = ((places**2).sum(-1) < 15**2).astype(np.uint32)
    ((_, mesh),) = meshes_of(ball, (8.0, 8.0, 8.0), [1])
    faces = 6 * 15**2 * np.pi  # about what marching cubes make of it
    assert 40 < len(mesh.faces) < faces / 3
    radii = np.linalg.norm(mesh.vertices - 20.5 * 8, axis=1) / 8
    assert radii.min() > 13 and radii.max() < 17


def test_a_mesh_is_written_in_the_place_of_its_item(tmp_path: Path) -> None:
    ((_, mesh),) = meshes_of(cuboid(), SIZE, [2])
    before, offset = mesh.vertices.copy(), (1000.0, 0.0, -80.0)
    path = write_mesh(tmp_path / "a", 2, mesh, offset, "ply")
    assert path == tmp_path / "a" / "2.ply"
    back = Mesh.from_ply(path.read_bytes())
    assert back.vertices == pytest.approx(before + np.float32(offset), abs=0.01)
    assert len(back.faces) == len(mesh.faces)


def test_a_mesh_folder_is_what_neuroglancer_reads(tmp_path: Path) -> None:
    ((_, mesh),) = meshes_of(cuboid(), SIZE, [9])
    path = write_mesh(tmp_path, 9, mesh, (0.0, 0.0, 0.0), "precomputed")
    assert path == tmp_path / "mesh" / "9.mesh"
    count = int.from_bytes(path.read_bytes()[:4], "little")
    assert count == len(mesh.vertices)
    assert len(path.read_bytes()) == 4 + 12 * count + 12 * len(mesh.faces)
    assert json.loads((tmp_path / "mesh" / "9:0").read_text()) == {"fragments": ["9.mesh"]}
    info = json.loads((tmp_path / "mesh" / "info").read_text())
    assert info == {"@type": "neuroglancer_legacy_mesh"}


def test_meshes_are_named_in_the_info_of_their_volume_and_nothing_else_changes(tmp_path) -> None:
    name_meshes(tmp_path)
    assert list(tmp_path.iterdir()) == [], "a folder that is no volume stays none"
    info = {"type": "segmentation", "scales": [{"key": "4_4_40"}]}
    path = tmp_path / "info"
    path.write_text(json.dumps(info))
    name_meshes(tmp_path)
    assert json.loads(path.read_text()) == {**info, "mesh": "mesh"}
    written = path.stat().st_mtime_ns, path.stat().st_ino
    name_meshes(tmp_path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Items "a" and "b" with annotated objects, and "c" with none."""
    made = Study(tmp_path / "study", load_hierarchy())
    image = np.full((30, 30, 12), 90, np.uint8)
    for name in "ab":
        made.add_item(name, image, SIZE, instance=cuboid().astype(np.int64))
    made.add_item("c", image, SIZE)
    return made


def test_all_items_go_into_every_table_asked_for(study: Study, tmp_path: Path, capsys) -> None:
    (study.root / "c.nii").unlink()
    words = ["measure", "--studies", str(study.root), "--objects", "instance"]
    tables = [tmp_path / "one.csv", tmp_path / "two.csv"]
    assert main([*words, *(w for t in tables for w in ("--out", str(t)))]) == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()
    with tables[0].open(newline="") as file:
        rows = [(r["item"], r["object"]) for r in csv.DictReader(file)]
    assert rows == [("a", "2"), ("a", "9"), ("b", "2"), ("b", "9")]
    assert f"{tables[1]}: 4 objects of 2 items" in capsys.readouterr().out


def test_a_table_of_another_kind_is_refused_before_anything_is_measured(
    study: Study, tmp_path: Path, capsys
) -> None:
    words = ["measure", "a", "--studies", str(study.root), "--objects", "instance"]
    out = [str(tmp_path / "t.csv"), str(tmp_path / "t.xlsx")]
    assert main([*words, "--out", out[0], "--out", out[1]]) == 1
    assert (
        f"--out {out[1]}: expected a name that ends in .csv or .parquet" in capsys.readouterr().err
    )
    assert not (tmp_path / "t.csv").exists()


def test_an_item_without_objects_is_told_by_its_name(study: Study, tmp_path: Path, capsys) -> None:
    words = ["measure", "c", "--studies", str(study.root), "--objects", "instance"]
    assert main([*words, "--out", str(tmp_path / "t.csv")]) == 1
    assert "item c has no instance label" in capsys.readouterr().err
    assert not (tmp_path / "t.csv").exists()


def test_an_item_without_objects_stops_none_of_the_others(
    study: Study, tmp_path: Path, capsys
) -> None:
    words = ["measure", "--studies", str(study.root), "--objects", "instance"]
    assert main([*words, "--out", str(tmp_path / "t.csv")]) == 0
    out, told = capsys.readouterr()
    assert "objects of 2 items" in out
    assert "left out" in told and "item c has no instance label" in told
    with (tmp_path / "t.csv").open() as file:
        assert {row["item"] for row in csv.DictReader(file)} == {"a", "b"}


def test_objects_that_only_one_item_has_are_measured_there(
    study: Study, tmp_path: Path, capsys
) -> None:
    item = study.item("b")
    ids = item.read_instances()
    own = 77
    file = item.label_path("instance")
    data = np.where(ids == 9, own, np.maximum(ids, 0)).astype(np.uint32)
    nibabel.save(nibabel.Nifti1Image(data, item.affine), file)
    table = str(tmp_path / "t.csv")
    words = ["measure", "a", "b", "--studies", str(study.root), "--objects", "instance"]
    assert main([*words, "--out", table, "--only", str(own)]) == 0
    out, told = capsys.readouterr()
    assert "1 objects of 1 items" in out
    assert f"left out: item a has none of --only {own}" in told
    lines = tmp_path / "lines"
    words += ["--out", table, "--skeletons", str(lines), "--only", str(own)]
    assert main([*words, "4711"]) == 1
    assert "--only 4711: no such object in any of 2 items" in capsys.readouterr().err
    assert not lines.exists(), "refused before anything is written"
    assert main([*words, "9"]) == 0
    assert (lines / "a" / "9.swc").exists() and (lines / "b" / f"{own}.swc").exists()


def test_skeletons_and_meshes_of_each_item_lie_in_a_folder_of_its_own(
    study: Study, tmp_path: Path, capsys
) -> None:
    words = ["measure", "a", "b", "--studies", str(study.root), "--objects", "instance"]
    words += ["--out", str(tmp_path / "t.csv"), "--only", "9"]
    words += ["--skeletons", str(tmp_path / "lines"), "--meshes", str(tmp_path / "hulls")]
    assert main(words) == 0
    for folder, name in (("lines", "9.swc"), ("hulls", "9.ply")):
        found = sorted(p.relative_to(tmp_path / folder) for p in (tmp_path / folder).rglob("*.*"))
        assert found == [Path("a") / name, Path("b") / name]
    told = capsys.readouterr().out
    assert f"{tmp_path / 'lines' / 'a'}: 1 skeletons" in told
    assert f"{tmp_path / 'hulls' / 'b'}: 1 meshes" in told
