"""Corrected objects are state: accepted by a submission or a request, and what a click meets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests

from lib.labels.hierarchy import load_hierarchy
from tests.conftest import Server, run_server
from tests.contract.conftest import SLICER, voxels, write_nifti
from tests.contract.proofreading_cases import (
    ITEM,
    SHAPE,
    click,
    columns,
    inside,
    proofed,
    submit,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of their own: objects that other tests found would be in the queue."""
    yield from run_server(tmp_path_factory)


@pytest.fixture
def item(server) -> Iterator[Path]:
    with proofed(server) as path:
        yield path


def test_a_submitted_object_is_accepted_and_nothing_else(server, client, item, tmp_path):
    drawn = np.zeros(SHAPE, bool)
    drawn[5:20, 10:40, 4:12] = True
    told = submit(client, tmp_path, drawn, item, ["axon 2"])
    assert told["accepted"] == ["axon 2"]
    assert told["done"] == {"objects": 6, "accepted": 1}, "five, and the rest of the second"
    mask, told = click(client, [10, 20, 8])
    np.testing.assert_array_equal(mask, drawn), "IoU 1, at the first click"
    assert told["windows"] == 0
    stored = voxels(server.studies / "labels" / "instance_predicted" / f"{ITEM}.nii.gz")
    np.testing.assert_array_equal(stored, columns()), "what the machine said stays"


def test_later_answers_go_round_an_accepted_object(server, client, item, tmp_path):
    drawn = np.zeros(SHAPE, bool)
    drawn[2:6, 4:60, 2:14] = True
    submit(client, tmp_path, drawn, item, ["axon 9"])
    mask, _ = click(client, [10, 30, 8])
    assert mask[10, 30, 8]
    assert not (mask & drawn).any()
    whole, _ = click(client, [10, 30, 8], [4, 30, 8], over="all")
    assert whole[4, 30, 8]


def test_merge_split_delete_undo_and_redo_through_the_server(client, item):
    ids = columns()
    mask, told = click(client, inside(1), inside(2), do="merge")
    np.testing.assert_array_equal(mask, np.isin(ids, (1, 2)))
    assert told["edit"]["op"] == "merge"
    mask, _ = click(client, inside(2))
    np.testing.assert_array_equal(mask, np.isin(ids, (1, 2))), "a merge holds at the next click"
    click(client, inside(3), do="delete")
    mask, told = click(client, do="undo")
    np.testing.assert_array_equal(mask, ids == 3)
    assert told["undo"] == "delete of object 3"
    _, told = click(client, do="undo")
    assert told["undo"].startswith("merge")
    _, told = click(client, do="undo")
    assert told["undo"] == "nothing"
    _, told = click(client, do="redo")
    assert told["redo"].startswith("merge")
    mask, _ = click(client, inside(1))
    np.testing.assert_array_equal(mask, np.isin(ids, (1, 2)))
    _, told = click(client, inside(4), do="name", label="dendrite 4")
    assert told["edit"]["name"] == "dendrite 4"


def test_accepting_is_one_request(client, item):
    """As in OHIF: no name, an option of its panel."""
    mask, told = click(client, inside(4), do="accept")
    assert told["edit"]["object"] == 4
    assert told["done"]["accepted"] == 1
    again, _ = click(client, inside(4))
    np.testing.assert_array_equal(again, mask)
    _, told = click(client, inside(4), do="accept", label="axon")
    assert told["edit"]["name"] == "axon 4"
    _, told = click(client, inside(3), do="accept", label="axon 17")
    assert (told["edit"]["object"], told["edit"]["name"]) == (17, "axon 17")


def test_what_a_request_accepts_is_known_and_what_is_undone_is_not(server, client, item):
    """OHIF submits nothing: training has to learn of it all the same."""

    def labels(tag: str) -> np.ndarray:
        return voxels(server.studies / "labels" / tag / f"{ITEM}.nii.gz")

    mask, told = click(client, inside(4), do="accept", label="axon 4")
    assert told["labelled"] is True
    np.testing.assert_array_equal(labels("instance") == 4, mask)
    axon = load_hierarchy().class_names.index("axon") + 1
    np.testing.assert_array_equal(labels("final") == axon, mask)
    np.testing.assert_array_equal(np.isin(labels("final"), (0, 255)), ~mask)
    other, _ = click(client, inside(3), do="accept")
    np.testing.assert_array_equal(labels("instance") == 4, mask)
    np.testing.assert_array_equal(labels("instance") == 3, other)
    click(client, do="undo")
    _, told = click(client, do="undo")
    assert told["undo"] == "accept of axon 4" and told["labelled"] is False
    assert not np.isin(labels("instance"), (3, 4)).any()
    assert np.isin(labels("final"), (0, 255)).all()
    click(client, do="redo")
    np.testing.assert_array_equal(labels("instance") == 4, mask)
    np.testing.assert_array_equal(labels("final") == axon, mask)


def test_a_cut_holds_at_the_next_click_of_the_same_client(server, item, tmp_path):
    from monailabel.client import MONAILabelClient

    ann = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="ann")
    one, _ = click(ann, [4, 30, 8], label="axon 1", background=[[9, 30, 8]])
    other, _ = click(ann, [9, 30, 8], label="axon 2")
    assert one[4, 30, 8]
    assert other[9, 30, 8]
    click(ann, [4, 30, 8], label="axon 1", background=[[9, 30, 8]], do="split")
    bob = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="bob")
    kept, _ = click(bob, [4, 30, 8])
    np.testing.assert_array_equal(kept, one & (columns() == 1))


def test_points_of_several_objects_at_once(client, item):
    asked = {"axon 1": [inside(1)], "axon 3": [inside(3)], "mitochondria 5": [inside(5)]}
    file, told = client.infer("proofread", ITEM, {**SLICER, "objects": asked})
    labels = nrrd.read(file)[0]
    assert told["label_names"] == {"axon 1": 1, "axon 3": 2, "mitochondria 5": 3}
    for n, points in enumerate(asked.values(), 1):
        assert labels[tuple(points[0])] == n


def test_the_answer_can_be_the_box_alone(client, item):
    whole, _ = click(client, inside(2), do="accept")
    asked = {**SLICER, "foreground": [inside(2)], "reply": "box"}
    file, told = client.infer("proofread", ITEM, asked)
    mask, header = nrrd.read(file)
    x, y, z = np.array(told["box"]).reshape(3, 2)
    assert mask.shape == (x[1] - x[0], y[1] - y[0], z[1] - z[0])
    np.testing.assert_array_equal(mask, whole[slice(*x), slice(*y), slice(*z)])
    affine = nib.load(item).affine
    corner = np.diag([-1, -1, 1, 1]) @ affine @ np.array([x[0], y[0], z[0], 1])
    np.testing.assert_allclose(header["space origin"], corner[:3], atol=1e-4)


def test_the_box_of_an_answer_that_stands_nowhere_yet_is_its_own(client, item):
    """And not that of what was looked at for it."""
    file, told = client.infer(
        "proofread", ITEM, {**SLICER, "foreground": [inside(3)], "reply": "box"}
    )
    mask = nrrd.read(file)[0] > 0
    x, y, z = np.array(told["box"]).reshape(3, 2)
    assert mask.shape == (x[1] - x[0], y[1] - y[0], z[1] - z[0])
    for axis in range(3):
        ends = np.moveaxis(mask, axis, 0)[[0, -1]]
        assert ends.any((1, 2)).all(), axis


def test_strokes_as_slicer_sends_them(client, item, tmp_path):
    painted = np.zeros(SHAPE, np.uint8)
    painted[4:10, 8:56, 7:9] = 2
    painted[28:34, 8:56, 7:9] = 3
    path = write_nifti(tmp_path / "strokes.nii.gz", painted, item)
    names = ["axon 1", "foreground_scribbles", "background_scribbles"]
    asked = {
        **SLICER, "roi": [], "selected_label_name": "axon 1",
        "label_info": [{"name": name, "id": n} for n, name in enumerate(names, 1)],
    }  # fmt: skip
    file, told = client.infer("strokes", ITEM, asked, label_in=str(path))
    mask = nrrd.read(file)[0]
    assert told["label_names"] == {"axon 1": 1}
    assert mask[6, 30, 8] and not mask[30, 30, 8]
    answer = client.info()["models"]["strokes"]
    assert answer["type"] == "scribbles"


def test_a_box_around_an_object_means_it(client, item):
    ids = columns()
    file, _ = client.infer("proofread", ITEM, {**SLICER, "roi": [24, 37, 0, 63, 0, 15]})
    mask = nrrd.read(file)[0] != 0
    assert mask[30, 30, 8]
    assert not mask[np.isin(ids, (1, 2, 4, 5))].any()


def test_a_stroke_of_many_points_is_a_few(client, item):
    many = [[6, y, z] for y in range(8, 56) for z in range(3, 13)]
    mask, told = click(client, *many)
    assert mask[6, 30, 8]
    assert "stand for" in " ".join(told["warnings"])


def test_a_name_that_is_nearly_a_class_is_told_at_the_click(client, item):
    _, told = click(client, [6, 30, 8], label="axons")
    slip = "'axons' is one object of unknown class; was 'axon' meant?"
    assert slip in told["warnings"]
    assert not any(
        "unknown class" in w for w in click(client, [6, 30, 8], label="axon 1")[1]["warnings"]
    )


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"do": "eat"}, "do"),
        ({"do": "merge", "foreground": [[6, 30, 8]]}, "two objects"),
        ({"do": "delete", "foreground": [[0, 0, 0]]}, "no object"),
        ({"do": "name", "foreground": [[6, 30, 8]]}, "label"),
        ({"do": "split", "foreground": [[0, 0, 0]]}, "no object"),
        ({"over": "most"}, "over"),
        ({"objects": {}}, "objects"),
        ({"objects": {"axon 1": [[6, 30, 8]]}, "do": "accept"}, "one object at a time"),
        ({"objects": {"axon 1": []}}, "axon 1"),
    ],
)
def test_edits_that_say_nothing(server, item, params, word):
    answer = requests.post(
        f"{server.url}/infer/proofread", params={"image": ITEM},
        data={"params": json.dumps(params)}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["detail"]


def test_the_queue_proposes_joins_and_not_what_is_accepted(server, client, item):
    found = server.studies / "labels" / "instance_predicted" / f"{ITEM}.nii.gz"
    touching = np.zeros(SHAPE, np.uint32)
    touching[:30, 8:40], touching[30:, 8:40] = 1, 2
    write_nifti(found, touching, item)
    client.infer("proofread", ITEM, {**SLICER, "foreground": [[5, 20, 8]], "do": "name",
                                     "label": "axon 1"})  # fmt: skip
    sample = client.next_sample("doubtful", {})
    region = sample["region"]
    assert sample["id"] == ITEM
    assert {region["object"], region["other"]} == {1, 2}
    assert "may be one object" in region["reason"]
    low, high = np.array(region["roi"]).reshape(3, 2).T
    assert (low <= region["place"]).all() and (region["place"] < high).all()
    assert sample["PatientID"].startswith(f"{ITEM}: proofread")
    click(client, [50, 20, 8], do="accept", label="axon 2")
    answer = requests.post(f"{server.url}/activelearning/doubtful", json={}, timeout=60)
    assert answer.status_code == 400
    assert "no join is in doubt" in answer.json()["detail"] or "handed out" in answer.text
