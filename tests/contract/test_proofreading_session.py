"""A proofreading session over twenty objects, killed in the middle, exported at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import nrrd
import numpy as np
from monailabel.client import MONAILabelClient

from tests.conftest import ROOT, environment, make_app, make_study, start_server
from tests.contract.conftest import SLICER, write_nifti

ITEM = "synthetic-000"
SHAPE = (64, 64, 16)


def _bodies() -> np.ndarray:
    """Twenty bodies, 1 to 20, with a gap between them."""
    ids = np.zeros(SHAPE, np.uint32)
    for n in range(20):
        x, y = 12 * (n % 5) + 2, 16 * (n // 5) + 2
        ids[x : x + 10, y : y + 13, 2:14] = n + 1
    return ids


def _machine() -> np.ndarray:
    """What a machine makes of them: 1 to 6 in two halves, 7 with 8 and 9 with 10 in one."""
    ids = _bodies()
    upper = np.arange(SHAPE[2]) >= 8
    for n in range(1, 7):
        ids[(ids == n) & upper] = 20 + n
    ids[ids == 8], ids[ids == 10] = 7, 9
    return ids


def _inside(n: int, upper: bool = False) -> list[int]:
    low = np.argwhere(_bodies() == n).min(0)
    return [int(low[0]) + 5, int(low[1]) + 6, 11 if upper else 5]


def test_twenty_objects_with_a_kill_in_the_middle(tmp_path: Path):
    app, studies = tmp_path / "app", tmp_path / "studies"
    make_app(app)
    make_study(studies, items=1)
    image = studies / f"{ITEM}.nii"
    for tag in ("final", "instance"):  # nobody has annotated anything yet
        (studies / "labels" / tag / f"{ITEM}.nii.gz").unlink()
    found = studies / "labels" / "instance_predicted" / f"{ITEM}.nii.gz"
    found.parent.mkdir(parents=True)
    write_nifti(found, _machine(), image)
    bodies, accepted = _bodies(), np.zeros(SHAPE, np.uint32)

    server = start_server(app, studies)
    try:
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="ann")

        def act(*points, **params):
            asked = {**SLICER, "foreground": list(points), **params}
            file, told = client.infer("proofread", ITEM, asked)
            return nrrd.read(file)[0] != 0, told

        for n in range(1, 7):  # what is in halves is joined; one join is taken back and redone
            mask, _ = act(_inside(n), _inside(n, upper=True), do="merge")
            np.testing.assert_array_equal(mask, bodies == n)
        _, told = act(do="undo")
        assert told["undo"].startswith("merge of object 6")
        half, _ = act(_inside(6), do="answer", label="")
        assert half[tuple(_inside(6))]
        _, told = act(do="redo")
        assert told["redo"].startswith("merge of object 6")
        whole, told = act(_inside(6))
        np.testing.assert_array_equal(whole, bodies == 6)

        # What the machine made one is cut by hand, as an annotator paints it, and submitted.
        for names in ((7, 8), (9, 10)):
            labels = np.zeros(SHAPE, np.uint8)
            for value, n in enumerate(names, 1):
                labels[bodies == n] = value
                accepted[bodies == n] = n
            info = [{"name": f"axon {n}", "idx": v} for v, n in enumerate(names, 1)]
            path = write_nifti(tmp_path / "cut.nii.gz", labels, image)
            told = client.save_label(ITEM, str(path), "", {"label_info": info, "mode": "merge"})
            assert told["accepted"] == [f"axon {n}" for n in names]
        assert told["done"] == {"objects": 20, "accepted": 4}
        for n in range(1, 4):
            mask, told = act(_inside(n), do="accept", label=f"dendrite {n}")
            accepted[mask] = n
        assert told["done"]["accepted"] == 7
        server.process.kill()
    finally:
        server.stop()

    server = start_server(app, studies)
    try:
        client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="ann")
        file, told = client.infer("current", ITEM, {**SLICER, "result_dtype": "uint16"})
        np.testing.assert_array_equal(nrrd.read(file)[0], bodies)
        assert told["done"] == {"objects": 20, "accepted": 7}
        assert told["label_names"]["axon 8"] == 8
        _, told = client.infer("current", ITEM, {**SLICER, "only": "accepted"})
        assert set(told["label_names"].values()) == set(np.unique(accepted)) - {0}
        for n in (4, 5, 6):
            asked = {**SLICER, "foreground": [_inside(n)], "do": "accept", "label": f"axon {n}"}
            file, told = client.infer("proofread", ITEM, asked)
            accepted[nrrd.read(file)[0] != 0] = n
        assert told["done"]["accepted"] == 10
        labels = np.where(bodies > 10, bodies - 10, 0).astype(np.uint8)
        accepted[bodies > 10] = bodies[bodies > 10]
        info = [{"name": f"glia {10 + v}", "idx": v} for v in range(1, 11)]
        path = write_nifti(tmp_path / "rest.nii.gz", labels, image)
        told = client.save_label(ITEM, str(path), "", {"label_info": info, "mode": "merge"})
        assert told["done"]["accepted"] == 20
    finally:
        server.stop()

    out = tmp_path / "objects.h5"
    subprocess.run(
        [sys.executable, "main.py", "export", ITEM, f"{out}:ids", "--studies", str(studies),
         "--label", "current", "--crop-only"],
        cwd=ROOT, env=environment(), check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    with h5py.File(out) as file:
        exported = np.asarray(file["ids"]).T
    np.testing.assert_array_equal(exported, accepted)
    assert set(np.unique(accepted)) == set(range(21))
