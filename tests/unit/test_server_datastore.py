"""The study as a datastore: nothing half-written, nothing forgotten, safe under threads."""

import json
import shutil
import threading

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore

from lib.configs.settings import Settings
from lib.labels.hierarchy import load_hierarchy
from lib.server import datastore, study_index
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


def test_what_people_made_or_imported_is_put_aside_when_its_label_is_removed(root):
    study = Study(root, HIERARCHY)
    ids = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    sets = np.full(SHAPE, HIERARCHY.set_named("glia"), np.int32)
    study.add_item("c", np.full(SHAPE, 100, np.uint8), (8.0, 8.0, 40.0), sets, ids)
    (root / "labels" / "original").mkdir()
    (root / "labels" / "original" / "c.nii.gz").write_bytes(b"predicted")
    store = _open(root)
    content = (root / "labels" / "instance" / "c.nii.gz").read_bytes()
    store.remove_label("c", "instance")
    store.remove_label("c", "original")
    assert set(store.get_labels_by_image_id("c")) == {"final"}
    (kept,) = (root / "labels" / ".removed").rglob("*.nii.gz")
    assert kept.parent.name == "instance" and kept.name.endswith("-c.nii.gz")
    assert kept.read_bytes() == content
    store.remove_label("c", "instance")  # there is none any more
    store.remove_image("c")
    names = sorted(p.parent.name for p in (root / "labels" / ".removed").rglob("*.nii.gz"))
    assert names == ["final", "instance"]
    assert _open(root).list_images() == ["a", "b"]
    with pytest.raises(HTTPException, match="no image 'c'"):
        store.remove_image("c")


@pytest.mark.parametrize("target", ["elsewhere.nii", "study/b.nii"])
def test_removing_a_link_leaves_what_it_leads_to(tmp_path, target):
    """The stock datastore removes the file at the end of the link."""
    study = Study(tmp_path / "study", HIERARCHY)
    study.add_item("b", np.full(SHAPE, 100, np.uint8), (8.0, 8.0, 40.0))
    shutil.copyfile(study.root / "b.nii", tmp_path / "elsewhere.nii")
    (study.root / "linked.nii").symlink_to(tmp_path / target)
    store = _open(study.root, follow_links=True)
    assert store.list_images() == ["b", "linked"]
    store.remove_image("linked")
    assert (tmp_path / target).exists() and not (study.root / "linked.nii").is_symlink()
    assert store.list_images() == ["b"]


def test_the_stock_datastore_still_has_these_methods():
    """What is guarded must exist, or the guard guards nothing."""
    for name in datastore.GUARDED:
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


def test_an_id_that_is_taken_is_never_given_to_another_image(root, tmp_path_factory):
    store, folder = _open(root), tmp_path_factory.mktemp("up")
    kept = (root / "a.nii").read_bytes()
    other = folder / "x.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.diag([8.0, 8.0, 40.0, 1.0])), other)
    with pytest.raises(HTTPException) as told:
        store.add_image("a", str(other), {})
    assert told.value.status_code == 409 and "'a' exists (a.nii)" in told.value.detail
    assert (root / "a.nii").read_bytes() == kept and not (root / "a.nii.gz").exists()
    assert store.add_image("a", str(root / "a.nii"), {}) == "a", "sent twice, it is one image"
    assert store.add_image("c d", str(other), {"note": 1}) == "c d"
    assert (root / "c d.nii.gz").read_bytes() == other.read_bytes()
    assert store.get_image_info("c d")["note"] == 1
    assert not list(root.glob(".*.part"))


@pytest.mark.parametrize("name", [".x", "a/b", "a\\b", "x" * 181, "a\ud800"])
def test_a_name_that_cannot_be_an_id_is_refused_with_the_rule(root, name):
    with pytest.raises(ValueError, match="expected at most 180 bytes"):
        _open(root).add_image(name, str(root / "a.nii"), {})


@pytest.mark.parametrize("index", [b"{", b"\xff", b'{"name": "\\ud800"}', b"[" * 100_000, None])
def test_an_index_that_cannot_be_read_is_set_aside_and_built_anew(root, index):
    _open(root).update_image_info("a", {"note": 1})
    path = root / "datastore_v2.json"
    path.unlink()
    if index is None:
        path.mkdir()
    else:
        path.write_bytes(index)
    store = _open(root)
    assert sorted(store.list_images()) == ["a", "b"]
    assert (root / "datastore_v2.json.unreadable-1").exists()
    store.update_image_info("a", {"note": 2})
    assert _open(root).get_image_info("a")["note"] == 2
    if index is not None:  # and under a server that runs
        path.write_bytes(index)
        store.update_image_info("b", {"note": 3})
        assert sorted(_open(root).list_images()) == ["a", "b"]


def test_an_info_that_cannot_be_written_is_not_half_kept(root, monkeypatch):
    store = _open(root)
    store.update_image_info("a", {"note": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(study_index, "write_bytes", full)
        store.update_image_info("a", {"note": 2})
    assert store.get_image_info("a")["note"] == 1


def test_a_submission_is_kept_where_the_index_cannot_be_written(
    root, tmp_path_factory, monkeypatch
):
    store = _open(root)
    file = _label(tmp_path_factory.mktemp("up"))

    def full(*_):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(study_index, "write_bytes", full)
        store.save_label("a", str(file), "final", {"label_info": [{"name": "glia", "idx": 1}]})
    assert "final" in store.get_labels_by_image_id("a")
    assert "final" in _open(root).get_labels_by_image_id("a")


def test_links_out_of_the_study_are_not_served(root, tmp_path_factory):
    secret = tmp_path_factory.mktemp("outside") / "secret.nii"
    secret.write_bytes((root / "a.nii").read_bytes())
    (root / "linked.nii").symlink_to(secret)
    (root / "labels" / "other").mkdir(parents=True)
    (root / "labels" / "other" / "a.nii").symlink_to(secret)
    store = _open(root)
    assert store.list_images() == ["a", "b"] and not store.get_label_uri("a", "other")
    assert "server.follow_links" in {s.name: s.reason for s in store.skipped()}["linked.nii"]
    (root / "b.nii").unlink()
    (root / "b.nii").symlink_to(secret)  # behind the index's back
    with pytest.raises(HTTPException) as told:
        store.get_image_uri("b")
    assert told.value.status_code == 403
    assert _open(root, follow_links=True).get_image_uri("linked") == str(root / "linked.nii")


def test_odd_files_are_listed_or_named(root):
    shutil.copy(root / "a.nii", root / "a.b.c.NII")
    shutil.copy(root / "a.nii", root / "100% [x].nii")
    (root / "a.png").write_bytes(b"")
    store = _open(root)
    assert sorted(store.list_images()) == ["100% [x]", "a", "a.b.c", "b"]
    assert store.get_image_uri("a.b.c") == str(root / "a.b.c.NII")
    assert [s.name for s in store.skipped()] == ["a.png"]
    assert store.get_image_uri("a") == str(root / "a.nii")


def test_a_label_of_a_tag_replaces_the_one_of_another_kind(root):
    store = _open(root)
    for suffix in (".nii", ".nrrd"):
        label = root.parent / f"label{suffix}"
        label.write_bytes(b"x")
        store.save_label("a", str(label), "mine", {})
    assert [p.name for p in (root / "labels" / "mine").iterdir()] == ["a.nrrd"]
    assert store.get_label_uri("a", "mine").endswith("labels/mine/a.nrrd")


def test_links_in_a_circle_and_to_nothing_stop_no_start(root, caplog):
    """A label that links to itself ended the start of the server."""
    final = root / "labels" / "final"
    final.mkdir(parents=True, exist_ok=True)
    for name, to in (("a", "a"), ("b", "nowhere")):
        (final / f"{name}.nii.gz").symlink_to(f"{to}.nii.gz")
    (root / "round.nii").symlink_to("round.nii")
    (root / "labels" / "round").symlink_to("round")
    store = _open(root)
    assert store.list_images() == ["a", "b"]
    assert store.get_labels_by_image_id("a") == store.get_labels_by_image_id("b") == {}
    assert caplog.text.count("to a file that does not exist") >= 2
    assert [s.name for s in store.skipped()] == ["round.nii"]


@pytest.mark.parametrize("name", ["labels", "labels/final"])
def test_a_file_where_labels_belong_is_set_aside(root, name):
    path = root / name
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text("notes")
    assert _open(root).list_images() == ["a", "b"]
    assert path.with_name(f"{path.name}.unreadable-1").read_text() == "notes"


def test_an_image_whose_record_is_a_folder_can_be_removed(root):
    record = root / "a.neuropil.json"
    record.unlink()
    (record / "inside").mkdir(parents=True)
    store = _open(root)
    store.remove_image("a")
    assert store.list_images() == ["b"] and (record / "inside").is_dir()
