"""A study of one volume: imported with a flag, more objects than uint8 holds, regions for two."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
import tifffile
from monailabel.client import MONAILabelClient

from tests.conftest import ROOT, TINY, Server, environment, make_app, start_server

pytestmark = pytest.mark.contract

ITEM = "volume"
SHAPE = (256, 256, 24)  # x y z
MANY = TINY.replace(
    "min_object_voxels: 5", "min_object_voxels: 1\n  object_threshold: 0.0\n  affinity_margin: 0.5"
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("large")
    noise = np.random.default_rng(0).integers(0, 255, SHAPE[::-1]).astype(np.uint8)
    label = np.zeros_like(noise)
    label[:4, :32, :32] = 4  # axon in a corner; all else is known not to be
    tifffile.imwrite(folder / f"{ITEM}.tif", noise)
    tifffile.imwrite(folder / "label.tif", label)
    words = [str(folder / f"{ITEM}.tif"), "--studies", str(folder / "studies")]
    words += ["--voxel-size-nm", "8", "8", "40", "--semantic", str(folder / "label.tif")]
    subprocess.run(
        [sys.executable, "main.py", "import", *words, "--fully-annotated"],
        cwd=ROOT, env=environment(), check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    bare = folder / "studies" / "bare.nii"
    affine = np.diag([8.0, 8.0, 40.0, 1.0])
    nib.save(nib.Nifti1Image(noise.T.copy(), affine), bare)
    make_app(folder / "app", MANY)
    server = start_server(folder / "app", folder / "studies")
    yield server
    server.stop()


def test_the_import_option_says_that_the_item_is_done(large: Server) -> None:
    info = requests.get(f"{large.url}/datastore/image/info?image={ITEM}", timeout=60).json()
    assert info["fully_annotated"] is True
    assert info["known_share"].get("unknown", 0.0) == 0.0
    assert info["known_share"]["axon"] == pytest.approx(32 * 32 * 4 / np.prod(SHAPE), rel=1e-3)


def test_more_objects_than_a_viewers_map_can_number(large: Server) -> None:
    client = MONAILabelClient(large.url)
    file, params = client.infer(
        "instances", "bare", {"result_extension": ".nrrd", "result_dtype": "uint8"}
    )
    shown, _ = nrrd.read(file)
    path = large.studies / "labels" / params["stored_as"] / "bare.nii.gz"
    stored = np.asanyarray(nib.load(path).dataobj)
    assert stored.dtype == np.uint32 and shown.dtype == np.uint8
    assert params["objects"] == len(np.unique(stored[stored > 0])) > 255
    assert params["limit"], "what the map cannot hold must be told"
    np.testing.assert_array_equal(shown > 0, stored > 0, err_msg="objects were lost")
    for axis in range(3):
        value, number = np.moveaxis(shown, axis, 0), np.moveaxis(stored, axis, 0)
        touching = (number[:-1] != number[1:]) & (number[:-1] > 0) & (number[1:] > 0)
        assert (value[:-1][touching] != value[1:][touching]).all(), "two objects share a value"


def test_two_annotators_get_two_regions_of_the_one_volume(large: Server) -> None:
    score = f"{large.url}/scoring/uncertainty?run_sync=true"
    assert requests.post(score, json={"device": "cpu"}, timeout=300).status_code == 200
    regions = []
    for annotator in ("one", "two"):
        answer = requests.post(
            f"{large.url}/activelearning/diverse", json={"client_id": annotator}, timeout=120
        )
        assert answer.status_code == 200, answer.text
        sample = answer.json()
        assert sample["id"] == "bare"
        regions.append(tuple(sample["region"]["roi"]))
    assert regions[0] != regions[1]
