"""Submissions: kept as they came, and their labels derived whole."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from submission_cases import (
    AXON,
    INFO,
    INSIDE,
    MITO,
    ROI,
    SHAPE,
    TEAR,
    H,
    seg_nrrd,
    strokes,
    upload,
)
from volume_files import SIZE_NM, nifti, volume

from lib.annotation import deriving
from lib.annotation.submissions import submit
from lib.annotation.submitted_file import place_on_grid
from lib.annotation.versions import SubmissionOptions, versions
from lib.volumes.boxes import box_slices
from lib.volumes.study import Study


def test_a_submission_is_kept_and_its_labels_derived(tmp_path, study):
    data = strokes()
    raw = upload(tmp_path, data)
    derived = submit(study, "one", raw, INFO, SubmissionOptions(params={"user": "ann"}))
    item = study.item("one")
    sets, ids, final = item.read_class_sets(), item.read_instances(), item.read_final()
    for value, bits, object_id, code in (
        (0, H.unknown, -1, 0), (1, AXON, -1, 4), (2, H.set_named("organelle"), -1, 104),
        (3, AXON, 17, 4), (4, H.unknown, -1, 255),
    ):  # fmt: skip
        here = data == value
        assert (sets[here] == bits).all() and (ids[here] == object_id).all()
        assert (final[here] == code).all(), value
    kept = study.root / "labels" / "submitted" / "versions" / "one" / "0001.nii.gz"
    assert kept.read_bytes() == raw.read_bytes()
    assert (study.root / "labels" / "submitted" / "one.nii.gz").read_bytes() == raw.read_bytes()
    (version,) = versions(study, "one")
    assert version.label_info == INFO and version.options.params == {"user": "ann"}
    assert version.rejected == "" and version.number == 1
    assert derived.objects == {17: "axon 17"}
    assert derived.known_share == item.record.known_share
    assert item.record.known_share["axon"] == pytest.approx(np.isin(data, (1, 3)).mean())
    assert item.record.extra["objects"] == {"17": "axon 17"}


def test_the_next_submission_replaces_the_labels_and_keeps_the_version(tmp_path, study):
    submit(study, "one", upload(tmp_path, strokes(0)), INFO)
    second = strokes(1)
    submit(study, "one", upload(tmp_path, second), INFO)
    assert [v.number for v in versions(study, "one")] == [1, 2]
    sets = study.item("one").read_class_sets()
    assert (sets[second == 0] == H.unknown).all() and (sets[second == 1] == AXON).all()


def test_the_newest_raw_file_is_the_only_one_of_its_tag(tmp_path, study):
    submit(study, "one", upload(tmp_path, strokes(0)), INFO)
    nrrd.write(str(tmp_path / "up.nrrd"), strokes(1))
    submit(study, "one", tmp_path / "up.nrrd", INFO)
    tag = study.root / "labels" / "submitted"
    assert [p.name for p in tag.iterdir() if p.is_file()] == ["one.nrrd"]
    assert sorted(p.name for p in (tag / "versions" / "one").glob("0*.n*")) == [
        "0001.nii.gz", "0002.nrrd",
    ]  # fmt: skip


def test_labels_from_before_the_first_submission_are_kept(tmp_path):
    study = Study(tmp_path / "study", H)
    sets, ids = np.full(SHAPE, AXON, np.int32), np.full(SHAPE, 5)
    study.add_item("one", volume(SHAPE), SIZE_NM, sets, ids)
    paths = [study.item("one").label_path(t) for t in ("final", "instance")]
    before = [p.read_bytes() for p in paths]
    for seed in range(2):
        submit(study, "one", upload(tmp_path, strokes(seed)), INFO)
    folder = study.root / "labels" / "submitted" / "versions" / "one"
    kept = [folder / f"0000-{t}.nii.gz" for t in ("final", "instance")]
    assert [p.read_bytes() for p in kept] == before
    assert [p.read_bytes() for p in paths] != before


def test_fully_annotated_by_parameter_and_by_record(tmp_path, study):
    data = strokes()
    left = H.unknown & ~H.set_of(["axon", "organelle"])
    submit(study, "one", upload(tmp_path, data), INFO, SubmissionOptions(fully_annotated=True))
    item = study.item("one")
    assert (item.read_class_sets()[data == 0] == left).all() and item.record.fully_annotated
    submit(study, "one", upload(tmp_path, data), INFO)
    assert (study.item("one").read_class_sets()[data == 0] == left).all(), "the record says so"
    submit(study, "one", upload(tmp_path, data), INFO, SubmissionOptions(fully_annotated=False))
    assert (study.item("one").read_class_sets()[data == 0] == H.unknown).all()
    assert not study.item("one").record.fully_annotated


def test_a_region_leaves_the_rest_as_it_is(tmp_path, study):
    first, second = strokes(0), strokes(1)
    submit(study, "one", upload(tmp_path, first), INFO)
    before = study.item("one")
    old_sets, old_ids = before.read_class_sets(), before.read_instances()
    old_final = before.read_final()
    options = SubmissionOptions(roi=ROI, fully_annotated=True)
    submit(study, "one", upload(tmp_path, second), INFO, options)
    item = study.item("one")
    sets, ids, final = item.read_class_sets(), item.read_instances(), item.read_final()
    assert (sets[~INSIDE] == old_sets[~INSIDE]).all() and (ids[~INSIDE] == old_ids[~INSIDE]).all()
    assert (final[~INSIDE] == old_final[~INSIDE]).all(), "uncertain stays uncertain"
    assert (ids[INSIDE & (second == 3)] == 17).all()
    left = H.unknown & ~H.set_of(["axon", "organelle"])
    assert (sets[INSIDE & (second == 0)] == left).all()
    assert not item.record.fully_annotated, "the item as a whole is not"


def test_ids_of_a_region_do_not_meet_those_outside(tmp_path, study):
    whole = np.ones(SHAPE, np.uint8)
    submit(study, "one", upload(tmp_path, whole), [{"name": "blob"}])
    names = [{"name": "other"}, {"name": "blob"}, {"name": "axon 1"}]
    data = np.where(INSIDE, strokes(high=3) + 1, 0).astype(np.uint8)
    submit(study, "one", upload(tmp_path, data), names, SubmissionOptions(roi=ROI))
    ids = study.item("one").read_instances()
    assert (ids[~INSIDE] == 1).all()
    assert (ids[data == 2] == 1).all(), "blob goes on being blob"
    others = {int(np.unique(ids[data == v]).item()) for v in (1, 3)}
    assert len(others) == 2 and not others & {1, 0, -1}


def test_merging_keeps_what_is_not_painted(tmp_path, study):
    first, second = strokes(0), strokes(1)
    submit(study, "one", upload(tmp_path, first), INFO)
    submit(study, "one", upload(tmp_path, second), INFO, SubmissionOptions(mode="merge"))
    item = study.item("one")
    both = np.where(second > 0, second, first)
    assert (item.read_class_sets()[both == 1] == AXON).all()
    assert (item.read_instances()[both == 3] == 17).all()
    assert ((item.read_final() == 255) == (both == 4)).all()


@pytest.mark.parametrize("slab", [1, 5000])
def test_slabs_do_not_show(tmp_path, study, monkeypatch, slab):
    monkeypatch.setattr(deriving, "SLAB_BYTES", slab)
    test_a_region_leaves_the_rest_as_it_is(tmp_path, study)


def test_class_set_codes_stay_when_labels_change(tmp_path):
    study = Study(tmp_path / "study", H)
    pair = H.set_of(["axon", "tear"])
    study.add_item("one", volume(SHAPE), SIZE_NM, np.full(SHAPE, pair, np.int32))
    blob = [{"name": "blob"}]
    data = INSIDE.astype(np.uint8)
    submit(study, "one", upload(tmp_path, data), blob, SubmissionOptions(roi=ROI))
    item = study.item("one")
    assert item.record.class_sets[201] == ["tear", "axon"] and 202 in item.record.class_sets
    sets = item.read_class_sets()
    assert (sets[~INSIDE] == pair).all() and (sets[INSIDE] == H.object_set).all()


def test_overlapping_layers_of_a_segmentation(tmp_path, study):
    cell, inside = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    cell[2:10], inside[4:6] = 1, 1
    cell[11:] = 3
    inside[12:] = 2
    segments = [("axon 17", 1, 0), ("mitochondria", 1, 1), ("tear", 3, 0), ("soma", 2, 1),
                ("nothing", 2, 0)]  # fmt: skip
    path = seg_nrrd(tmp_path / "up.seg.nrrd", [cell, inside], segments)
    derived = submit(study, "one", path)
    item = study.item("one")
    sets, ids = item.read_class_sets(), item.read_instances()
    assert (sets[4:6] == MITO).all() and (ids[4:6] == -1).all()
    assert (sets[2:4] == AXON).all() and (ids[6:10] == 17).all()
    assert (sets[11] == TEAR).all() and (ids[11] == 0).all()
    assert (sets[12:] == H.set_named("soma")).all() and (ids[12:] == -1).all()
    assert (sets[:2] == H.unknown).all()
    assert any(n.startswith("153 voxels lie in segments that exclude") for n in derived.notes)
    assert "without voxels: nothing" in derived.notes
    newest = study.root / "labels" / "submitted" / "one.seg.nrrd"
    assert newest.exists() and [i.id for i in study.items()] == ["one"]


def test_a_cropped_segmentation_lies_where_its_origin_says(tmp_path, study):
    small = strokes(shape=(4, 5, 3), high=2)
    x, y, z = SIZE_NM
    path = seg_nrrd(
        tmp_path / "up.seg.nrrd", [small], [("axon", 1, 0)],
        **{"space origin": [-3 * x, -2 * y, 4 * z]},
    )  # fmt: skip
    submit(study, "one", path)
    wanted = np.full(SHAPE, H.unknown)
    wanted[3:7, 2:7, 4:7] = np.where(small == 1, AXON, H.unknown)
    assert (study.item("one").read_class_sets() == wanted).all()


def test_paint_outside_the_image_is_told(tmp_path, study):
    path = seg_nrrd(
        tmp_path / "up.seg.nrrd", [np.ones((4, 5, 3), np.uint8)], [("axon", 1, 0)],
        **{"space origin": [2 * SIZE_NM[0], 0.0, 0.0]},
    )  # fmt: skip
    derived = submit(study, "one", path)
    assert "30 painted voxels lie outside the image" in derived.notes
    assert (study.item("one").read_class_sets() == AXON).sum() == 30


@pytest.mark.parametrize("shape", [(10, 17, 9), (14, 18, 10), (13, 17, 1), (17, 13, 9)])
def test_a_label_of_another_shape_than_its_image_is_told(tmp_path, study, shape):
    given = strokes(shape=shape, high=2)
    derived = submit(study, "one", upload(tmp_path, given), [{"name": "axon"}])
    sizes = " x ".join(map(str, shape))
    assert any(f"the label has {sizes} voxels, the image 13 x 17 x 9" in n for n in derived.notes)
    wanted = np.zeros(SHAPE, bool)
    x, y, z = (min(a, b) for a, b in zip(shape, SHAPE, strict=True))
    wanted[:x, :y, :z] = given[:x, :y, :z] == 1
    assert ((study.item("one").read_class_sets() == AXON) == wanted).all()


def test_of_labels_on_the_images_grid_no_shape_is_told(tmp_path, study):
    whole = submit(study, "one", upload(tmp_path, strokes(high=2)), [{"name": "axon"}])
    cut = seg_nrrd(
        tmp_path / "up.seg.nrrd", [np.ones((4, 5, 3), np.uint8)], [("axon", 1, 0)],
        **{"space origin": [0.0, 0.0, 0.0]},
    )  # fmt: skip
    for derived in (whole, submit(study, "one", cut)):
        assert not any("the label has" in note for note in derived.notes)


@settings(max_examples=60, deadline=None)
@given(
    axes=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    start=st.tuples(*[st.integers(-4, 6)] * 3),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
)
def test_turned_and_flipped_labels_find_their_voxels(axes, signs, start, shape):
    """A label whose axes run otherwise: every voxel goes where its affine says."""
    target = np.diag([4.0, -5.0, 40.0, 1.0])
    target[:3, 3] = 7, 8, 9
    turn = np.zeros((4, 4))
    for i, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        turn[axis, i] = sign
    turn[:3, 3], turn[3, 3] = start, 1
    label = np.random.default_rng(0).integers(1, 9, shape)
    got, lost, reach = place_on_grid(label, target @ turn, target, (7, 8, 6), Path("x"))
    wanted, outside, covered = np.zeros((7, 8, 6), int), 0, np.zeros((7, 8, 6), bool)
    for index in np.ndindex(shape):
        place = (turn @ [*index, 1])[:3].astype(int)
        if ((place >= 0) & (place < wanted.shape)).all():
            wanted[tuple(place)] = label[index]
            covered[tuple(place)] = True
        else:
            outside += 1
    assert (got == wanted).all() and lost == outside
    covered[box_slices(reach)] ^= True
    assert not covered.any()


def test_voxels_without_geometry_are_taken_as_they_are(tmp_path, study):
    data = strokes(high=2)
    submit(study, "one", Path(nifti(tmp_path / "up.nii.gz", data, np.eye(4))), [{"name": "axon"}])
    assert ((study.item("one").read_class_sets() == AXON) == (data == 1)).all()
    nrrd.write(str(tmp_path / "bare.nrrd"), 1 - data)
    submit(study, "one", tmp_path / "bare.nrrd", [{"name": "axon"}])
    assert ((study.item("one").read_class_sets() == AXON) == (data == 0)).all()


def test_an_image_of_others_keeps_its_orientation(tmp_path):
    affine = np.diag([-4.0, 5.0, 40.0, 1.0])
    affine[:3, 3] = 100, 0, -7
    nifti(tmp_path / "s.nii.gz", volume(SHAPE), affine)
    study, data = Study(tmp_path, H), strokes(high=2)
    (tmp_path / "up").mkdir()
    submit(study, "s", Path(nifti(tmp_path / "up" / "u.nii", data, affine)), [{"name": "axon"}])
    stored = nib.load(tmp_path / "labels" / "final" / "s.nii.gz")
    assert np.allclose(stored.affine, affine)
    assert ((study.item("s").read_class_sets() == AXON) == (data == 1)).all()


def test_a_name_that_is_no_class_is_told_with_the_one_that_was_meant(tmp_path, study):
    halves = np.ones(SHAPE, np.uint8)
    halves[6:] = 2
    path = seg_nrrd(tmp_path / "up.seg.nrrd", [halves], [("mito", 1, 0), ("neurite 3", 2, 0)])
    derived = submit(study, "one", path)
    told = [n for n in derived.notes if "unknown class" in n]
    assert told == ["'mito' is one object of unknown class; was 'mitochondria' meant?"]
    assert (study.item("one").read_class_sets() == H.object_set).all()
