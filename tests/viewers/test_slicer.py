"""Slicer's own plugin on Slicer's libraries; what Slicer holds, compared with what the app meant.

The session runs in Slicer's environment (slicer_session.py); this writes its plan and judges.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from lib.labels.hierarchy import load_hierarchy
from lib.volumes.study import Study
from tests.conftest import Server
from tests.viewers.clicks import inner_voxel
from tests.viewers.conftest import HERE, PLUGIN, SHAPE
from tests.viewers.servers import Client

pytestmark = pytest.mark.viewers

HIERARCHY = load_hierarchy()
STRATEGY = "random"
SHORT = {"trainer": "combined", "max_epochs": 3, "steps_per_epoch": 2}
OWN = {  # the annotator's own segments: name -> painted box
    "axon 17": [[5, 15], [5, 20], [2, 6]],
    "organelle": [[20, 30], [5, 20], [2, 6]],
    "Mitochondria_3": [[35, 45], [5, 20], [2, 6]],
    "my favourite": [[50, 60], [5, 20], [2, 6]],
    "uncertain": [[65, 75], [5, 20], [2, 6]],
}


@dataclass(frozen=True)
class Held:
    """What Slicer held after a step: the step's report, and masks by segment name."""

    report: dict[str, Any]
    masks: dict[str, NDArray[np.bool_]]

    @property
    def drawn(self) -> set[str]:
        """Names of segments that hold voxels."""
        return {name for name, mask in self.masks.items() if mask.any()}


def run_session(
    python: Path, server: Server, folder: Path, extension: str, steps: list[list[Any]]
) -> list[Held]:
    """Run the steps in Slicer; fails on any error dialog."""
    folder.mkdir(parents=True)
    plan = {
        "server": server.url,
        "plugin": str(PLUGIN),
        "extension": extension,
        "out": str(folder),
        "steps": steps,
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    run = subprocess.run(
        [python, HERE / "slicer_session.py", folder / "plan.json"], capture_output=True, text=True
    )
    (folder / "session.log").write_text(run.stdout + run.stderr)
    assert run.returncode == 0, run.stderr[-3000:] + server.log_tail(20)
    held = []
    for n, report in enumerate(json.loads((folder / "report.json").read_text())):
        errors = [text for kind, text in report["dialogs"] if kind != "info"]
        assert not errors, f"{report['step']}: {errors[0]}\n{server.log_tail(20)}"
        held.append(Held(report, masks_of(folder, n, report["segments"])))
    return held


def masks_of(
    folder: Path, number: int, segments: list[dict[str, Any]]
) -> dict[str, NDArray[np.bool_]]:
    """Masks by name; segments of one name are one."""
    masks: dict[str, NDArray[np.bool_]] = {}
    if not segments:
        return masks
    packed = np.load(folder / f"{number}.npz")["masks"]
    stack = np.unpackbits(packed, axis=-1, count=SHAPE[2]).astype(bool)
    for segment, mask in zip(segments, stack, strict=True):
        masks[segment["name"]] = masks.get(segment["name"], False) | mask
    return masks


def meant(client: Client, model: str, image: str, **params: Any) -> dict[str, NDArray[np.bool_]]:
    """What the app means by its answer: masks by name, empty ones left out."""
    file, told = client.infer(model, image, **params)
    values = decode(file)
    names = {value: name for name, value in told["label_names"].items()}
    return {names[int(v)]: values == v for v in np.unique(values) if v}


def decode(file: bytes) -> NDArray[Any]:
    """(X, Y, Z) of an NRRD file."""
    header = nrrd.read_header(io.BytesIO(file))
    body = io.BytesIO(file)
    nrrd.read_header(body)
    return nrrd.read_data(header, body, index_order="F")


def assert_same(held: Held, expected: dict[str, NDArray[np.bool_]]) -> None:
    """Slicer holds exactly the segments that the app meant, voxel by voxel."""
    assert held.drawn == set(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(held.masks[name], mask, err_msg=name)


def sample_of(held: list[Held]) -> str:
    """The image that Next Sample opened."""
    return str(next(h.report["told"]["id"] for h in held if h.report["step"] == "next_sample"))


def test_levels_and_clicks(
    tmp_path: Path,
    slicer_python: Path,
    study_server: Server,
    study: Study,
    pieces: list[Any],
) -> None:
    known = dict(pieces)
    at = {
        label: {name: inner_voxel(truth, label) for name, truth in known.items()}
        for label in ("axon", "dendrite", "myelin")
    }
    client = Client(study_server.url)
    steps: list[list[Any]] = [["connect", {}], ["next_sample", {"strategy": STRATEGY}]]
    for level in ("fine", "coarse", "fallback"):
        steps += [["clear", {}], ["segment", {"model": "segmentation", "level": level}]]
    steps.append(["clear", {}])
    axon = {"model": "proofread", "label": "axon", "positive": [at["axon"]]}
    steps += [["click", axon], ["click", {**axon, "negative": [at["myelin"]]}]]
    dendrite = {"model": "proofread", "label": "dendrite", "positive": [at["dendrite"]]}
    steps += [["click", dendrite], ["click", {**dendrite, "model": "proofread_classes"}]]
    held = run_session(slicer_python, study_server, tmp_path / "session", ".nrrd", steps)

    image = sample_of(held)
    named = held[1].report["told"]["VolumeNodeName"]
    assert re.match(rf"{image}: annotate i \d+-\d+, j \d+-\d+, k \d+-\d+ \(.+\)$", named)
    other = at["myelin"][image]
    points = {label: at[label][image] for label in ("axon", "dendrite")}
    shown = np.load(tmp_path / "session" / "volume.npy")
    np.testing.assert_array_equal(shown, np.asarray(study.item(image).open_image()[:, :, :]))
    made = [s["name"] for s in held[1].report["segments"]]
    assert made[: HIERARCHY.num_classes] == list(HIERARCHY.class_names)
    for n, level in ((3, "fine"), (5, "coarse"), (7, "fallback")):
        assert_same(held[n], meant(client, "segmentation", image, level=level))

    def clicked(label: str, negative: list[list[int]]) -> NDArray[np.bool_]:
        asked = {"foreground": [points[label]], "background": negative, "label": label}
        return meant(client, "proofread", image, **asked).get(label, np.zeros(SHAPE, bool))

    assert_same(held[9], {"axon": clicked("axon", [])})
    assert held[9].masks["axon"][tuple(points["axon"])]
    first = clicked("axon", [other])
    assert not first[tuple(other)]
    assert_same(held[10], {"axon": first})
    second = clicked("dendrite", [])
    # Where two answers overlap, Slicer's layers decide whether the older one keeps the voxel.
    kept = held[11].masks["axon"] & second
    assert not (kept & ~first).any()
    assert_same(held[11], {"axon": (first & ~second) | kept, "dendrite": second})
    asked = {label: [voxel] for label, voxel in points.items()}
    expected = meant(client, "proofread_classes", image, label="dendrite", **asked)
    assert_same(held[12], expected)
    for label, voxel in points.items():
        assert held[12].masks[label][tuple(voxel)], f"the click on {label} is not {label}"


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_submission_with_own_segments(
    tmp_path: Path, slicer_python: Path, study_server: Server, extension: str
) -> None:
    steps: list[list[Any]] = [["connect", {}], ["next_sample", {"strategy": STRATEGY}]]
    steps.append(["segment", {"model": "segmentation"}])
    for name in ("tear", "nucleus"):  # so that values no longer follow the app's order
        steps.append(["remove", {"name": name}])
    steps += [["add_segment", {"name": name, "box": box}] for name, box in OWN.items()]
    steps += [["rename", {"old": "soma", "new": "axon"}], ["submit", {}]]
    folder = tmp_path / "session"
    held = run_session(slicer_python, study_server, folder, extension, steps)
    item = Study(study_server.studies, HIERARCHY).item(sample_of(held))
    check_submission(item.read_class_sets(shown=True), item.read_instances(shown=True), held[-1])
    kept = list((study_server.studies / "labels" / "submitted").glob(f"{item.id}.*"))
    assert [p.name for p in kept] == [f"{item.id}{extension}"], "the submission itself is kept"


def check_submission(sets: NDArray[np.int32], ids: NDArray[np.int64], held: Held) -> None:
    """Every voxel is what the name of its segment says; unpainted ones are unknown."""
    painted = np.zeros(SHAPE, bool)
    own_objects = set()
    for name, mask in held.masks.items():
        if not mask.any():
            continue
        painted |= mask
        if name == "my favourite":
            assert (sets[mask] == HIERARCHY.object_set).all()
            own_objects.add(only_object(ids, mask))
        elif name == "uncertain":
            assert (sets[mask] == HIERARCHY.unknown).all()
        elif name in ("axon 17", "Mitochondria_3"):
            known = HIERARCHY.set_named(name.replace("_", " ").rpartition(" ")[0])
            assert (sets[mask] == known).all()
            own_objects.add(only_object(ids, mask))
        else:
            assert (sets[mask] == HIERARCHY.set_named(name)).all(), name
    assert (sets[~painted] == HIERARCHY.unknown).all()
    assert len(own_objects) == 3, "each of the annotator's objects is one of its own"


def only_object(ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> int:
    """The one object that a segment became, and that is nowhere else."""
    (number,) = np.unique(ids[mask])
    assert number > 0 and not (ids[~mask] == number).any()
    return int(number)


def whole_map(server: Server, image: str) -> NDArray[np.uint32]:
    """The map of all objects that the app kept in the datastore."""
    path = server.studies / "labels" / "instance_predicted" / f"{image}.nii.gz"
    return np.asanyarray(nib.load(path).dataobj)


def check_object_map(held: Held, server: Server, image: str) -> None:
    """A uint8 map: exact up to what it can hold, and no two touching objects in one value."""
    # as people corrected them: what was submitted on this image before is current
    file, _ = Client(server.url).infer(
        "current", image, show="map", result_extension=".nii.gz", result_dtype="uint32"
    )
    ids = np.asanyarray(nib.Nifti1Image.from_bytes(gzip.decompress(file)).dataobj)
    _, told = Client(server.url).infer("instances", image, show="map")
    covered = np.zeros(SHAPE, bool)
    for mask in held.masks.values():
        covered |= mask
    if "limit" not in told:
        assert len(held.drawn) == len(np.unique(ids[ids > 0]))
    np.testing.assert_array_equal(covered, ids > 0, err_msg="objects were lost")
    for mask in held.masks.values():
        for axis in range(3):
            low = np.moveaxis(np.where(mask, ids, 0), axis, 0)
            pairs = (low[:-1] > 0) & (low[1:] > 0)
            assert (low[:-1][pairs] == low[1:][pairs]).all(), "touching objects share a segment"


def test_training_and_scoring(tmp_path: Path, slicer_python: Path, study_server: Server) -> None:
    steps: list[list[Any]] = [["connect", {}], ["train", SHORT]]
    held = run_session(slicer_python, study_server, tmp_path / "session", ".nii.gz", steps)
    shown = held[1].report["told"]
    assert shown[-1]["status"] == "DONE", study_server.log_tail(40)
    assert any(s["stats"].get("total_epochs") for s in shown), "no progress was shown"
    assert shown[-1]["stats"]["epoch"] == shown[-1]["stats"]["total_epochs"]
    client = Client(study_server.url)
    for method in client.get("/info/").json()["scoring"]:
        wait_until_idle(client)  # scores are also computed when weights change
        answer = requests.post(f"{client.url}/scoring/{method}", json={}, timeout=300)
        assert answer.status_code == 200, f"{method}: {answer.text}"
    wait_until_idle(client)
    assert client.get("/scoring/").json()["status"] == "DONE", study_server.log_tail(40)


def wait_until_idle(client: Client, seconds: float = 600.0) -> None:
    """Until no scoring runs."""
    end = time.monotonic() + seconds
    while True:
        answer = client.get("/scoring/")
        if answer.status_code != 200 or answer.json()["status"] not in (
            "SUBMITTED",
            "RUNNING",
            "PENDING",
        ):
            return
        assert time.monotonic() < end, answer.text
        time.sleep(1)
