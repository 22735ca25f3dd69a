"""Training through the server: progress, publication, and going on after a kill."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import nrrd
import pytest
import requests

from lib.labels.hierarchy import load_hierarchy
from lib.networks.digests import place_weights
from lib.volumes.study import Study
from tests.conftest import make_study, start_server
from tests.contract.conftest import SLICER

ITEM = "synthetic-000"
SECONDS = 420

pytestmark = pytest.mark.timeout(1200)  # several processes start, one after the other


def _wait(client, done, what: str) -> dict:
    """Poll the training's status as Slicer does, until `done(status)`."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        status = client.train_status()
        if done(status):
            return status
        if status["status"] == "ERROR":
            break
        time.sleep(0.3)
    raise AssertionError(f"no {what}: " + "\n".join(client.train_status().get("details", [])))


def _ended(status: dict) -> bool:
    return status["status"] == "DONE"


@pytest.fixture(autouse=True)
def no_training_left(server):
    """A test that fails does not leave its training to the next one."""
    yield
    requests.delete(f"{server.url}/train/", timeout=60)


@pytest.fixture
def without_weights(server):
    """The published weights are put away for a test, and come back."""
    kept = server.weights.read_bytes()
    answer = requests.delete(f"{server.url}/model/segmentation", timeout=20)
    assert answer.status_code == 200
    yield
    place_weights(server.weights, kept)
    shutil.rmtree(server.app / "model" / "combined", ignore_errors=True)


def test_two_epochs_publish_weights_that_inference_takes_up(server, client, without_weights):
    refused = requests.post(f"{server.url}/infer/segmentation?image={ITEM}", timeout=30)
    assert refused.status_code == 400
    assert "train first" in refused.json()["detail"]
    asked = {"max_epochs": 2, "steps_per_epoch": 2, "name": "two_epochs", "device": "cpu"}
    started = client.train_start("combined", asked)
    assert started["status"] in ("SUBMITTED", "RUNNING")
    twice = requests.post(f"{server.url}/train/combined", json=asked, timeout=30)
    assert twice.status_code == 429, "one training at a time"
    waits = []
    while client.train_status()["status"] in ("SUBMITTED", "RUNNING"):
        begin = time.monotonic()
        client.info()
        waits.append(time.monotonic() - begin)
        time.sleep(0.1)
    assert sorted(waits)[len(waits) // 2] < 1, "info answers while a training runs"
    _wait(client, _ended, "end of training")
    assert server.weights.exists()
    stats = client.info()["train_stats"]["combined"]
    assert (stats["epoch"], stats["total_epochs"], stats["published"]) == (2, 2, True)
    file, params = client.infer("segmentation", ITEM, {**SLICER})
    assert nrrd.read(file)[0].shape == (64, 64, 16)
    found = server.weights.stat()
    assert params["weights"].startswith(str(found.st_mtime_ns))
    assert (server.app / "model" / "combined" / "two_epochs" / "checkpoint.pt").exists()


def test_a_killed_training_goes_on_where_it_was(server, client):
    asked = {"max_epochs": 10, "steps_per_epoch": 3, "name": "killed", "device": "cpu"}
    checkpoint = server.app / "model" / "combined" / "killed" / "checkpoint.pt"
    published = server.weights.read_bytes()
    client.train_start("combined", {**asked, "publish": "never"})
    _wait(client, lambda _status: checkpoint.exists(), "first checkpoint")
    stopped = client.train_stop()
    assert stopped["status"] == "STOPPED"
    assert not client.train_status(check_if_running=True)
    client.train_start("combined", {**asked, "publish": "never"})
    _wait(client, _ended, "end of the second run")
    log = Path(server.log).read_text(errors="replace")
    assert "resumed from" in log
    assert "at step 0" not in log[log.index("resumed from") :].splitlines()[0]
    stats = client.info()["train_stats"]["combined"]
    assert stats["epoch"] == 10
    assert server.weights.read_bytes() == published, "this run was told not to publish"
    shutil.rmtree(checkpoint.parent)


@pytest.fixture
def bare(server):
    """An image that nobody has annotated, beside those fully and partly annotated."""
    with (server.studies / f"{ITEM}.nii").open("rb") as file:
        requests.put(
            f"{server.url}/datastore/image", params={"image": "bare"},
            files={"file": ("bare.nii", file)}, timeout=60,
        ).raise_for_status()  # fmt: skip
    yield "bare"
    requests.delete(f"{server.url}/datastore/image", params={"id": "bare"}, timeout=60)


def test_retraining_goes_on_from_what_is_published_and_never_makes_it_worse(server, client, bare):
    study = Study(server.studies, load_hierarchy())
    fully = {item.record.fully_annotated for item in study.items() if item.has_label("final")}
    assert fully == {True, False}
    assert not study.item(bare).has_label("final")
    published = server.weights.read_bytes()
    asked = {"max_epochs": 1, "steps_per_epoch": 2, "name": "again", "device": "cpu"}
    client.train_start("combined", {**asked, "learning_rate": 5e-4})
    try:
        _wait(client, _ended, "end of training")
        assert f"started from {server.weights}" in Path(server.log).read_text(errors="replace")
        stats = client.info()["train_stats"]["combined"]
        reached, before = map(float, re.findall(r"-?\d+\.\d+", stats["reason"]))
        if reached != before:  # as far as the message tells
            assert stats["published"] is (reached > before)
        assert (server.weights.read_bytes() != published) is stats["published"]
    finally:
        place_weights(server.weights, published)
        shutil.rmtree(server.app / "model" / "combined" / "again", ignore_errors=True)


def test_nothing_annotated_is_a_clear_answer(tmp_path, server):
    """On a study of images alone; the server is started by what the README says."""
    make_study(tmp_path / "images", items=1)
    shutil.rmtree(tmp_path / "images" / "labels")
    app = tmp_path / "app"
    (app / "model").mkdir(parents=True)
    for name in ("main.py", "lib"):
        (app / name).symlink_to(os.path.realpath(server.app / name))
    shutil.copy(server.app / "tiny.yaml", app)
    other = start_server(app, tmp_path / "images")
    try:
        answer = requests.post(f"{other.url}/train/combined", json={}, timeout=60)
        assert answer.status_code == 400
        assert "annotat" in answer.json()["detail"]
        assert requests.get(f"{other.url}/train/", timeout=20).status_code == 404
        info = requests.get(f"{other.url}/info/", timeout=20).json()
        assert info["train_stats"] == {"combined": {}}
    finally:
        other.stop()
