"""The server tells what it has and segments, in the forms that viewers ask for."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests

from lib.labels.hierarchy import load_hierarchy
from lib.labels.segment_names import parse_segment_name
from tests.contract.conftest import OHIF, SLICER, voxels

ITEM = "synthetic-000"
SHAPE = (64, 64, 16)


def test_info_tells_viewers_what_they_need(server, client):
    info = client.info()
    assert info["name"] == "Neuropil"
    assert info["labels"][:2] == ["extracellular space", "tear"]
    assert {"organelle", "uncertain"} <= set(info["labels"])
    types = {name: model["type"] for name, model in info["models"].items()}
    assert types == {
        "segmentation": "segmentation",
        "instances": "segmentation",
        "proofread": "deepgrow",
        "proofread_classes": "deepedit",
        "strokes": "scribbles",
        "current": "segmentation",
    }
    for model in info["models"].values():
        values = sorted(model["labels"].values())
        assert values == list(range(1, len(values) + 1)), "values run 1..N without gaps"
    assert info["models"]["segmentation"]["config"]["level"][0] == "object"
    assert "combined" in info["trainers"]
    assert {"random", "uncertainty", "hierarchy", "diverse"} <= set(info["strategies"])
    assert info["datastore"]["total"] == 3


@pytest.mark.parametrize("level", ["object", "fine", "coarse", "fallback"])
def test_segmentation_at_each_level(server, client, level: str):
    file, params = client.infer("segmentation", ITEM, {**SLICER, "level": level})
    labels, header = nrrd.read(file)
    names = {value: name for name, value in params["label_names"].items()}
    assert labels.shape == SHAPE
    assert labels.dtype == np.uint8
    found = {names[int(v)] for v in np.unique(labels)}
    hierarchy = load_hierarchy()
    classes, groups = set(hierarchy.class_names), set(hierarchy.group_names)
    allowed = {"fine": classes, "coarse": groups}.get(level, classes | groups)
    assert found <= allowed, "every voxel has a value with a name of that level"
    np.testing.assert_allclose(np.diag(header["space directions"]), [-8, -8, 40])


def test_at_the_level_of_objects_each_cell_has_one_class(server, client):
    file, _ = client.infer("instances", ITEM, {**SLICER, "result_dtype": "uint32"})
    cells, _ = nrrd.read(file)
    file, params = client.infer("segmentation", ITEM, SLICER)  # the level that viewers start with
    classes, _ = nrrd.read(file)
    hierarchy = load_hierarchy()
    aside = {c.name for c in hierarchy.classes if c.inside or c.name.startswith("myelin")}
    aside |= {"organelle", "myelin_related"}
    inside = [value for name, value in params["label_names"].items() if name in aside]
    counted = (cells > 0) & ~np.isin(classes, inside)
    assert counted.any()
    pairs = np.unique(np.stack([cells[counted], classes[counted]]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_a_reply_says_what_voxels_the_network_saw(server, client, tmp_path: Path):
    _, params = client.infer("segmentation", ITEM, {})
    assert params["network_voxel_size_nm"] == [8.0, 8.0, 40.0]
    assert params["binned"] == params["split"] == [1, 1, 1]
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 16), dtype=np.uint8)
    seen = {2.0: (10.0, 5, 1), 20.0: (10.0, 1, 2)}
    for nm, (network, binned, split) in seen.items():
        path = tmp_path / "other.nii"  # 1 nm is 1 mm in files
        nib.save(nib.Nifti1Image(image, np.diag([nm, nm, nm, 1.0])), path)
        file, params = client.infer("segmentation", "", {}, file=str(path))
        assert params["network_voxel_size_nm"] == [network] * 3
        assert params["binned"] == [binned] * 3 and params["split"] == [split] * 3
        assert voxels(file).shape == image.shape


@pytest.mark.parametrize("model", ["segmentation", "proofread_classes"])
def test_a_segmentation_has_named_segments_with_colors_of_their_own(server, client, model: str):
    file, params = client.infer(model, ITEM, {**SLICER, "result_extension": ".seg.nrrd"})
    labels, header = nrrd.read(file)
    told = {
        header[f"Segment{n}_Name"]: (
            int(header[f"Segment{n}_LabelValue"]),
            header[f"Segment{n}_Color"],
        )
        for n in range(len(params["label_names"]))
    }
    assert {name: value for name, (value, _) in told.items()} == params["label_names"]
    assert len({color for _, color in told.values()}) == len(told)
    assert set(np.unique(labels)) <= set(params["label_names"].values())


def test_answers_lie_on_the_images_own_grid(server, client):
    file, _ = client.infer("segmentation", ITEM, {})
    image: Any = nib.load(server.studies / f"{ITEM}.nii")
    answer: Any = nib.load(file)
    np.testing.assert_allclose(answer.affine, image.affine)
    assert answer.shape == image.shape


def test_instances_for_each_kind_of_viewer(server, client):
    file, params = client.infer("instances", ITEM, {**OHIF})
    shown, header = nrrd.read(file)
    assert header["encoding"] == "raw"
    count = params["objects"]
    stored = voxels(server.studies / "labels" / params["stored_as"] / f"{ITEM}.nii.gz")
    assert stored.dtype == np.uint32
    assert len(np.unique(stored[stored > 0])) == count
    if "limit" not in params:
        np.testing.assert_array_equal(shown, stored)
    assert shown.dtype == np.uint8
    file, params = client.infer("instances", ITEM, {**SLICER, "show": "segments"})
    assert str(file).endswith(".seg.nrrd")
    labels, header = nrrd.read(file)
    for name, value in params["label_names"].items():
        fields = {header[f"Segment{value - 1}_{key}"] for key in ("Name", "ID")}
        assert fields == {name}
        assert header[f"Segment{value - 1}_LabelValue"] == str(value)
        assert parse_segment_name(name, load_hierarchy()).kind == "object"
        assert (labels == value).any()
    colors = [header[f"Segment{n}_Color"] for n in range(len(params["label_names"]))]
    assert all(len(color.split()) == 3 for color in colors)


def test_an_upload_and_a_session_are_segmented_too(server, client):
    source = str(server.studies / f"{ITEM}.nii")
    expected, _ = nrrd.read(client.infer("segmentation", ITEM, {**SLICER})[0])
    session = client.create_session(source)["session_id"]
    for answer in (
        client.infer("segmentation", "", {**SLICER}, file=source),
        client.infer("segmentation", "", {**SLICER}, session_id=session),
    ):
        np.testing.assert_array_equal(nrrd.read(answer[0])[0], expected)
    client.remove_session(session)
    assert not list((server.app / "sessions").glob(session))


def test_ohif_gets_raw_bytes_in_the_images_order(server):
    answer = requests.post(
        f"{server.url}/infer/segmentation?image={ITEM}&output=image",
        data={"params": json.dumps(OHIF)},
        timeout=120,
    )
    header = nrrd.read_header(io.BytesIO(answer.content))
    raw = answer.content[-int(np.prod(SHAPE)) :]
    assert header["encoding"] == "raw"
    assert tuple(header["sizes"]) == SHAPE
    values = np.frombuffer(raw, np.uint8).reshape(SHAPE, order="F")
    assert values.min() >= 1


def test_a_saved_prediction_is_the_original_label(server, client):
    client.infer("segmentation", ITEM, {**SLICER, "save_label": True})
    info = requests.get(
        f"{server.url}/datastore/label/info?label={ITEM}&tag=original", timeout=20
    ).json()
    assert isinstance(info["params"]["label_names"], dict)
    assert (server.studies / "labels" / "original" / f"{ITEM}.nrrd").exists()


def test_item_info_holds_the_record(server):
    info = requests.get(f"{server.url}/datastore/image/info?image={ITEM}", timeout=20).json()
    assert info["voxel_size_nm"] == [8.0, 8.0, 40.0]
    assert info["fully_annotated"] is True
    assert abs(sum(info["known_share"].values()) - 1) < 1e-6


def test_weights_can_be_fetched_and_are_replaced_only_by_weights(server):
    before = server.weights.read_bytes()
    fetched = requests.get(f"{server.url}/model/segmentation", timeout=60)
    assert fetched.content == before
    for bad in (b"", b"no weights", before[: len(before) // 2]):
        answer = requests.put(
            f"{server.url}/model/segmentation", files={"file": ("w.pt", bad)}, timeout=60
        )
        assert answer.status_code == 400, answer.text
        assert server.weights.read_bytes() == before
    good = requests.put(
        f"{server.url}/model/segmentation", files={"file": ("w.pt", before)}, timeout=60
    )
    assert good.status_code == 200
    assert server.weights.read_bytes() == before


def test_organelles_and_the_cells_they_lie_in(server, client):
    asked = {**OHIF, "result_dtype": "uint16"}
    file, _ = client.infer("instances", ITEM, asked)
    cells = nrrd.read(file)[0]
    file, alone = client.infer("instances", ITEM, {**asked, "level": "organelles"})
    organelles = nrrd.read(file)[0]
    file, params = client.infer("instances", ITEM, {**asked, "level": "both"})
    both, table = nrrd.read(file)[0], params["organelles"]
    assert len(table) == len(alone["organelles"]) == organelles.max()
    inside = organelles > 0
    assert np.array_equal(both[~inside], cells[~inside])
    first = int(cells.max())
    assert np.array_equal(both[inside], organelles[inside] + first)
    for row in table:
        mine = both == row["id"]
        assert mine.sum() == row["voxels"] and row["class"] in load_hierarchy().class_names
        assert np.bincount(cells[mine]).argmax() == row["cell"]
