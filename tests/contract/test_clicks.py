"""Clicks through the server, as 3D Slicer and OHIF send them."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
from monailabel.client import MONAILabelClient

from tests.contract.conftest import OHIF, SLICER, write_nifti

ITEM, OTHER = "synthetic-000", "synthetic-001"
POINT = [30, 30, 8]


def _mask(client, image=ITEM, model="proofread", **params):
    file, told = client.infer(model, image, {**SLICER, **params})
    return nrrd.read(file)[0], told


def test_one_list_of_clicks_has_one_answer(client):
    """Undo is dropping the last click, to any depth; a replay is exact."""
    lists = [[POINT], [POINT, [40, 20, 8]], [POINT, [40, 20, 8], [10, 50, 4]]]
    first = [_mask(client, label="axon", foreground=points)[0] for points in lists]
    assert first[0].dtype == np.uint8
    assert first[0].shape == (64, 64, 16)
    assert set(np.unique(first[0])) <= {0, 1}
    assert first[0][tuple(POINT)] == 1
    for mask, points in reversed(list(zip(first, lists, strict=True))):
        again = _mask(client, label="axon", foreground=points, reset_state=True)[0]
        np.testing.assert_array_equal(again, mask)


def test_absent_and_odd_fields(client):
    empty, told = _mask(client, label="axon", background=[POINT])
    assert not empty.any()
    assert told["warnings"]
    far, told = _mask(client, label="my own name", foreground=[POINT, [900, 30, 8]])
    assert "outside" in " ".join(told["warnings"])
    np.testing.assert_array_equal(far, _mask(client, label="another", foreground=[POINT])[0])
    both, told = _mask(client, foreground=[POINT], background=[POINT])
    assert both[tuple(POINT)] == 1
    assert told["warnings"], "a contradiction is told, not refused"


def test_region_and_section_limit_the_answer(client):
    whole, _ = _mask(client, foreground=[POINT])
    cut, _ = _mask(client, foreground=[POINT], roi=[40, 20, 25, 35, 12, 4])
    inside = np.zeros_like(whole)
    inside[20:41, 25:36, 4:13] = whole[20:41, 25:36, 4:13]
    np.testing.assert_array_equal(cut, inside)
    flat, _ = _mask(client, foreground=[POINT, [30, 30, 2]], slice=8)
    assert flat[:, :, 8].any()
    assert not np.delete(flat, 8, axis=2).any()


def test_a_mask_made_earlier_is_kept_where_no_click_contradicts_it(client, server, tmp_path):
    drawn = np.zeros((64, 64, 16), np.uint8)
    drawn[2:12, 50:60, 2:6] = 1
    path = write_nifti(tmp_path / "mask.nii.gz", drawn, server.studies / f"{ITEM}.nii")
    file, _ = client.infer(
        "proofread", ITEM, {**SLICER, "label": "axon", "foreground": [POINT]}, label_in=str(path)
    )
    answer = nrrd.read(file)[0]
    assert answer[tuple(POINT)] == 1
    assert answer[drawn == 1].all()


def test_a_mask_sent_as_raw_bytes(server):
    drawn = np.zeros((64, 64, 16), np.uint8)
    drawn[2:12, 50:60, 2:6] = 1
    answer = requests.post(
        f"{server.url}/infer/proofread", params={"image": ITEM, "output": "image"},
        data={"params": json.dumps({**OHIF, "foreground": [POINT]})},
        files={"label": ("label.bin", drawn.tobytes(order="F"))}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 200
    raw = np.frombuffer(answer.content[-drawn.size :], np.uint8).reshape(drawn.shape, order="F")
    assert raw[drawn == 1].all()
    short = requests.post(
        f"{server.url}/infer/proofread", params={"image": ITEM},
        data={"params": json.dumps({"foreground": [POINT]})},
        files={"label": ("label.bin", b"\1\2")}, timeout=60,
    )  # fmt: skip
    assert short.status_code == 400


def test_classes_without_points_are_the_automatic_ones(client):
    automatic, _ = _mask(client, model="segmentation")
    # a viewer sends every label, most of them empty
    labels = {name: [] for name in client.info()["labels"]}
    answer, _ = _mask(client, model="proofread_classes", **labels, label="axon")
    np.testing.assert_array_equal(answer, automatic)
    answer, _ = _mask(client, model="proofread_classes", background=[])
    np.testing.assert_array_equal(answer, automatic)


def test_class_points_change_the_map(client):
    names = client.info()["models"]["proofread_classes"]["labels"]
    automatic, _ = _mask(client, model="segmentation")
    wrong = next(n for n, v in names.items() if v <= 12 and v != automatic[tuple(POINT)])
    answer, _ = _mask(client, model="proofread_classes", **{wrong: [POINT]})
    assert answer[tuple(POINT)] == names[wrong]
    assert answer.shape == automatic.shape
    _, told = _mask(client, model="proofread_classes", organelle=[POINT])
    assert "organelle" in " ".join(told["warnings"])


def test_two_annotators_at_once(server, tmp_path: Path):
    clients = [MONAILabelClient(server.url, tmpdir=str(tmp_path / name)) for name in "ab"]
    images, together = (ITEM, OTHER), threading.Barrier(2)
    alone = [_mask(c, i, foreground=[POINT])[0] for c, i in zip(clients, images, strict=True)]

    def clicks(n: int) -> list[np.ndarray]:
        together.wait(20)
        return [_mask(clients[n], images[n], foreground=[POINT])[0] for _ in range(5)]

    with ThreadPoolExecutor(2) as pool:
        for n, masks in enumerate(pool.map(clicks, range(2))):
            for mask in masks:
                np.testing.assert_array_equal(mask, alone[n])


@pytest.mark.parametrize(
    "turn",
    [
        np.diag([-1, -1, 1, 1]),
        np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
        np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]]),
    ],
    ids=["flipped", "permuted", "rotated"],
)
def test_answers_lie_where_the_click_was_whatever_the_affine(server, client, tmp_path, turn):
    """Points are voxels of the volume as loaded; the affine only goes with the answer."""
    rng = np.random.default_rng(1)
    image = rng.integers(90, 110, (40, 48, 12), np.uint8)
    point = [12, 30, 5]
    image[10:15, 28:33, 4:7] = 250
    path = tmp_path / "turned.nii"
    nib.save(nib.Nifti1Image(image, turn @ np.diag([8.0, 8.0, 40.0, 1.0])), path)
    file, _ = client.infer("proofread", "", {**SLICER, "foreground": [point]}, file=str(path))
    mask, header = nrrd.read(file)
    assert mask.shape == image.shape
    assert mask[tuple(point)] == 1
    affine = np.eye(4)
    affine[:3, :3] = header["space directions"].T
    affine[:3, 3] = header["space origin"]
    expected = np.diag([-1, -1, 1, 1]) @ nib.load(path).affine
    np.testing.assert_allclose(affine, expected, atol=1e-5)
