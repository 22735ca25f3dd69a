"""docs/tutorial.md step by step on a real server, with a picture of each step.

The pictures of the tutorial are these: cp artifacts/viewers/tutorial-*.png docs/images/
README shows the last one: mv docs/images/tutorial-page.png docs/images/page.png
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tifffile

from lib.labels.hierarchy import load_hierarchy
from lib.synthetic.generate import generate
from lib.volumes.study import Study
from tests.conftest import ROOT, Server, environment, make_app, start_server
from tests.viewers.conftest import CONFIGURATION, RANDOM_NETWORK, place_shipped
from tests.viewers.test_page import browse

pytestmark = pytest.mark.viewers

SIZE, VOXEL_NM = (160, 128, 16), (8.0, 8.0, 40.0)
ITEM, MINE = "synthetic-002", "stack"
SECTION = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo study and an own TIFF stack, as the tutorial makes them."""
    folder = tmp_path_factory.mktemp("tutorial")
    make_app(folder / "app", CONFIGURATION + RANDOM_NETWORK)
    place_shipped(folder / "app", CONFIGURATION)
    studies = folder / "demo"
    size = [str(n) for n in SIZE]
    _run("demo", "--studies", str(studies), "--items", "3", "--size", *size, "--partial", "1")
    stack = folder / "stack.tif"
    image = generate(SIZE, VOXEL_NM, seed=11).image
    tifffile.imwrite(
        stack, np.ascontiguousarray(image.transpose(2, 1, 0)), photometric="minisblack"
    )
    voxel = [f"{nm:g}" for nm in VOXEL_NM]
    told = _run("import", str(stack), "--studies", str(studies), "--voxel-size-nm", *voxel)
    assert MINE in told
    running = start_server(folder / "app", studies)
    yield running
    running.stop()


def _run(*words: str) -> str:
    command = [sys.executable, "main.py", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def _ask(server: Server, method: str, path: str, **more: Any) -> requests.Response:
    answer = requests.request(method, server.url + path, timeout=1200, **more)
    assert answer.status_code == 200, answer.text[-2000:]
    return answer


def _shoot(server: Server, artifacts: Path, name: str, path: str, height: int) -> None:
    shot = artifacts / f"tutorial-{name}.png"
    browse(server.url + path, f"--screenshot={shot}", f"--window-size=1120,{height}")
    assert shot.stat().st_size > 10_000


def _largest_neurite() -> tuple[str, tuple[int, int]]:
    """Class and a voxel of the largest axon or dendrite of the own stack's shown section."""
    truth, hierarchy = generate(SIZE, VOXEL_NM, seed=11), load_hierarchy()
    ids, classes = truth.instance[:, :, SECTION], truth.fine[:, :, SECTION]
    names = ("axon", "dendrite")
    found, sizes = np.unique(
        ids[np.isin(classes, [hierarchy.class_names.index(n) for n in names])], return_counts=True
    )
    inside = np.argwhere(ids == found[sizes.argmax()])
    i, j = inside[len(inside) // 2]
    return hierarchy.class_names[int(classes[i, j])], (int(i), int(j))


def test_from_nothing_to_corrected_objects(server: Server, artifacts: Path, tmp_path: Path) -> None:
    _shoot(server, artifacts, "study", "/", 1000)

    region = _ask(server, "POST", "/activelearning/random", json={"client_id": "ann"}).json()
    k = region["region"]["centre"][2]
    here = f"/page/item?image={region['id']}&section={k}&layer=image"
    _shoot(server, artifacts, "region", here, 1000)

    for number, item in enumerate((ITEM, MINE)):
        found = _ask(server, "POST", f"/infer/instances?image={item}&output=json").json()
        assert found["label_names"]
        view = f"/page/item?image={item}&section={SECTION}&layer=found+objects"
        _shoot(server, artifacts, ("found", "own")[number], view, 900)

    study = Study(server.studies, load_hierarchy())
    before = study.item(MINE).has_label("instance")
    assert not before, "nobody has annotated the own stack yet"
    name, (i, j) = _largest_neurite()
    params = {"foreground": [[i, j, SECTION]], "label": name}
    path = f"/infer/proofread?image={MINE}&output=image"
    mask = _ask(server, "POST", path, files={"params": (None, json.dumps(params))}).content
    clicked = tmp_path / "clicked.nii.gz"
    clicked.write_bytes(mask)

    told = {"label_info": [{"name": f"{name} 1", "idx": 1}]}
    with clicked.open("rb") as file:
        files = {"label": (clicked.name, file), "params": (None, json.dumps(told))}
        _ask(server, "PUT", f"/datastore/label?image={MINE}", files=files)
    _shoot(
        server, artifacts, "submitted", f"/page/item?image={MINE}&section={SECTION}&layer=classes",
        1050,
    )  # fmt: skip

    asked = {"max_epochs": 2, "steps_per_epoch": 8, "publish": "if better"}
    _ask(server, "POST", "/train/combined", json=asked)
    _shoot(server, artifacts, "training", "/", 700)
    end = time.monotonic() + 900
    while _ask(server, "GET", "/train/").json()["status"] not in ("DONE", "ERROR"):
        assert time.monotonic() < end, "training does not end"
        time.sleep(2)
    assert _ask(server, "GET", "/train/").json()["status"] == "DONE", server.log_tail()
    while _ask(server, "GET", "/info/").json()["learning"]["running"]:
        assert time.monotonic() < end, "learning from the submission does not end"
        time.sleep(2)
    _shoot(server, artifacts, "trained", "/", 850)
    _shoot(server, artifacts, "page", "/", 1450)
    content, _ = browse(server.url + "/", "--dump-dom")
    assert re.search(r"<polyline points=\"0\.0,", content), "no curve of the run"

    out = tmp_path / "corrected.tif"
    _run("export", MINE, str(out), "--studies", str(server.studies), "--label", "instance")
    assert tifffile.imread(out).shape == (SIZE[2], SIZE[1], SIZE[0])
