"""The server learns from submissions: better at once, never worse, whatever happens meanwhile."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient
from numpy.typing import NDArray

from lib.labels.hierarchy import load_hierarchy
from lib.prediction.learned import load_heads
from lib.volumes.study import Study
from tests.conftest import TINY, Server, make_app, make_weights, start_server
from tests.contract.conftest import SLICER, voxels, write_nifti

HIERARCHY = load_hierarchy()
AXON, DENDRITE = (HIERARCHY.class_names.index(name) + 1 for name in ("axon", "dendrite"))
SHAPE = (64, 64, 8)
SEEN = (slice(None), slice(0, 36))
HELD_OUT = (slice(None), slice(44, None))
LEARNING = TINY.replace(
    "adaptation: {enabled: false}",
    "adaptation: {steps: 60, width: 16, most_rows: 4000, reply_seconds: 300}",
).replace("head_size: 4", "head_size: 8")
WAIT = 300.0


def truth() -> NDArray[np.uint8]:
    """Bright stripes are axon, dark ones dendrite."""
    bright = (np.arange(SHAPE[0]) // 4 % 2 == 0)[:, None, None] & np.ones(SHAPE, bool)
    return np.where(bright, AXON, DENDRITE).astype(np.uint8)


def add_items(root: Path, *names: str) -> None:
    noise = np.random.default_rng(0).integers(0, 40, SHAPE)
    image = (np.where(truth() == AXON, 180, 30) + noise).astype(np.uint8)
    for name in names:
        Study(root, HIERARCHY).add_item(name, image, (10.0, 10.0, 10.0))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learning")
    make_app(folder / "app", LEARNING)
    add_items(folder / "studies", "one", "two", "three")
    return folder


@pytest.fixture(scope="module")
def learner(place: Path) -> Iterator[Server]:
    running = start_server(place / "app", place / "studies")
    yield running
    running.stop()


def submit(server: Server, folder: Path, item: str, labels: NDArray[np.uint8]) -> dict[str, Any]:
    """Axon and dendrite, painted in a viewer, all of it by hand, though *Run* may say the same."""
    folder.mkdir(exist_ok=True)
    viewer = np.where(labels == AXON, 1, np.where(labels == DENDRITE, 2, 0)).astype(np.uint8)
    file = write_nifti(folder / "label.nii.gz", viewer, server.studies / f"{item}.nii")
    info = [{"name": "axon", "idx": 1}, {"name": "dendrite", "idx": 2}]
    client = MONAILabelClient(server.url, tmpdir=str(folder))
    return dict(client.save_label(item, str(file), "", {"label_info": info, "truth": "all"}))


def learned(server: Server) -> dict[str, Any]:
    """What `/info/` says once no refit is going on."""
    deadline = time.monotonic() + WAIT
    while True:
        found = dict(requests.get(f"{server.url}/info/", timeout=60).json()["learning"])
        if not found["running"]:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def segmented(server: Server, folder: Path, item: str) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The class map, as classes of the hierarchy + 1."""
    folder.mkdir(exist_ok=True)
    client = MONAILabelClient(server.url, tmpdir=str(folder))
    request = {**SLICER, "result_extension": ".nii.gz", "level": "fine"}
    file, params = client.infer("segmentation", item, request)
    shown = voxels(file)
    lut = np.zeros(256, np.uint8)
    for name, value in params["label_names"].items():
        if name in HIERARCHY.class_names:
            lut[value] = HIERARCHY.class_names.index(name) + 1
    return lut[shown], params


def right(found: NDArray[np.uint8]) -> float:
    """Share of the held-out part that is right."""
    return float((found == truth())[HELD_OUT].mean())


def painted(labels: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """What an annotator paints: the left part of an image."""
    out = np.zeros(SHAPE, np.uint8)
    out[SEEN] = (truth() if labels is None else labels)[SEEN]
    return out


def test_a_harmful_submission_leaves_everything_as_it_was(learner: Server, tmp_path: Path) -> None:
    """Axon painted anywhere, and nothing said of the rest: it would be found everywhere."""
    before, _ = segmented(learner, tmp_path, "two")
    anywhere = np.random.default_rng(3).random(SHAPE) < 0.2
    answer = submit(learner, tmp_path, "one", painted(np.where(anywhere, AXON, 0)))
    assert answer["learned"].startswith("Not used"), answer
    assert not learned(learner)["in_use"]
    after, params = segmented(learner, tmp_path, "two")
    assert params["study_heads"] is False and np.array_equal(after, before)


def test_a_submission_is_learned_and_told(learner: Server, tmp_path: Path) -> None:
    before, params = segmented(learner, tmp_path, "two")
    assert params["study_heads"] is False
    answer = submit(learner, tmp_path, "one", painted())
    assert "Learned from" in answer["learned"] and "in use" in answer["learned"], answer
    told = learned(learner)
    assert told["in_use"] and told["sentence"] == answer["learned"]
    assert {figure["name"] for figure in told["figures"]} == {"axon", "dendrite"}
    after, params = segmented(learner, tmp_path, "two")
    assert params["study_heads"] is True
    assert not np.array_equal(after, before)
    assert right(after) > 0.9 and right(after) > right(before) + 0.2
    assert right(segmented(learner, tmp_path, "one")[0]) > 0.9


def test_two_annotators_at_once_are_both_learned_from(learner: Server, tmp_path: Path) -> None:
    answers: dict[str, dict[str, Any]] = {}

    def annotate(item: str) -> None:
        answers[item] = submit(learner, tmp_path / item, item, painted())

    threads = [threading.Thread(target=annotate, args=(item,)) for item in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert all("Learned from" in answers[item]["learned"] for item in ("one", "two"))
    told = learned(learner)
    assert told["in_use"] and "2 items" in told["sentence"]


def test_weights_published_meanwhile_get_heads_of_their_own(
    learner: Server, tmp_path: Path
) -> None:
    first = load_heads(learner.studies)
    assert first is not None
    other = tmp_path / "other.pt"
    make_weights(other, learner.app / "tiny.yaml", seed=7)
    with other.open("rb") as file:
        answer = requests.put(
            f"{learner.url}/model/segmentation", files={"file": ("neuropil.pt", file)}, timeout=60
        )
    assert answer.status_code == 200, answer.text
    segmented(learner, tmp_path, "three")
    told = learned(learner)
    second = load_heads(learner.studies)
    assert second is not None and second.learned.parent != first.learned.parent
    assert told["in_use"] and right(segmented(learner, tmp_path, "three")[0]) > 0.7


def test_killed_during_a_refit_it_learns_after_the_next_start(
    place: Path, learner: Server, tmp_path: Path
) -> None:
    learner.stop()
    config = place / "app" / "tiny.yaml"
    config.write_text(LEARNING.replace("reply_seconds: 300", "reply_seconds: 0"))
    studies = place / "killed"
    add_items(studies, "one", "two")
    running = start_server(place / "app", studies)
    try:
        answer = submit(running, tmp_path, "one", painted())
        assert "goes on in the background" in answer["learned"]
        told = requests.get(f"{running.url}/info/", timeout=60).json()["learning"]
        if told["running"]:
            assert "is being learned" in told["sentence"] or "in use" in told["sentence"]
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(20)
        load_heads(studies)  # none or whole, never half
        running = start_server(place / "app", studies)
        assert learned(running)["in_use"]
        assert right(segmented(running, tmp_path, "two")[0]) > 0.7
    finally:
        running.stop()


def test_switched_off_the_published_weights_are_used_alone(place: Path, tmp_path: Path) -> None:
    studies = place / "off"
    shutil.copytree(place / "killed", studies)
    assert load_heads(studies) is not None, "the run before left its heads"
    config = place / "app" / "tiny.yaml"
    config.write_text(LEARNING.replace("{steps: 60", "{enabled: false, steps: 60"))
    running = start_server(place / "app", studies)
    try:
        answer = submit(running, tmp_path, "one", painted())
        assert "switched off" in answer["learned"]
        assert learned(running) | {"sentence": ""} == {
            "enabled": False, "running": False, "in_use": False, "sentence": "",
        }  # fmt: skip
        found, params = segmented(running, tmp_path, "two")
        assert params["study_heads"] is False and right(found) < 0.7
    finally:
        running.stop()
