"""One rule for what is an image of a study; what is none is named and in nobody's way."""

from __future__ import annotations

import ast
import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from volume_files import SIZE_NM, nifti, volume

from lib.configs.settings import QuerySettings
from lib.labels.hierarchy import load_hierarchy
from lib.queries.select import NoRegion, next_region
from lib.queries.store import ScoreStore
from lib.volumes.errors import VolumeError
from lib.volumes.listing import list_images, split_name
from lib.volumes.study import Study

H = load_hierarchy()
SHAPE = (13, 17, 9)


def skipped(root, **more):
    return {s.name: s.reason for s in list_images(root, **more).skipped}


@pytest.mark.parametrize(
    ("name", "item_id"),
    [("a.nii.gz", "a"), ("a.NII.GZ", "a"), ("a.b.TIF", "a.b"), ("a.tiff", "a"), ("a.nii", "a"),
     ("x.nii.png", "x.nii"), ("a.nrrd", "a")],
)  # fmt: skip
def test_the_ending_goes_and_the_rest_is_the_id(tmp_path, name, item_id):
    (tmp_path / name).write_bytes(b"")
    assert list_images(tmp_path).images == {item_id: tmp_path / name}
    assert "".join(split_name(name)) == name


def test_labels_hidden_files_and_other_kinds_are_not_looked_at(tmp_path):
    for name in (".a.nii", "a.seg.nrrd", "a.neuropil.json", "notes.txt", "datastore_v2.json"):
        (tmp_path / name).write_bytes(b"")
    found = list_images(tmp_path)
    assert found.images == {} and found.skipped == []
    assert list_images(tmp_path / "nothing").images == {}


def test_of_two_files_of_one_id_one_is_the_item_and_the_other_is_named(tmp_path):
    for name in ("dup.png", "dup.nii.gz", "dup.NII.GZ"):
        (tmp_path / name).write_bytes(b"")
    assert list_images(tmp_path).images == {"dup": tmp_path / "dup.NII.GZ"}
    told = skipped(tmp_path)
    assert set(told) == {"dup.png", "dup.nii.gz"}
    assert all("dup.NII.GZ has the same id, 'dup'" in reason for reason in told.values())


def test_what_cannot_be_an_item_is_named_with_the_rule(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere")
    (tmp_path / " x.nii").write_bytes(b"")
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.nii", "wb"):  # noqa: PTH123 - bytes, no text
        pass
    assert list_images(tmp_path).images == {}
    told = skipped(tmp_path)
    assert told["folder.nii"] == "not a file"
    assert "does not exist" in told["gone.nii"]
    assert "a space stands at its end; expected at most" in told[" x.nii"]
    assert "cannot be an id" in told["\\xff\\xfe.nii"]
    "".join(told).encode()


def test_links_out_of_the_study_are_followed_only_when_allowed(tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (tmp_path / "outside.nii").write_bytes(b"")
    (study / "inside.nii").write_bytes(b"")
    (study / "a.nii").symlink_to(tmp_path / "outside.nii")
    (study / "b.nii").symlink_to("inside.nii")
    assert set(list_images(study).images) == {"a", "b", "inside"}
    assert set(list_images(study, follow_links=False).images) == {"b", "inside"}
    assert "server.follow_links" in skipped(study, follow_links=False)["a.nii"]


def corrupt(path):
    path.with_suffix(".nii.gz").write_bytes(b"not a gzip file" * 20)


def empty(path):
    path.with_suffix(".nii.gz").write_bytes(b"")


def colour(path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path.with_suffix(".png"))


def four_axes(path):
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4, 3), np.uint8), np.eye(4)), path.with_suffix(".nii"))


def with_zooms(value):
    def write(path):
        image = nib.Nifti1Image(np.zeros((8, 8, 4), np.uint8), np.diag([8, 8, 40, 1]))
        data = bytearray(image.to_bytes())
        data[80:84] = np.float32(value).tobytes()  # pixdim[1]
        data[252:256] = bytes(4)  # neither qform nor sform: pixdim holds
        path.with_suffix(".nii").write_bytes(data)

    return write


def bad_record(path):
    nifti(path.with_suffix(".nii"), volume(SHAPE))
    path.with_name(f"{path.name}.neuropil.json").write_text("[" * 100_000)


ODD = {
    "corrupt": corrupt, "empty": empty, "colour": colour, "4D": four_axes,
    "NaN spacing": with_zooms(np.nan), "spacing 0": with_zooms(0.0),
    "infinite spacing": with_zooms(np.inf), "record": bad_record,
}  # fmt: skip


@pytest.mark.parametrize("write", ODD.values(), ids=ODD.keys())
def test_an_odd_file_is_told_as_such_and_as_nothing_else(tmp_path, write):
    study = Study(tmp_path, H)
    study.add_item("good", volume(SHAPE), SIZE_NM)
    write(tmp_path / "odd")
    odd, good = study.item("odd"), study.item("good")
    with pytest.raises(VolumeError, match="odd"):
        _ = (odd.shape, odd.voxel_size_nm)
    assert good.voxel_size_nm == SIZE_NM


@pytest.mark.parametrize("strategy", ["random", "hierarchy"])
def test_odd_files_take_no_next_region_from_the_others(tmp_path, strategy):
    study = Study(tmp_path, H)
    for name, write in ODD.items():
        write(tmp_path / name.replace(" ", "-"))
    store = ScoreStore(study, QuerySettings(region=(8, 8, 4)))
    with pytest.raises(NoRegion, match=r"no images that can be read.*4D\.nii"):
        next_region(store, strategy)
    study.add_item("good", volume(SHAPE), SIZE_NM)
    header = (tmp_path / "good.nii").read_bytes()[:400]
    (tmp_path / "torn.nii.gz").write_bytes(gzip.compress(header))
    for seed in range(4):
        query = next_region(store, strategy, rng=np.random.default_rng(seed))
        assert query.item == "good"
        told = {entry["file"] for entry in query.to_dict()["skipped"]}
        assert len(told) >= len(ODD) and {"4D.nii", "colour.png"} <= told


def test_every_study_of_a_user_obeys_follow_links() -> None:
    """Only folders that this app itself fills are opened without the setting."""
    own = {"server/dicom_datastore.py", "adaptation/baseline.py", "demo/commands.py",
           "demo/session.py"}  # fmt: skip
    lib = Path(__file__).parents[2] / "lib"
    without = {
        path.relative_to(lib).as_posix()
        for path in lib.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Study"
        and not any("follow_links" in ast.unparse(part) for part in [*node.args, *node.keywords])
    }
    assert without == own
