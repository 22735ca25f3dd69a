"""Records beside the images: what they say, what is damaged in them, and images without a size."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from volume_files import SIZE_NM, nifti, volume

from lib.configs.settings import QuerySettings
from lib.labels.hierarchy import load_hierarchy
from lib.queries.store import ScoreStore
from lib.volumes.errors import VolumeError
from lib.volumes.record import ItemRecord
from lib.volumes.study import Study

H = load_hierarchy()
SHAPE = (13, 17, 9)


def test_a_short_record_beside_an_image_declares_it_fully_annotated(tmp_path):
    nifti(tmp_path / "theirs.nii.gz", volume(SHAPE))
    (tmp_path / "theirs.neuropil.json").write_text('{"fully_annotated": true}')
    record = Study(tmp_path, H).item("theirs").record
    assert record.fully_annotated and record.voxel_size_nm == pytest.approx(SIZE_NM)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not a readable item record"),
        ("[]", "a JSON object is needed"),
        ('{"id": "other", "voxel_size_nm": [1, 1, 1]}', "belongs to item 'other'"),
        ('{"voxel_size_nm": [1, 1]}', "not enough values"),
        ('{"voxel_size_nm": [0, 1, 1]}', "between 0.01 and 1000000 nm"),
        ('{"voxel_size_nm": [NaN, 1, 1]}', "between 0.01 and 1000000 nm"),
        ('{"voxel_size_nm": "1 1 1"}', "could not convert"),
        ('{"format": 2, "voxel_size_nm": [1, 1, 1]}', "this version reads format 1"),
        ('{"split": "test", "voxel_size_nm": [1, 1, 1]}', "expected train, val or none"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, text, fault):
    nifti(tmp_path / "one.nii", volume(SHAPE))
    path = tmp_path / "one.neuropil.json"
    path.write_text(text)
    with pytest.raises(VolumeError) as caught:
        _ = Study(tmp_path, H).item("one").record
    assert str(path) in str(caught.value) and fault in str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_record_that_is_no_file_is_named_and_not_waited_for(tmp_path, make):
    nifti(tmp_path / "one.nii", volume(SHAPE))
    make(tmp_path / "one.neuropil.json")
    nifti(tmp_path / "two.nii", volume(SHAPE))
    store = ScoreStore(Study(tmp_path, H), QuerySettings())
    items, (left,) = store.usable_items()
    assert [i.id for i in items] == ["two"], "it stands in nobody's way"
    assert "not a file" in left.reason


def test_a_record_of_windows_editors_is_read(tmp_path):
    nifti(tmp_path / "one.nii", volume(SHAPE))
    (tmp_path / "one.neuropil.json").write_text('{"voxel_size_nm": [4, 5, 40]}', "utf-8-sig")
    assert Study(tmp_path, H).item("one").voxel_size_nm == (4.0, 5.0, 40.0)


def test_records_keep_what_they_do_not_know():
    record = ItemRecord.from_dict(
        {"id": "a", "voxel_size_nm": [1, 2, 3], "class_sets": {"201": ["axon"]}, "colour": "red"}
    )
    assert record.extra == {"colour": "red"} and record.class_sets == {201: ["axon"]}
    again = ItemRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again == record


@pytest.mark.parametrize("record", [None, {"fully_annotated": True}])
def test_an_image_without_a_voxel_size_is_taken_as_it_is_and_says_so(tmp_path, record, caplog):
    """One rule for everything that reads an item: not refused here and binned there."""
    from PIL import Image

    from lib.volumes.record import read_record

    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "one.png")
    if record is not None:
        (tmp_path / "one.neuropil.json").write_text(json.dumps(record))
    item = Study(tmp_path, H).item("one")
    assert item.voxel_size_nm == (10.0, 10.0, 10.0) and item.record.size_assumed
    assert "one: no voxel size is known" in caplog.text
    assert (item.affine == np.eye(4)).all(), "viewers show it with a spacing of 1"
    item.write_record(item.record.changed(known_share={"unknown": 1.0}))
    kept = json.loads((tmp_path / "one.neuropil.json").read_text())
    assert "voxel_size_nm" not in kept and "size_assumed" not in kept, "an assumption is not kept"
    stated = read_record(tmp_path / "one.neuropil.json", "one", (4.0, 5.0, 40.0))
    assert stated.voxel_size_nm == (4.0, 5.0, 40.0) and not stated.size_assumed
    assert stated.warning() == "" and "10 nm" in item.record.warning()


@pytest.mark.parametrize("name", ["one.png", "one.nii"])
def test_replies_about_an_image_without_a_voxel_size_say_so(tmp_path, name):
    from PIL import Image

    from lib.volumes.frames import viewer_frame
    from lib.volumes.opened import ImageStore

    if name.endswith("png"):
        Image.fromarray(np.zeros((50, 60), np.uint8)).save(tmp_path / name)
    else:
        nifti(tmp_path / name, volume((60, 50, 4)), np.eye(4))
    images = ImageStore("nm")
    image = images.open(tmp_path / name)
    assert len(image.warnings) == 1 and "one: no voxel size is known" in image.warnings[0]
    frame = viewer_frame(image.shape, image.voxel_size_nm, 10.0, 3)
    assert frame.bins == frame.splits == (1, 1, 1)
    (tmp_path / "one.neuropil.json").write_text('{"voxel_size_nm": [4, 4, 40]}')
    image = images.open(tmp_path / name)
    assert image.warnings == () and image.voxel_size_nm == (4.0, 4.0, 40.0)
