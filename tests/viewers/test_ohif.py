"""OHIF in a browser on a DICOM store. The page is driven by ohif.test.js; this makes its plan."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from lib.dicom.seg_read import read_seg
from lib.dicom.series import read_headers
from lib.labels.hierarchy import load_hierarchy
from tests.conftest import Server
from tests.viewers.clicks import inner_voxel
from tests.viewers.conftest import HERE, SHAPE, Piece, Store, u16
from tests.viewers.servers import Client

pytestmark = pytest.mark.viewers

LEVELS = ("fine", "coarse", "fallback")
CLICKED = ("axon", "dendrite", "myelin")
TRAINING = {"max_epochs": 3, "steps_per_epoch": 2}


def raw(nrrd: bytes) -> bytes:
    """The voxels of an uncompressed NRRD file, as OHIF takes them: whatever follows the header."""
    header, _, data = nrrd.partition(b"\n\n")
    assert b"encoding: raw" in header and b"type: uint8" in header, header
    assert len(data) == int(np.prod(SHAPE))
    return data


def make_plan(folder: Path, shots: Path, chromium: str, server: Server, store: Store) -> None:
    """What to do in the page, and files of what the app answers to the same requests."""
    client, piece = Client(server.url), store.pieces[0]
    image = piece.series.series_uid
    plan: dict[str, Any] = {
        "folder": str(folder),
        "shots": str(shots),
        "executable": chromium,
        "base": server.url,
        "shape": SHAPE,
        "study": piece.series.study_uid,
        "series": [p.series.series_uid for p in store.pieces],
        "training": TRAINING,
        "strategy": "random",
    }
    for other in store.pieces:
        (folder / f"image-{other.series.series_uid}.u16").write_bytes(u16(other.truth.image))

    def keep(name: str, model: str, **params: Any) -> dict[str, Any]:
        file, told = client.infer(model, image, **params)
        (folder / name).write_bytes(raw(file))
        return {"file": name, "names": told["label_names"]}

    plan["levels"] = [
        {"name": level, **keep(f"{level}.u8", "segmentation", level=level)} for level in LEVELS
    ]
    plan["instances"] = keep("instances.u8", "instances")
    voxels = {label: inner_voxel(piece.truth, label) for label in CLICKED}
    # OHIF does not say which segment is selected
    plan["clicks"] = [
        {"label": label, "voxel": voxel,
         **keep(f"click-{n}.u8", "proofread", foreground=[voxel], background=[])}
        for n, (label, voxel) in enumerate(voxels.items())
    ]  # fmt: skip
    points = {label: [voxel] for label, voxel in voxels.items()}
    plan["classes"] = {
        "points": list(voxels.items()),
        **keep("classes.u8", "proofread_classes", background=[], **points),
    }
    (folder / "plan.json").write_text(json.dumps(plan))


def test_ohif(
    tmp_path: Path,
    artifacts: Path,
    chromium: str,
    store: Store,
    store_server: Server,
    trained: bool,
) -> None:
    make_plan(tmp_path, artifacts, chromium, store_server, store)
    if trained:
        check_clicked_objects(Client(store_server.url), store.pieces)
    image = store.pieces[0].series.series_uid
    earlier = labelled(store_server, image)
    run = subprocess.run(
        ["node", "--test", "--test-reporter=spec", str(HERE / "ohif.test.js")],
        env={**os.environ, "PLAN": str(tmp_path / "plan.json")},
        capture_output=True,
        text=True,
    )
    (artifacts / "ohif.log").write_text(run.stdout + run.stderr)
    assert run.returncode == 0, run.stdout[-6000:] + "\n" + store_server.log_tail(30)
    page, names = check_stored_seg(tmp_path, store)
    check_taken_in(store_server, image, page, names, earlier)


def check_clicked_objects(client: Client, pieces: Sequence[Piece]) -> None:
    """At least two of three answers are more the clicked object than any other."""
    right = []
    for piece in pieces:
        image, truth = piece.series.series_uid, piece.truth
        client.infer("instances", image)
        for label in CLICKED:
            voxel = inner_voxel(truth, label)
            file, _ = client.infer("proofread", image, foreground=[voxel], background=[])
            mask = np.frombuffer(raw(file), np.uint8).reshape(SHAPE, order="F") > 0
            hit = truth.instance[mask & (truth.instance > 0)]
            ids, overlap = np.unique(hit, return_counts=True)
            right.append(len(ids) and ids[overlap.argmax()] == truth.instance[tuple(voxel)])
    assert 3 * sum(right) >= 2 * len(right), (
        f"{sum(right)} of {len(right)} clicks found their object"
    )


def labelled(server: Server, image: str) -> NDArray[Any] | None:
    """(X, Y, Z) the image's classes as annotators gave them; None where nobody has."""
    answer = Client(server.url).get("/datastore/label", label=image, tag="final")
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, answer.text
    file: Any = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
    return np.asanyarray(file.dataobj)


def check_taken_in(
    server: Server,
    image: str,
    page: NDArray[np.uint8],
    names: dict[str, int],
    earlier: NDArray[Any] | None,
) -> None:
    """The server made labels of what OHIF stored, by the names of its segments.

    The mirror looks at the store every 30 seconds. Other tests may have labelled the image, and
    what comes back as the machine said it takes nothing of that away.
    """
    free = np.ones(page.shape, np.bool_) if earlier is None else earlier == 0
    until = time.monotonic() + 120
    while True:
        final = labelled(server, image)
        assert final is not None and final.shape == page.shape
        different = [
            fine.name
            for code, fine in enumerate(load_hierarchy().classes, 1)
            if not np.array_equal((final == code)[free], (page == names[fine.name])[free])
        ]
        if not different:
            return
        assert time.monotonic() < until, f"not as OHIF stored them: {', '.join(different)}"
        time.sleep(2)


def check_stored_seg(folder: Path, store: Store) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """The SEG that OHIF stored holds what the page held, on the image's own grid.

    Returns:
        the page's label map, and its values by segment name.
    """
    from tests.viewers.servers import stored_segs

    drawn: NDArray[np.uint8] = np.frombuffer((folder / "stored.u8").read_bytes(), np.uint8)
    names = json.loads((folder / "stored.json").read_text())
    (dataset,) = [
        ds for ds in stored_segs(store.address) if ds.SeriesDescription == "drawn in OHIF"
    ]
    assert isinstance(dataset, pydicom.Dataset)
    piece = store.pieces[0]
    seg = read_seg(dataset, read_headers(piece.series.files[0].parent))
    page = drawn.reshape(SHAPE, order="F")
    values = {name: int(value) for value, name in names.items()}
    for segment in seg.segments:
        mask = seg.layers[segment.layer] == segment.value
        np.testing.assert_array_equal(mask, page == values[segment.label], segment.label)
    assert (
        sum(int((seg.layers[s.layer] == s.value).sum()) for s in seg.segments) == (page > 0).sum()
    )
    return page, values
