"""What to annotate next, as a viewer asks for it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests

from lib.networks.digests import place_weights
from tests.conftest import Server, make_app, make_study, make_weights, run_server, start_server

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of their own: what other tests submitted would decide what is found here."""
    yield from run_server(tmp_path_factory)


STRATEGIES = ("random", "uncertainty", "hierarchy", "diverse")


def ask(server: Server, strategy: str, client: str = "tester") -> requests.Response:
    return requests.post(
        f"{server.url}/activelearning/{strategy}", json={"client_id": client}, timeout=120
    )


def score(server: Server, method: str) -> dict[str, Any]:
    answer = requests.post(
        f"{server.url}/scoring/{method}?run_sync=true", json={"device": "cpu"}, timeout=300
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_scores_then_regions_and_a_heat_map(server: Server, tmp_path: Path) -> None:
    score(server, "uncertainty")
    boxes = []
    for strategy in STRATEGIES:
        answer = ask(server, strategy)
        assert answer.status_code == 200, answer.text
        sample = answer.json()
        region = sample["region"]
        assert sample["id"] and sample["path"]
        assert region["strategy"] == strategy and region["reason"]
        assert "no item has scores" not in region["reason"]
        i0, i1, j0, j1, k0, k1 = region["roi"]
        i, j, k = region["centre"]
        assert i0 <= i < i1 and j0 <= j < j1 and k0 <= k < k1
        boxes.append((sample["id"], tuple(region["roi"])))
    assert len(set(boxes)) == len(boxes)

    assert sample["PatientID"].startswith(f"{sample['id']}: annotate i {i0}-{i1 - 1}, j {j0}-")
    assert region["reason"] in sample["PatientID"]
    named = requests.get(server.url + sample["heat_map"], timeout=60)
    assert f"{sample['id']}-uncertainty.nii.gz" in named.headers["Content-Disposition"]

    item = boxes[0][0]
    found = requests.get(
        f"{server.url}/datastore/label",
        params={"label": item, "tag": "heat-uncertainty"},
        timeout=60,
    )
    assert found.status_code == 200, found.text
    file = tmp_path / "heat.nii.gz"
    file.write_bytes(found.content)
    heat, image = nib.load(file), nib.load(server.studies / f"{item}.nii")
    assert heat.shape == image.shape and np.asarray(heat.dataobj).max() <= 100


def test_scores_of_earlier_weights_serve_and_say_so(server: Server) -> None:
    score(server, "uncertainty")
    before = server.weights.read_bytes()
    make_weights(server.app / "other.pt", server.app / "tiny.yaml", seed=1)
    other = (server.app / "other.pt").read_bytes()
    try:
        for content, stale in ((other, True), (before, False)):
            answer = requests.put(
                f"{server.url}/model/segmentation", files={"file": ("w.pt", content)}, timeout=60
            )
            assert answer.status_code == 200, answer.text
            requests.delete(f"{server.url}/scoring/", timeout=60)  # started by earlier samples
            reason = ask(server, "uncertainty").json()["region"]["reason"]
            assert ("the scores are of earlier weights" in reason) is stale
    finally:
        place_weights(server.weights, before)
        requests.delete(f"{server.url}/scoring/", timeout=60)


def test_the_automatic_label_is_compared_with_the_annotators(server: Server) -> None:
    item = "synthetic-000"
    asked = {"save_label": True, "result_extension": ".nrrd", "level": "fine"}  # no groups
    params = {"params": json.dumps(asked)}
    saved = requests.post(f"{server.url}/infer/segmentation?image={item}", data=params, timeout=120)
    assert saved.status_code == 200
    figures = score(server, "agreement")[item]["classes"]
    labels = {
        tag: requests.get(
            f"{server.url}/datastore/label", params={"label": item, "tag": tag}, timeout=60
        ).content
        for tag in ("original", "final")
    }
    guess, _ = nrrd.read(_file(server.app / "original.nrrd", labels["original"]))
    truth = np.asarray(nib.load(_file(server.app / "final.nii.gz", labels["final"])).dataobj)
    known = (truth >= 1) & (truth <= 12)
    assert figures["voxels"] == np.isin(truth, (0, 255), invert=True).sum()
    assert figures["accuracy"] == pytest.approx((guess == truth)[known].mean())
    info = requests.get(f"{server.url}/datastore/image/info?image={item}", timeout=20).json()
    assert info["agreement"]["classes"] == figures


def _file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_nothing_to_hand_out_is_said_in_a_sentence(tmp_path: Path) -> None:
    make_app(tmp_path / "app")
    studies = tmp_path / "studies"
    studies.mkdir()
    server = start_server(tmp_path / "app", studies)
    try:
        answer = ask(server, "uncertainty")
        assert answer.status_code == 400 and "no images" in answer.text
        make_study(studies, items=1)  # fully annotated
        answer = ask(server, "diverse")
        assert answer.status_code == 400 and "no unlabelled region is left" in answer.text
        shutil.rmtree(studies / "labels")
        status = {"running": True, "done": 0, "total": 1, "item": "", "at": time.time()}
        (studies / "scores" / "status.json").write_text(json.dumps(status))
        answer = ask(server, "diverse")
        assert answer.status_code == 200, answer.text
        assert "being scored, 0 of 1" in answer.json()["region"]["reason"]
    finally:
        server.stop()
