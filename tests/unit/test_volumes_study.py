"""Study items on disk: what is written is what is read, and half of it never shows."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import SIZE_NM, labels, nifti, volume

from lib.labels.hierarchy import load_hierarchy
from lib.volumes import writing
from lib.volumes.errors import VolumeError
from lib.volumes.study import Study

H = load_hierarchy()
SHAPE = (13, 17, 9)


@pytest.mark.parametrize("slab_bytes", [1, 4000, 1 << 25])
def test_an_item_is_read_as_it_was_written(tmp_path, monkeypatch, slab_bytes):
    monkeypatch.setattr(writing, "SLAB_BYTES", slab_bytes)
    study = Study(tmp_path / "s", H)
    image, (sets, ids) = volume(SHAPE, np.uint16), labels()
    written = []
    item, counts = study.add_item(
        "one", image, SIZE_NM, sets, ids, progress=written.append, split="val",
        origin_voxels=(5, 6, 7), source={"path": "p"}, fully_annotated=True, true_instances=False,
    )  # fmt: skip
    assert sum(written) == image.size
    assert isinstance(item.open_image(), np.memmap) and item.shape == SHAPE
    assert (item.open_image() == image).all()
    assert (item.read_class_sets() == sets).all() and item.read_class_sets().dtype == np.int32
    assert (item.read_instances() == ids).all() and item.read_instances().dtype == np.int64
    box = ((3, 9), (0, 17), (4, 5))
    assert (item.read_class_sets(box) == sets[3:9, :, 4:5]).all()
    assert (item.read_instances(box) == ids[3:9, :, 4:5]).all()
    assert counts.objects == {i for i in np.unique(ids) if i > 0}
    assert counts.unknown_ids == (ids == -1).sum() and counts.voxels == ids.size
    record = item.record
    assert (record.split, record.origin_voxels, record.source) == ("val", (5, 6, 7), {"path": "p"})
    assert record.fully_annotated and not record.true_instances
    assert record.known_share["axon"] == pytest.approx((sets == 8).mean())
    assert sum(record.known_share.values()) == pytest.approx(1)
    assert not list((tmp_path / "s").rglob(".*")), "no temporary file stays"


def test_viewers_read_the_same_grid(tmp_path):
    image, (sets, ids) = volume(SHAPE), labels()
    Study(tmp_path, H).add_item("one", image, SIZE_NM, sets, ids)
    for name in ("one.nii", "labels/final/one.nii.gz", "labels/instance/one.nii.gz"):
        seen = sitk.ReadImage(str(tmp_path / name))
        assert seen.GetSpacing() == pytest.approx(SIZE_NM) and seen.GetSize() == SHAPE
    assert (image == sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "one.nii"))).T).all()
    stored = nib.load(tmp_path / "labels/instance/one.nii.gz")
    assert stored.get_data_dtype() == np.uint32
    assert (np.asarray(stored.dataobj) == np.where(ids < 0, 2**32 - 1, ids)).all()


def test_equal_labels_are_equal_bytes(tmp_path):
    for root in ("a", "b"):
        Study(tmp_path / root, H).add_item("one", volume(SHAPE), SIZE_NM, *labels())
    files = [tmp_path / r / "labels" / "final" / "one.nii.gz" for r in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_item_without_labels_is_unknown(tmp_path):
    item, _ = Study(tmp_path, H).add_item("one", volume(SHAPE), SIZE_NM)
    assert not item.has_label("final") and item.record.known_share == {"unknown": 1.0}
    assert (item.read_class_sets() == H.unknown).all()
    assert (item.read_instances(((0, 2), (0, 3), (0, 4))) == -1).all()


def test_two_dimensional_items(tmp_path):
    image = volume((20, 30, 1))
    item, _ = Study(tmp_path, H).add_item("flat", image, SIZE_NM)
    assert item.shape == (20, 30, 1) and (item.open_image() == image).all()


def test_images_of_others_are_items(tmp_path):
    nifti(tmp_path / "theirs.nii.gz", volume(SHAPE))
    nifti(tmp_path / "plain.nii", volume(SHAPE), np.eye(4))
    (tmp_path / ".hidden.nii").write_bytes(b"")
    (tmp_path / "datastore_v2.json").write_text("{}")
    study = Study(tmp_path, H)
    assert [i.id for i in study.items()] == ["plain", "theirs"]
    theirs = study.item("theirs")
    assert theirs.voxel_size_nm == pytest.approx(SIZE_NM)
    assert (theirs.open_image()[3:5, :, 2:3] == volume(SHAPE)[3:5, :, 2:3]).all()
    assert study.item("plain").record.size_assumed
    (tmp_path / "plain.neuropil.json").write_text('{"voxel_size_nm": [1, 2, 3]}')
    assert study.item("plain").voxel_size_nm == (1.0, 2.0, 3.0)


def test_an_existing_item_is_only_written_over_when_asked(tmp_path):
    study = Study(tmp_path, H)
    study.add_item("one", volume(SHAPE), SIZE_NM, *labels())
    with pytest.raises(VolumeError, match="item one exists"):
        study.add_item("one", volume(SHAPE, seed=1), SIZE_NM)
    assert (study.item("one").open_image() == volume(SHAPE)).all()
    item, _ = study.add_item("one", volume((4, 5, 6), seed=1), SIZE_NM, replace=True)
    assert item.shape == (4, 5, 6)
    assert not item.has_label("final") and not item.has_label("instance"), "old labels are gone"


def test_replacing_an_image_of_another_kind(tmp_path):
    nifti(tmp_path / "one.nii.gz", volume(SHAPE))
    item, _ = Study(tmp_path, H).add_item("one", volume((4, 5, 6)), SIZE_NM, replace=True)
    assert item.shape == (4, 5, 6) and not (tmp_path / "one.nii.gz").exists()


@pytest.mark.parametrize("submission", ["one.nrrd", "versions/one/0001.json"])
def test_an_item_with_submissions_is_never_written_over(tmp_path, submission):
    study = Study(tmp_path, H)
    study.add_item("one", volume(SHAPE), SIZE_NM)
    path = tmp_path / "labels" / "submitted" / submission
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(VolumeError, match="submissions of annotators"):
        study.add_item("one", volume(SHAPE), SIZE_NM, replace=True)
    other = "on"  # a name that begins alike is another item
    study.add_item(other, volume(SHAPE), SIZE_NM)
    study.add_item(other, volume(SHAPE), SIZE_NM, replace=True)


@pytest.mark.parametrize(
    ("image", "sets", "ids", "fault"),
    [
        (volume(SHAPE).astype(np.float32), None, None, "type float32"),
        (volume(SHAPE)[:, :, 0], None, None, "shape"),
        (volume((3, 4, 0)), None, None, "none 0"),
        (volume(SHAPE), np.ones((13, 17, 8), np.int32), None, "class sets of shape"),
        (volume(SHAPE), None, np.ones((13, 16, 9), int), "instance ids of shape"),
        (volume(SHAPE), None, np.full(SHAPE, 2**32 - 1), "id 4294967295 at voxel (0, 0, 0)"),
        (volume(SHAPE), None, np.full(SHAPE, -2), "id -2 at voxel"),
        (volume(SHAPE), np.zeros(SHAPE, np.int32), None, "holds no class"),
    ],
)
def test_what_cannot_be_an_item_leaves_nothing(tmp_path, image, sets, ids, fault):
    with pytest.raises(ValueError) as caught:
        Study(tmp_path, H).add_item("one", image, SIZE_NM, sets, ids)
    assert fault in str(caught.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_label_of_another_shape_is_refused(tmp_path):
    study = Study(tmp_path, H)
    study.add_item("one", volume(SHAPE), SIZE_NM)
    (tmp_path / "labels" / "final").mkdir(parents=True)
    nifti(tmp_path / "labels" / "final" / "one.nii.gz", volume((4, 4, 4)))
    with pytest.raises(VolumeError, match=r"shape \(4, 4, 4\); expected \(13, 17, 9\)"):
        study.item("one").read_class_sets()


def test_a_label_value_of_no_meaning_is_named_with_its_place(tmp_path):
    study = Study(tmp_path, H)
    study.add_item("one", volume(SHAPE), SIZE_NM)
    final = np.zeros(SHAPE, np.uint8)
    final[2, 3, 4] = 77
    (tmp_path / "labels" / "final").mkdir(parents=True)
    nifti(tmp_path / "labels" / "final" / "one.nii.gz", final)
    with pytest.raises(VolumeError, match=r"value 77 at voxel \(2, 3, 4\)"):
        study.item("one").read_class_sets(((1, 5), (1, 5), (4, 6)))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".png", ".tif", ".nrrd"])
def test_a_label_that_is_no_file_is_named_and_not_waited_for(tmp_path, make, suffix):
    item, _ = Study(tmp_path, H).add_item("one", volume(SHAPE), SIZE_NM)
    path = tmp_path / "labels" / "final" / f"one{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    with pytest.raises(VolumeError, match="a folder, pipe or device; expected a file"):
        item.read_class_sets()


@pytest.mark.parametrize("value", [0.5, 3.7, np.nan, np.inf, -1.0, 256.0])
def test_class_labels_of_no_whole_number_are_refused(tmp_path, value):
    """A map that was resampled or smoothed: its values are no classes any more."""
    item, _ = Study(tmp_path, H).add_item("one", volume(SHAPE), SIZE_NM)
    final = np.zeros(SHAPE, np.float32)
    final[1] = 4.0
    (tmp_path / "labels" / "final").mkdir(parents=True, exist_ok=True)
    path = tmp_path / "labels" / "final" / "one.nii"
    nifti(path, final)
    assert (item.read_class_sets()[1] == H.set_named("axon")).all(), "whole numbers are"
    path.unlink()
    final[2, 3, 4] = value
    nifti(path, final)
    with pytest.raises(VolumeError, match=r"at voxel \(2, 3, 4\); expected 0 unlabelled"):
        item.read_class_sets()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(0.5, np.float32), (np.nan, np.float32), (np.inf, np.float64), (-2, np.int16),
     (2**32, np.int64), (2**40, np.float64)],
)  # fmt: skip
def test_objects_of_no_id_are_refused(tmp_path, value, dtype):
    item, _ = Study(tmp_path, H).add_item("one", volume(SHAPE), SIZE_NM)
    ids = np.zeros(SHAPE, dtype)
    ids[0], ids[1] = 7, -1
    path = tmp_path / "labels" / "instance" / "one.nii"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(ids, np.diag([*SIZE_NM, 1]), dtype=dtype), path)
    read = item.read_instances()
    assert (read[0] == 7).all() and (read[1] == -1).all()
    ids[2, 3, 4] = value
    path.unlink()
    nib.save(nib.Nifti1Image(ids, np.diag([*SIZE_NM, 1]), dtype=dtype), path)
    with pytest.raises(VolumeError, match="is no id of an object; expected whole numbers"):
        item.read_instances()


def test_labels_are_decoded_once_in_one_pass(tmp_path, monkeypatch):
    """Reading slab after slab must not begin at the start of the file each time."""
    study = Study(tmp_path, H)
    study.add_item("one", volume((64, 64, 40)), SIZE_NM, np.full((64, 64, 40), 8, np.int32))
    from lib.volumes import plain

    opened = []
    real = plain.gzip.GzipFile
    monkeypatch.setattr(
        plain.gzip, "GzipFile", lambda fileobj: opened.append(1) or real(fileobj=fileobj)
    )
    item = study.item("one")
    for z in range(40):
        assert (item.read_class_sets(((0, 64), (0, 64), (z, z + 1))) == 8).all()
    assert len(opened) == 1


def test_a_label_that_is_replaced_is_read_anew(tmp_path):
    study = Study(tmp_path, H)
    item, _ = study.add_item("one", volume(SHAPE), SIZE_NM, *labels(0))
    assert (item.read_instances() == labels(0)[1]).all()
    study.add_item("one", volume(SHAPE), SIZE_NM, *labels(1), replace=True)
    assert (item.read_instances() == labels(1)[1]).all()


def test_class_sets_that_came_with_a_later_submission_are_known_to_an_open_item(tmp_path):
    study = Study(tmp_path, H)
    sets = np.full(SHAPE, 1, np.int32)
    item, _ = study.add_item("one", volume(SHAPE), SIZE_NM, sets)
    assert (item.read_class_sets() == sets).all()  # its record is read now
    later = np.full(SHAPE, 1 << 3 | 1 << 6, np.int32)  # neither a class nor a group
    study.add_item("one", volume(SHAPE), SIZE_NM, later, replace=True)
    assert (item.read_class_sets() == later).all()


def test_items_travel_to_worker_processes(tmp_path):
    item, _ = Study(tmp_path, H).add_item("one", volume(SHAPE), SIZE_NM, *labels())
    item.read_class_sets()
    again = pickle.loads(pickle.dumps(item))
    assert (again.read_class_sets() == labels()[0]).all()
    assert (again.open_image() == volume(SHAPE)).all()


def test_an_unknown_item_lists_the_known_ones(tmp_path):
    study = Study(tmp_path, H)
    study.add_item("one", volume(SHAPE), SIZE_NM)
    with pytest.raises(ValueError, match="no item 'two'; items: one"):
        study.item("two")
    assert Study(tmp_path / "missing", H).items() == []


def test_importing_again_clears_leftovers(tmp_path):
    leftover = tmp_path / "labels" / "final" / ".one.nii.gz.999999999.part"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half")
    Study(tmp_path, H).add_item("one", volume(SHAPE), SIZE_NM)
    assert not leftover.exists()
