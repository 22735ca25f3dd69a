"""What to annotate next, as a viewer asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

from tests.conftest import Server, make_app, make_study, start_server

pytestmark = pytest.mark.contract

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
    finally:
        server.stop()
