"""What annotators send is kept, and becomes canonical labels by the names of its segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from lib.labels.hierarchy import load_hierarchy
from tests.contract.conftest import voxels, write_nifti

ITEM = "annotated"
SHAPE = (64, 64, 16)
UNKNOWN_ID = 2**32 - 1
HIERARCHY = load_hierarchy()
AXON = HIERARCHY.class_names.index("axon") + 1
MITO = HIERARCHY.class_names.index("mitochondria") + 1
ORGANELLE = HIERARCHY.group_names.index("organelle") + 101


@pytest.fixture
def item(server) -> Path:
    """An image without labels, uploaded as Slicer uploads one."""
    source = server.studies / "synthetic-000.nii"
    with source.open("rb") as file:
        answer = requests.put(
            f"{server.url}/datastore/image", params={"image": ITEM},
            files={"file": ("annotated.nii", file)}, timeout=60,
        )  # fmt: skip
    assert answer.json() == {"image": ITEM}
    yield server.studies / f"{ITEM}.nii"
    requests.delete(f"{server.url}/datastore/image", params={"id": ITEM}, timeout=60)
    assert not (server.studies / f"{ITEM}.nii").exists()


def _boxes(*values: int) -> NDArray[np.uint8]:
    """A map with one box of 8 columns for each value, empty in between."""
    labels = np.zeros(SHAPE, np.uint8)
    for n, value in enumerate(values):
        labels[10 * n : 10 * n + 8, :, 4:12] = value
    return labels


def _label(server, tag: str) -> NDArray[Any]:
    return voxels(server.studies / "labels" / tag / f"{ITEM}.nii.gz")


def _submit(client, tmp_path: Path, labels: NDArray[Any], like: Path, names, **more) -> dict:
    """As Slicer does it: values by order, `idx` counting skipped segments."""
    info = [{"name": name, "idx": 2 * n} for n, name in enumerate(names, 1)]
    file = write_nifti(tmp_path / "label.nii.gz", labels, like)
    return client.save_label(ITEM, str(file), "", {"label_info": info, **more})


def test_labels_follow_names_not_values(server, client, item, tmp_path):
    labels = _boxes(1, 2, 3, 4)
    names = ["mitochondria", "axon 7", "organelle", "uncertain"]
    answer = _submit(client, tmp_path, labels, item, names)
    final, instance = _label(server, "final"), _label(server, "instance")
    assert set(np.unique(final[labels == 1])) == {MITO}
    assert set(np.unique(final[labels == 2])) == {AXON}
    assert set(np.unique(final[labels == 3])) == {ORGANELLE}
    assert set(np.unique(final[labels == 4])) <= {0, 255}
    assert set(np.unique(final[labels == 0])) == {0}, "what nobody painted is unknown"
    assert set(np.unique(instance[labels == 2])) == {7}
    assert set(np.unique(instance[labels == 0])) == {UNKNOWN_ID}
    assert 0 < answer["known_share"]["axon"] < 1
    info = requests.get(
        f"{server.url}/datastore/image/info", params={"image": ITEM}, timeout=20
    ).json()
    assert info["known_share"]["unknown"] == pytest.approx(np.isin(labels, (0, 4)).mean(), abs=1e-6)
    raw = voxels(server.studies / "labels" / "submitted" / f"{ITEM}.nii.gz")
    np.testing.assert_array_equal(raw, labels)


def test_segments_that_annotators_added_renamed_and_left_empty(server, client, item, tmp_path):
    labels = _boxes(1, 0, 3, 4)
    names = ["My Favourite", "soma", "Mitochondria_5", "axon"]
    answer = _submit(client, tmp_path, labels, item, names)
    final, instance = _label(server, "final"), _label(server, "instance")
    record = json.loads((server.studies / f"{ITEM}.neuropil.json").read_text())
    (code,) = np.unique(final[labels == 1])
    objects = [HIERARCHY.class_names[i] for i in HIERARCHY.members(HIERARCHY.object_set)]
    assert sorted(record["class_sets"][str(code)]) == sorted(objects), "of unknown class"
    (own,) = np.unique(instance[labels == 1])
    assert own not in (0, 5, UNKNOWN_ID)
    assert set(np.unique(final[labels == 3])) == {MITO}
    assert set(np.unique(instance[labels == 3])) == {5}
    assert set(np.unique(final[labels == 4])) == {AXON}
    assert "without voxels: soma" in answer["notes"]


def test_every_version_is_kept(server, client, item, tmp_path):
    first, second = _boxes(1), _boxes(0, 1)
    _submit(client, tmp_path, first, item, ["axon"])
    _submit(client, tmp_path, second, item, ["mitochondria"])
    kept = sorted((server.studies / "labels" / "submitted" / "versions" / ITEM).glob("0*.nii.gz"))
    assert len(kept) == 2
    np.testing.assert_array_equal(voxels(kept[0]), first)
    final = _label(server, "final")
    assert set(np.unique(final)) == {0, MITO}, "a submission says all there is to know"


def test_fully_annotated_region_and_merge(server, client, item, tmp_path):
    labels = _boxes(1)
    _submit(client, tmp_path, labels, item, ["axon"])
    _submit(
        client, tmp_path, _boxes(0, 0, 1), item, ["mitochondria"],
        roi=[40, 0, 0, 63, 0, 15], mode="merge",
    )  # fmt: skip
    final = _label(server, "final")
    assert set(np.unique(final[labels == 1])) == {AXON}, "merged, so the first stays"
    assert (final == MITO).sum() == 8 * 64 * 8
    _submit(client, tmp_path, labels, item, ["axon"], fully_annotated=True)
    record = json.loads((server.studies / f"{ITEM}.neuropil.json").read_text())
    assert record["fully_annotated"] is True
    codes = set(np.unique(_label(server, "final")[labels == 0]))
    assert codes.isdisjoint({0, AXON}), "known to be anything but an axon"


def test_overlapping_segments_of_seg_nrrd(server, client, item, tmp_path):
    """Two layers: where a mitochondrion lies inside an axon, the organelle is what is there."""
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, :32] = 1
    layers[1, 8:16] = 1
    header = {
        "space": "left-posterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": [[np.nan] * 3, [-8, 0, 0], [0, -8, 0], [0, 0, 40]],
        "space origin": [0, 0, 0],
        "encoding": "gzip",
    }
    for n, name in enumerate(("axon 3", "mitochondria 5")):
        header |= {
            f"Segment{n}_ID": name,
            f"Segment{n}_Name": name,
            f"Segment{n}_Layer": str(n),
            f"Segment{n}_LabelValue": "1",
        }
    path = tmp_path / "label.seg.nrrd"
    nrrd.write(str(path), layers, header, index_order="F")
    client.save_label(ITEM, str(path), "", {"label_info": [{"name": "axon 3", "idx": 1}]})
    final, instance = _label(server, "final"), _label(server, "instance")
    assert set(np.unique(final[20:32])) == {AXON}
    assert set(np.unique(final[8:16])) == {MITO}
    assert set(np.unique(instance[8:16])) == {5}
    assert set(np.unique(instance[20:32])) == {3}


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"label_info": "axon"}, "label_info"),
        ({"label_info": [{"idx": 1}]}, "name"),
        ({"label_info": []}, "label"),
        ({"label_info": [{"name": "axon", "idx": 1}], "mode": "mix"}, "mode"),
        ({"label_info": [{"name": "axon", "idx": 1}], "roi": [1, 2, 3]}, "roi"),
        ({"label_info": [{"name": "axon", "idx": 1}], "fully_annotated": "yes"}, "true or false"),
        ({"label_info": [{"name": "axon", "idx": 1}], "fully_anotated": True}, "fully_annotated"),
    ],
)
def test_submissions_that_explain_nothing(server, item, tmp_path, params, word: str):
    file = write_nifti(tmp_path / "label.nii.gz", _boxes(1), item)
    answer = requests.put(
        f"{server.url}/datastore/label", params={"image": ITEM},
        files={"label": ("label.nii.gz", file.read_bytes())},
        data={"params": json.dumps(params)}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["detail"]
    assert not (server.studies / "labels" / "final" / f"{ITEM}.nii.gz").exists()


def test_a_parameter_of_a_submission_that_nobody_knows_is_told(client, item, tmp_path):
    answer = _submit(client, tmp_path, _boxes(1), item, ["axon"], bogus=1)
    assert any("not used here: 'bogus'" in note for note in answer["notes"])


def test_a_label_of_another_shape_is_refused(server, item, tmp_path):
    file = write_nifti(tmp_path / "label.nii.gz", np.ones((64, 64, 15), np.uint8), item)
    answer = requests.put(
        f"{server.url}/datastore/label", params={"image": ITEM},
        files={"label": ("label.nii.gz", file.read_bytes())},
        data={"params": json.dumps({"label_info": [{"name": "axon", "idx": 1}]})}, timeout=60,
    )  # fmt: skip
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:  # it lies on the image's grid, one section short
        assert _label(server, "final").shape == SHAPE


def test_the_datastore_lists_what_was_derived(server, client, item, tmp_path):
    before = client.info()["datastore"]["label_tags"]
    _submit(client, tmp_path, _boxes(1), item, ["axon"])
    after = client.info()["datastore"]["label_tags"]
    for tag in ("final", "instance", "submitted"):
        assert after[tag] == before.get(tag, 0) + 1
    downloaded = client.download_label(ITEM, "final")
    np.testing.assert_array_equal(voxels(downloaded), _label(server, "final"))


def test_a_label_of_another_shape_is_told_whatever_its_tag(server, client, tmp_path, item):
    small = _boxes(1)[:40]
    for tag in ("", "mine"):
        file = write_nifti(tmp_path / "label.nii.gz", small, item)
        params = {"label_info": [{"name": "axon", "idx": 1}]}
        notes = client.save_label(ITEM, str(file), tag, params)["notes"]
        assert any("the label has 40 x 64 x 16 voxels, the image 64 x 64 x 16" in n for n in notes)
