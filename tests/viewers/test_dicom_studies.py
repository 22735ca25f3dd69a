"""A DICOM store end to end: two servers with nothing in common but the store."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from numpy.typing import NDArray

from lib.dicom.labels import export_item
from lib.labels.hierarchy import load_hierarchy
from lib.volumes.study import Study, StudyItem
from tests.conftest import Server, start_server
from tests.viewers.conftest import SHAPE, SLICER_PYTHON, VOXEL_NM, Store
from tests.viewers.servers import Client, store_files, stored_segs

pytestmark = pytest.mark.viewers

HIERARCHY = load_hierarchy()
NAMES = ("axon 17", "organelle", "uncertain", "glia")


def painted() -> NDArray[np.uint8]:
    """NAMES as 1..4, in a few of the sections only."""
    values = np.zeros(SHAPE, np.uint8)
    for n in range(len(NAMES)):
        values[10 + 30 * n : 34 + 30 * n, 20:90, 3:9] = n + 1
    return values


def mirror(cache: str) -> Path:
    """The mirror's study folder in a cache."""
    (folder,) = Path(cache).iterdir()
    return folder


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    """Until something holds; the mirror looks at the store now and then."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "the mirror did not follow the store"
        time.sleep(1)


def check(item: StudyItem, values: NDArray[np.uint8]) -> None:
    """Every voxel is what its segment's name says, the others are unknown."""
    meant = [HIERARCHY.unknown] + [
        HIERARCHY.unknown if name == "uncertain" else HIERARCHY.set_named(name.removesuffix(" 17"))
        for name in NAMES
    ]
    np.testing.assert_array_equal(item.read_class_sets(), np.array(meant)[values])
    ids = item.read_instances()
    (number,) = np.unique(ids[values == 1])
    assert number > 0 and not (ids[values != 1] == number).any()


def store_by_dcmqi(store: Store, folder: Path, values: NDArray[np.uint8]) -> None:
    """A SEG as the stock server and many programs write it: empty sections left out."""
    series = store.pieces[1].series.files[0].parent
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing(VOXEL_NM)
    sitk.WriteImage(image, str(folder / "label.nii.gz"))
    code = {"CodeValue": "4421005", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Cell"}
    attributes = [
        {
            "labelID": n, "SegmentLabel": name, "SegmentDescription": name,
            "SegmentAlgorithmType": "MANUAL", "SegmentedPropertyCategoryCodeSequence": code,
            "SegmentedPropertyTypeCodeSequence": code, "recommendedDisplayRGBValue": [9 * n, 90, 9],
        }
        for n, name in enumerate(NAMES, 1)
    ]  # fmt: skip
    meta = {"ContentCreatorName": "a", "SeriesDescription": "dcmqi", "SeriesNumber": "300",
            "InstanceNumber": "1", "segmentAttributes": [attributes]}  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))
    subprocess.run(
        [SLICER_PYTHON.parent / "itkimage2segimage", "--inputImageList", folder / "label.nii.gz",
         "--inputDICOMDirectory", series, "--inputMetadata", folder / "meta.json",
         "--outputDICOM", folder / "seg.dcm"],
        check=True, capture_output=True,
    )  # fmt: skip
    store_files(store.address, [folder / "seg.dcm"])


def test_labels_travel_by_the_store(
    tmp_path: Path, store: Store, app_folder: Path, study: Study
) -> None:
    first = store.environment
    uid, other = (piece.series.series_uid for piece in store.pieces[:2])
    server = start_server(app_folder, store.address, variables=first)
    try:
        annotate(server, uid, tmp_path)
    finally:
        server.stop()
    assert "itkimage2segimage" not in server.log.read_text(), "no program is downloaded"
    assert not list(app_folder.glob("bin/*"))
    own = [ds for ds in stored_segs(store.address) if ds.Manufacturer == "Neuropil"]
    assert {s.SegmentLabel for s in own[-1].SegmentSequence} >= {"organelle", "glia"}

    if (SLICER_PYTHON.parent / "itkimage2segimage").exists():
        store_by_dcmqi(store, tmp_path, painted()[:, ::-1])
    series = export_item(study.item("piece-3"), tmp_path / "ot", modality="OT")
    store_files(store.address, series.files)
    second = store.environment | {"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": '{"Modality":["CT","OT"]}'}
    server = start_server(app_folder, store.address, variables=second)
    try:
        read_back(server, mirror(second["MONAI_LABEL_DICOMWEB_CACHE_PATH"]), uid, other)
        listed = Client(server.url)
        wait_for(lambda: series.series_uid in listed.get("/datastore/?output=all").text)
        status = Client(server.url).train(max_epochs=1, steps_per_epoch=2)
        assert status["status"] == "DONE", server.log_tail(40)
    finally:
        server.stop()


def annotate(server: Server, uid: str, folder: Path) -> None:
    """Next sample, an inference, a submission."""
    client = Client(server.url)
    wait_for(lambda: client.get("/datastore/").json()["total"] >= 3)
    wait_for(lambda: requests.post(f"{server.url}/activelearning/random", json={}).ok)
    answer = requests.post(f"{server.url}/activelearning/random", json={"client_id": "b"})
    assert answer.json()["StudyInstanceUID"], answer.text
    file, _ = client.infer("segmentation", uid)
    assert len(file) > np.prod(SHAPE)
    path = folder / "label.nii.gz"
    nib.save(nib.Nifti1Image(painted(), np.diag([*VOXEL_NM, 1.0])), path)
    listed = [{"name": name, "idx": n} for n, name in enumerate(NAMES, 1)]
    # all of it is meant, also where it is what the machine had answered
    answer = client.submit(uid, path, {"label_info": listed, "truth": "all"})
    assert answer.status_code == 200, answer.text


def read_back(server: Server, folder: Path, uid: str, by_dcmqi: str) -> None:
    """The labels that other programs stored, by a server that has never seen them."""
    client = Client(server.url)
    wait_for(lambda: client.get("/datastore/").json()["completed"] >= 1)
    answer = client.get("/datastore/label", label=uid, tag="final")
    assert answer.status_code == 200, answer.text
    mirrored = Study(folder, HIERARCHY)
    check(mirrored.item(uid), painted())
    if (SLICER_PYTHON.parent / "itkimage2segimage").exists():
        wait_for(lambda: mirrored.has_item(by_dcmqi) and mirrored.item(by_dcmqi).has_label("final"))
        check(mirrored.item(by_dcmqi), painted()[:, ::-1])
