"""The study as a datastore: nothing half-written, nothing forgotten, safe under threads."""

import json
import threading

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore

from lib.configs.settings import Settings
from lib.labels.hierarchy import load_hierarchy
from lib.server.datastore import StudyDatastore
from lib.server.submissions import Submissions
from lib.volumes.study import Study

HIERARCHY = load_hierarchy()
SHAPE = (8, 8, 4)


@pytest.fixture
def root(tmp_path):
    study = Study(tmp_path, HIERARCHY)
    for name in ("a", "b"):
        study.add_item(name, np.full(SHAPE, 100, np.uint8), (8.0, 8.0, 40.0))
    return tmp_path


def _open(root, **more) -> StudyDatastore:
    submissions = Submissions(root, HIERARCHY, Settings())
    return StudyDatastore(
        str(root), submissions, extensions=["*.nii.gz", "*.nii", "*.nrrd"], **more
    )


def _label(folder, value=1):
    path = folder / "upload.nii.gz"
    labels = np.zeros(SHAPE, np.uint8)
    labels[:4] = value
    nib.save(nib.Nifti1Image(labels, np.diag([8.0, 8.0, 40.0, 1.0])), path)
    return path


def test_a_submission_is_mapped_and_noted(root, tmp_path_factory):
    store = _open(root)
    file = _label(tmp_path_factory.mktemp("up"))
    store.save_label("a", str(file), "final", {"label_info": [{"name": "glia", "idx": 1}]})
    glia = HIERARCHY.class_names.index("glia") + 1
    final = np.asanyarray(nib.load(root / "labels" / "final" / "a.nii.gz").dataobj)
    assert set(np.unique(final)) == {0, glia}
    assert store.get_labels_by_image_id("a").keys() == {"final", "instance", "submitted"}
    info = store.get_label_info("a", "final")
    assert info["known_share"]["glia"] == pytest.approx(0.5)
    assert store.get_image_info("a")["known_share"]["unknown"] == pytest.approx(0.5)
    assert _open(root).get_label_info("a", "final")["known_share"] == info["known_share"]


def test_a_label_for_no_image_is_refused(root, tmp_path_factory):
    file = _label(tmp_path_factory.mktemp("up"))
    with pytest.raises(HTTPException):
        _open(root).save_label("c", str(file), "final", {})


def test_the_index_is_whole_at_every_moment(root):
    """The stock datastore truncates its index and writes it in place."""
    store, stop, seen = _open(root), threading.Event(), []
    index = root / "datastore_v2.json"

    def read():
        while not stop.is_set():
            seen.append(len(json.loads(index.read_text())["objects"]))

    thread = threading.Thread(target=read)
    thread.start()
    for n in range(60):
        store.update_image_info("a", {"note": "x" * 20_000, "n": n})
    stop.set()
    thread.join()
    assert set(seen) == {2}
    assert not list(root.glob(".datastore*"))


def test_what_another_process_wrote_is_kept(root):
    one, other = _open(root), _open(root)
    other.update_image_info("a", {"score": 0.5})
    one.update_image_info("b", {"score": 0.7})
    one.save_label("b", str(_label(root.parent)), "original", {"model": "segmentation"})
    fresh = _open(root)
    assert fresh.get_image_info("a")["score"] == 0.5
    assert fresh.get_image_info("b")["score"] == 0.7
    assert fresh.get_label_info("b", "original")["model"] == "segmentation"


def test_requests_and_refreshes_do_not_meet(root):
    """The stock refresh empties the list of images for a moment."""
    store, stop, missing = _open(root), threading.Event(), []

    def refresh():
        while not stop.is_set():
            store.refresh()

    thread = threading.Thread(target=refresh)
    thread.start()
    for _ in range(200):
        if store.get_image_uri("a") == "" or store.status()["total"] != 2:
            missing.append(1)
    stop.set()
    thread.join()
    assert not missing


def test_numbers_that_json_lacks_do_not_reach_the_index(root):
    store = _open(root)
    store.update_image_info("a", {"score": float("nan")})
    assert store.get_image_info("a")["score"] is None
    json.dumps(store.json(), allow_nan=False)


def test_an_image_goes_with_all_that_belongs_to_it(root, tmp_path_factory):
    store = _open(root)
    file = _label(tmp_path_factory.mktemp("up"))
    store.save_label("a", str(file), "final", {"label_info": [{"name": "glia", "idx": 1}]})
    store.remove_image("a")
    assert store.list_images() == ["b"]
    left = [p for p in root.rglob("a*") if p.is_file()]
    assert not left
    kept = list((root / "labels" / "submitted" / "removed").rglob("0001.nii.gz"))
    assert len(kept) == 1, "what an annotator sent is put aside, never lost"


def test_the_stock_datastore_still_has_these_methods():
    """What is guarded must exist, or the guard guards nothing."""
    from lib.server.datastore import GUARDED

    for name in GUARDED:
        assert hasattr(LocalDatastore, name) or name == "note_labels"


def test_a_submission_in_slicers_own_format_stays_in_the_index(root, tmp_path):
    store = _open(root)
    folder = root / "labels" / "submitted"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.seg.nrrd").write_bytes(_label(tmp_path).read_bytes())
    store.note_labels("a", {"submitted": {"name": "a.seg.nrrd"}})
    store.refresh()
    assert store.get_label_uri("a", "submitted") == str(folder / "a.seg.nrrd")
    again = _open(root)
    assert again.get_label_uri("a", "submitted") == str(folder / "a.seg.nrrd")
