"""The reply says what it answers, whose it is, and what was not done; names are what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nrrd
import numpy as np
import pytest
import requests

from tests.contract.conftest import SLICER, write_nifti
from tests.contract.proofreading_cases import ITEM, SHAPE, click, inside, proofed, submit


@pytest.fixture
def item(server) -> Iterator[Path]:
    with proofed(server) as path:
        yield path


def refused(server, model="proofread", **params) -> str:
    answer = requests.post(
        f"{server.url}/infer/{model}", params={"image": ITEM},
        data={"params": json.dumps(params)}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 400, answer.text
    return answer.json()["detail"]


def words(told) -> str:
    return " ".join(told["warnings"])


def test_the_answer_is_named_and_how_to_get_the_other(client, item):
    _, told = click(client, inside(2))
    answer = told["answered"]
    assert (answer["kind"], answer["object"], answer["accepted"]) == ("cell", 2, False)
    assert "kind=organelle" in answer["words"] and "mitochondria" in answer["words"]
    _, told = click(client, inside(2), do="accept", label="axon 2")
    assert told["answered"]["words"].startswith("a cell: axon, object 2 (axon 2), accepted.")
    _, told = click(client, inside(4), do="accept", label="mitochondria 4")
    answer = told["answered"]
    assert (answer["kind"], answer["class"], answer["object"]) == ("organelle", "mitochondria", 4)
    assert "kind=cell" in answer["words"]


def test_a_segment_s_name_says_which_kind_is_meant(client, item):
    """Nothing here is an organelle to an untrained network, or all of it is: names decide."""
    _, told = click(client, inside(3), label="neuron_part 3", kind="organelle")
    assert told["answered"]["kind"] == "cell"
    assert "'neuron_part 3' is a cell, so kind=organelle was not followed" in words(told)
    _, told = click(client, inside(3), label="organelle 3")
    assert told["answered"]["kind"] == "organelle" or "no organelle is seen" in words(told)
    asked = {"axon 1": [inside(1)], "mitochondria 5": [inside(5)]}
    _, told = client.infer("proofread", ITEM, {**SLICER, "objects": asked})
    assert told["answered"]["axon 1"]["object"] == 1
    assert told["answered"]["mitochondria 5"][
        "kind"
    ] == "organelle" or "mitochondria 5: no organelle is seen" in words(told)


def test_an_accepted_object_is_not_covered_under_another_name(server, client, item):
    first, _ = click(client, inside(4), do="accept", label="axon 4")
    again, told = click(client, inside(4), label="dendrite 9")
    np.testing.assert_array_equal(again, first)
    assert "the points lie in 'axon 4', which is accepted, and not in 'dendrite 9'" in words(told)
    detail = refused(server, foreground=[inside(4)], do="accept", label="dendrite 9")
    assert "voxels of accepted objects (axon 4) were left to them" in detail
    np.testing.assert_array_equal(click(client, inside(4), label="axon")[0], first)
    _, told = click(client, inside(4), do="accept", label="dendrite 9", over="all")
    assert told["edit"]["name"] == "dendrite 9"
    assert f"{first.sum()} voxels of accepted objects (axon 4) were taken from them" in words(told)


def test_a_merge_and_a_split_bear_names(client, item):
    _, told = click(client, inside(1), inside(2), do="merge", label="axon 12")
    assert (told["edit"]["object"], told["edit"]["name"]) == (1, "axon 12")
    _, told = click(client, inside(4), inside(1), do="merge")
    assert told["edit"]["name"] == "axon 12", "a name is not lost where another has none"
    accepted, told = click(client, inside(3), do="accept", label="axon")
    assert told["edit"]["name"] == "axon 3"
    _, told = click(client, inside(5), inside(3), do="merge", label="dendrite")
    assert told["edit"]["name"] == "dendrite 5"
    assert "axon 3 has changed and is accepted no more" in words(told)
    _, told = click(client, do="undo")
    assert told["done"]["accepted"] == 1
    part = {"background": [[33, 50, 8]], "label": "dendrite 8", "do": "split"}
    _, told = click(client, [27, 10, 8], **part)
    assert told["edit"]["name"] == "dendrite 8"
    mask, told = click(client, do="undo", label="dendrite 8")
    assert told["undo"].startswith("split")
    np.testing.assert_array_equal(mask, accepted)
    _, told = click(client, do="delete", label="axon 3")
    assert (told["edit"]["op"], told["edit"]["object"]) == ("delete", 3)
    assert any("axon 3 was accepted and is deleted; do=undo" in w for w in told["warnings"])


def test_a_name_that_another_object_bears_is_refused(server, client, item):
    click(client, inside(4), do="name", label="axon 12")
    for do in ("name", "split", "merge"):
        points = [inside(1), inside(2)] if do == "merge" else [inside(1)]
        detail = refused(server, foreground=points, do=do, label="Axon_12")
        assert f"do={do}: label: 'Axon_12' is object 4 already" in detail


def test_points_of_no_voxel_are_refused_with_the_extent(server, client, item):
    far = [[900, 30, 8], [30, 900, 8]]
    extent = "expected voxels [0, 0, 0] to [63, 63, 15] of the image as loaded"
    assert extent in refused(server, foreground=far)
    assert "objects.axon 2" in refused(server, objects={"axon 1": [inside(1)], "axon 2": far})
    detail = refused(server, "proofread_classes", axon=far)
    assert "axon" in detail and extent in detail
    assert "holds no voxel" in refused(server, roi=[100, 120, 0, 10, 0, 10])
    mask, told = click(client, inside(1), far[0])
    assert mask.any() and "1 positive point(s) outside the image were left out" in words(told)
    mask, told = click(client, inside(1), roi=[40, 60, 0, 60, 0, 10])
    assert not mask.any() and "nothing of the answer lies in the region" in words(told)
    mask, told = click(client, inside(1), inside(2), slice=3)
    assert not mask.any() and "slice=3: 2 points of others were left out" in words(told)


def test_what_was_clicked_is_a_person_s_under_another_name(client, item, tmp_path):
    """In the viewer the segment is renamed, or what is in it is moved into another one."""
    file, told = client.infer("segmentation", ITEM, dict(SLICER))
    shown, names = nrrd.read(file)[0], list(told["label_names"])
    mask, _ = click(client, inside(2), label="Segment_1")
    machine = names.index("axon") + 1
    sent = np.where(mask, machine, shown)
    told = submit(client, tmp_path, sent, item, names)
    assert told["touched_share"] == pytest.approx(mask.mean(), abs=1e-5)


def test_a_label_without_names_is_refused_without_a_path_of_the_server(server, item, tmp_path):
    file = write_nifti(tmp_path / "label.nii.gz", np.ones(SHAPE, np.uint8), item)
    with file.open("rb") as sent:
        answer = requests.put(
            f"{server.url}/datastore/label", params={"image": ITEM},
            files={"label": ("label.nii.gz", sent)}, data={"params": "{}"}, timeout=60,
        )  # fmt: skip
    assert answer.status_code == 400, answer.text
    detail = answer.json()["detail"]
    assert detail.startswith("submission 1: a label map without names of its segments")
    assert str(server.studies) not in detail and "label_info" in detail
