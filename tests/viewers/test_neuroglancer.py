"""Neuroglancer in a browser, opened from the server's page: what it draws, and what its keys do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
from PIL import Image

from lib.labels.hierarchy import load_hierarchy
from tests.conftest import Server
from tests.viewers.conftest import HERE, SHAPE
from tests.viewers.servers import Client

pytestmark = pytest.mark.viewers

ITEM = "piece-1"
PLACE = {"x": -165, "y": 40}
ELSEWHERE = {"x": 80, "y": 120}
PICTURE = (slice(200, 540), slice(350, 750))
"""Rows and columns of a screenshot that the image fills."""


def drive(chromium: str, address: str, shots: Path, *steps: dict[str, Any]) -> dict[str, Any]:
    """Open an address and press keys; what `neuroglancer.js` prints."""
    asked = {"executable": chromium, "address": address, "shots": str(shots), "steps": steps}
    done = subprocess.run(
        ["node", "neuroglancer.js", json.dumps(asked)],
        cwd=HERE, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told["faults"] and not told["strangers"], told
    return dict(told)


def drawn(path: Path) -> np.ndarray[Any, Any]:
    """(rows, columns, 3) of where the image is on a screenshot."""
    return np.asarray(Image.open(path).convert("RGB"), np.float32)[PICTURE]


def accepted(server: Server, folder: Path) -> np.ndarray[Any, Any]:
    """The accepted objects, as Slicer is shown them by `current`."""
    content, _ = Client(server.url).infer("current", ITEM, only="accepted", result_dtype="uint32")
    path = folder / "current.nrrd"
    path.write_bytes(content)
    ids: np.ndarray[Any, Any] = nrrd.read(str(path), index_order="F")[0]
    assert ids.shape == SHAPE
    return ids


@pytest.fixture(scope="module")
def opened(study_server: Server, chromium: str) -> str:
    """The address of a viewer on an item in which objects were found."""
    url = study_server.url
    answer = requests.post(f"{url}/infer/instances?image={ITEM}&output=json", timeout=600)
    assert answer.status_code == 200, answer.text
    page = requests.get(f"{url}/page/item?image={ITEM}", timeout=60).text
    assert f"/neuroglancer?image={ITEM}" in page
    answer = requests.get(f"{url}/neuroglancer", params={"image": ITEM}, allow_redirects=False)
    assert answer.status_code == 303
    return answer.headers["Location"]


def test_image_and_objects_are_drawn(opened: str, chromium: str, artifacts: Path) -> None:
    told = drive(chromium, opened, artifacts, {"shot": "neuroglancer-start"})
    assert told["told"][0].startswith("P: a point")
    picture = drawn(artifacts / "neuroglancer-start.png")
    assert picture.mean() > 40 and picture.mean(2).std() > 15, "black, or one grey"
    colorful = np.ptp(picture, axis=2) > 30
    assert colorful.mean() > 0.05, "no object is drawn over the image"


def test_keys_proofread_and_others_see_it(
    opened: str, study_server: Server, chromium: str, artifacts: Path, tmp_path: Path
) -> None:
    shot = {"shot": "neuroglancer-answer"}
    told = drive(
        chromium, opened, artifacts, {"key": "p", **PLACE}, {"key": "n", **ELSEWHERE, **shot}
    )
    assert all("voxels in" in text for text in told["told"]), told
    assert not accepted(study_server, tmp_path).any(), "an answer is no edit"
    green = drawn(artifacts / "neuroglancer-answer.png")
    assert ((green[..., 1] - green[..., 0]) > 40).any(), "the point is drawn"
    told = drive(chromium, opened, artifacts, {"key": "f", **PLACE})
    assert "accept of" in told["told"][0]
    ids = accepted(study_server, tmp_path)
    assert len(np.unique(ids[ids > 0])) == 1
    told = drive(chromium, opened, artifacts, {"key": "u", **PLACE}, {"key": "Shift+U", **PLACE})
    assert "undo: accept" in told["told"][0] and "redo: accept" in told["told"][1]
    assert (accepted(study_server, tmp_path) == ids).all()
    drive(chromium, opened, artifacts, {"key": "u", **PLACE})
    assert not accepted(study_server, tmp_path).any()


def test_a_class_by_key_and_the_screen_declared_annotated(
    opened: str, study_server: Server, chromium: str, artifacts: Path
) -> None:
    keys = ("k", "4", "t", "t")
    told = drive(chromium, opened, artifacts, *({"key": key, **PLACE} for key in keys))["told"]
    assert "4 axon" in told[0] and "name of axon" in told[1], told
    assert "T again" in told[2] and "is annotated" in told[3], told
    label: Any = nib.load(study_server.studies / "labels" / "final" / f"{ITEM}.nii.gz")
    axon = load_hierarchy().class_names.index("axon")
    assert (np.asarray(label.dataobj) == axon + 1).any()


def test_the_next_doubt_and_the_screen(opened: str, chromium: str, artifacts: Path) -> None:
    told = drive(
        chromium, opened, artifacts, {"key": "d", **PLACE},
        {"key": "g", **PLACE, "shot": "neuroglancer-found"},
    )  # fmt: skip
    assert "objects in" in told["told"][1], told
