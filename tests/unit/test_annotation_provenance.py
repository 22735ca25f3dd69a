"""Truth has a source: what a person decided is known, what a machine proposed is shown."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from submission_cases import AXON, INFO, INSIDE, NAMES, ROI, SHAPE, H, strokes, upload

from lib.annotation import shown as shown_module
from lib.annotation.clicked import Clicked
from lib.annotation.shown import MOST_CLIENTS, LastAnswers
from lib.annotation.submissions import submit
from lib.annotation.versions import SubmissionOptions, versions
from lib.data.items import labelled_items
from lib.volumes.atomic import write_json
from lib.volumes.boxes import whole_box

VALUES = {name: n for n, name in enumerate(NAMES, 1)}


@pytest.fixture
def answers(study):
    return LastAnswers(study.root)


def _options(answers: LastAnswers, client: str = "ann", **more) -> SubmissionOptions:
    shown, clicked = answers.of("one", client)
    asked = answers.asked("one", client)
    return SubmissionOptions(shown=shown, clicked=clicked, asked=asked, **more)


def _shown(tmp_path: Path, answers: LastAnswers, data, task="segmentation", names=VALUES) -> None:
    answers.note("one", "ann", task, upload(tmp_path, data, f"{task}.nii.gz"), names)


def test_what_comes_back_as_it_was_shown_is_not_known(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    sent = machine.copy()
    sent[:3] = np.where(machine[:3] == 1, 3, 1)
    derived = submit(study, "one", upload(tmp_path, sent), INFO, _options(answers))
    item = study.item("one")
    changed = sent != machine
    sets, ids = item.read_class_sets(), item.read_instances()
    assert (sets[~changed] == H.unknown).all() and (ids[~changed] == -1).all()
    assert (sets[changed & (sent == 1)] == AXON).all()
    assert (ids[changed & (sent == 3)] == 17).all()
    shown = item.read_class_sets(shown=True)
    assert (shown[sent == 1] == AXON).all(), "all of it is shown and exported"
    assert (item.read_instances(shown=True)[sent == 3] == 17).all()
    known = changed & (sent > 0)
    assert derived.touched_share == pytest.approx(known.mean())
    assert derived.machine_share == pytest.approx((~changed & (sent > 0)).mean())
    assert derived.known_share["unknown"] == pytest.approx((sets == H.unknown).mean())
    assert derived.made == {17: "axon 17"}
    (data,) = labelled_items([item], H, 0.2, 1 << 20)
    trained, _ = data.read_labels(((0, 13), (0, 17), (0, 9)))
    assert ((trained != H.unknown) == (sets != H.unknown)).all(), "training learns no more"


def test_an_untouched_answer_teaches_nothing(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    derived = submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    assert derived.touched_share == 0 and derived.made == {}
    assert derived.known_share == {"unknown": 1.0}
    assert (study.item("one").read_class_sets() == H.unknown).all()


@pytest.mark.parametrize(
    "more", [{"truth": "all"}, {"fully_annotated": True}, {"roi": ROI}], ids=str
)
def test_what_is_declared_is_known(tmp_path, study, answers, more):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    derived = submit(study, "one", upload(tmp_path, machine), INFO, _options(answers, **more))
    inside = INSIDE if "roi" in more else np.ones(SHAPE, bool)
    assert (study.item("one").read_class_sets()[(machine == 1) & inside] == AXON).all()
    assert derived.machine_share == 0


def test_another_name_is_another_word(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    info = [
        {"name": "dendrite" if e["name"] == "axon" else e["name"], "idx": e["idx"]} for e in INFO
    ]
    submit(study, "one", upload(tmp_path, machine), info, _options(answers))
    sets = study.item("one").read_class_sets()
    np.testing.assert_array_equal(sets == H.set_named("dendrite"), machine == 1)


def test_a_clicked_segment_is_the_annotator_s(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    answers.note_click("one", "ann", "Axon_17")
    derived = submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    ids = study.item("one").read_instances()
    np.testing.assert_array_equal(ids == 17, machine == 3)
    assert derived.made == {17: "axon 17"}
    _shown(tmp_path, answers, machine)  # the new answer took its place in the viewer
    assert answers.of("one", "ann")[1] == []


def test_what_was_clicked_is_the_annotator_s_under_another_name(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    asked = Clicked(machine == 3, whole_box(SHAPE))
    answers.note_click("one", "ann", "Segment_1", asked)
    derived = submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    ids = study.item("one").read_instances()
    np.testing.assert_array_equal(ids == 17, machine == 3)
    assert derived.made == {17: "axon 17"}
    assert derived.touched_share == pytest.approx((machine == 3).mean())
    (version,) = versions(study, "one")
    (kept,) = version.options.asked
    assert Clicked.read(kept) is not None, "deriving again gives the same"


def test_a_clicked_answer_that_was_thrown_away_says_nothing(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    for n, start in enumerate((0, 6)):  # most of neither came back in one segment
        box = ((start, start + 5), (0, 17), (0, 9))
        answers.note_click("one", "ann", "object", Clicked(np.ones((5, 17, 9), bool), box), str(n))
    assert len(answers.asked("one", "ann")) == 2
    derived = submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    assert derived.touched_share == 0 and derived.made == {}


def test_clicked_answers_are_bounded_and_damaged_ones_left_out(study, answers, monkeypatch):
    monkeypatch.setattr(shown_module, "MOST_ASKED", 3)
    one = Clicked(np.ones((2, 2, 1), bool), ((0, 2), (1, 3), (4, 5)))
    for n in range(5):
        answers.note_click("one", "ann", "object", one, str(n))
        answers.note_click("one", "ann", "axon 3", one)  # again: in place of the last one
    files = answers.asked("one", "ann")
    assert len(files) == 3
    kept = Clicked.read(files[0])
    assert kept is not None and kept.box == one.box and kept.mask.all()
    files[0].write_bytes(files[0].read_bytes()[:40])
    assert Clicked.read(files[0]) is None


def test_each_answer_counts_and_another_client_s_does_not(tmp_path, study, answers):
    machine, objects = strokes(), strokes(1, 3)
    _shown(tmp_path, answers, machine)
    _shown(tmp_path, answers, objects, "instances", {"axon 17": 1, "axon 18": 2})
    sent = np.where(objects == 1, 3, machine)  # both are in the scene
    derived = submit(study, "one", upload(tmp_path, sent), INFO, _options(answers))
    assert derived.touched_share == 0
    derived = submit(study, "one", upload(tmp_path, sent), INFO, _options(answers, "bob"))
    assert derived.machine_share == 0


def test_what_a_person_said_before_they_still_say(tmp_path, study, answers):
    machine = strokes()
    first = np.where(machine == 1, 1, 0).astype(np.uint8)
    submit(study, "one", upload(tmp_path, first), INFO, _options(answers))
    _shown(tmp_path, answers, machine)
    submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    sets = study.item("one").read_class_sets()
    np.testing.assert_array_equal(sets == AXON, machine == 1)
    assert (study.item("one").read_instances()[machine == 3] == -1).all()


def test_a_later_answer_takes_nothing_away_that_a_person_decided(tmp_path, study, answers):
    """Corrections stand though the next answer does not show them, and comes back as it was."""
    machine = strokes()
    _shown(tmp_path, answers, machine)
    sent = machine.copy()
    sent[:3] = np.where(machine[:3] == 1, 2, 1)
    submit(study, "one", upload(tmp_path, sent), INFO, _options(answers))
    corrected = sent != machine
    first = study.item("one").read_class_sets()
    again = strokes(5)
    _shown(tmp_path, answers, again)
    then = again.copy()
    then[8:10] = 1  # and something else is corrected
    derived = submit(study, "one", upload(tmp_path, then), INFO, _options(answers))
    sets = study.item("one").read_class_sets()
    unchanged = corrected & (then == again) & (again > 0)
    assert unchanged.any()
    np.testing.assert_array_equal(sets[unchanged], first[unchanged])
    assert (sets[8:10][again[8:10] != 1] == AXON).all()
    erased = (first != H.unknown) & (then == 0)
    assert (sets[erased] == H.unknown).all(), "what a person erased is gone"
    assert any(f"{int(erased.sum()):,} voxels that were labelled" in n for n in derived.notes)


def test_labels_that_are_taken_back_stand_in_nobody_s_way(tmp_path, study, answers):
    """As an accept that was undone: the next answer shows there again what it finds."""
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[4:6] = 1
    merge = SubmissionOptions(mode="merge")
    submit(study, "one", upload(tmp_path, drawn), INFO, merge)
    names = [{"name": "unlabelled", "idx": 1}]
    submit(study, "one", upload(tmp_path, drawn), names, merge)
    item = study.item("one")
    assert (item.read_class_sets() == H.unknown).all() and (item.read_instances() == -1).all()
    assert (item.read_final() == 0).all(), "unlabelled, and not uncertain"
    machine = np.full(SHAPE, 2, np.uint8)
    _shown(tmp_path, answers, machine)
    submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    assert (study.item("one").read_class_sets(shown=True) != H.unknown).all()


def test_ids_of_what_stands_are_no_new_object_s(tmp_path, study, answers):
    first = np.where(strokes(2) == 1, 1, 0).astype(np.uint8)
    mine, other = [{"name": "mine", "idx": 1}], [{"name": "another", "idx": 1}]
    submit(study, "one", upload(tmp_path, first), mine)
    item = study.item("one")
    kept = np.unique(item.read_instances()[first == 1])
    item.write_record(item.record.changed(extra={}))  # as imported ids, of no name
    _shown(tmp_path, answers, np.ones(SHAPE, np.uint8), names={"another": 1})
    sent = np.ones(SHAPE, np.uint8)
    submit(study, "one", upload(tmp_path, sent), other, _options(answers))
    ids = study.item("one").read_instances(shown=True)
    assert set(np.unique(ids[first == 1])) == set(kept)
    assert not np.isin(ids[first == 0], kept).any()


def test_what_was_declared_once_is_not_declared_again_by_what_is_merged(tmp_path, study):
    """An object accepted in a fully annotated item changes that object alone."""
    whole = np.where(strokes(3) == 1, 1, 2).astype(np.uint8)
    options = SubmissionOptions(fully_annotated=True)
    submit(study, "one", upload(tmp_path, whole), INFO, options)
    before = study.item("one").read_class_sets()
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[4:6] = 1
    submit(study, "one", upload(tmp_path, drawn), INFO, SubmissionOptions(mode="merge"))
    item = study.item("one")
    sets = item.read_class_sets()
    np.testing.assert_array_equal(sets[drawn == 0], before[drawn == 0])
    assert (sets[drawn == 1] == AXON).all() and item.record.fully_annotated


def test_nobody_decides_a_machine_s_answer_by_what_was_declared_before(tmp_path, study, answers):
    whole = np.ones(SHAPE, np.uint8)
    submit(study, "one", upload(tmp_path, whole), INFO, SubmissionOptions(fully_annotated=True))
    machine = strokes(4)
    _shown(tmp_path, answers, machine)
    derived = submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    assert derived.machine_share == pytest.approx((machine > 1).mean())
    assert (study.item("one").read_class_sets()[machine > 0] == AXON).all(), "as it was declared"


def test_deriving_again_gives_the_same(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    sent = machine.copy()
    sent[:3] = 1
    submit(study, "one", upload(tmp_path, sent), INFO, _options(answers))
    labels = study.root / "labels"
    tags = ("final", "instance", "touched")
    before = [(labels / t / "one.nii.gz").read_bytes() for t in tags]
    (version,) = versions(study, "one")
    assert [s.file.exists() for s in version.options.shown] == [True]
    (tmp_path / "later").mkdir()
    _shown(tmp_path / "later", answers, strokes(5))  # what is shown later is another matter
    from lib.annotation.submissions import recover

    (labels / "submitted" / "versions" / "one" / "derived.json").unlink()
    for tag in tags:
        (labels / tag / "one.nii.gz").unlink()
    assert recover(study) == ["one"]
    assert [(labels / t / "one.nii.gz").read_bytes() for t in tags] == before


def test_merging_keeps_who_said_what(tmp_path, study, answers):
    machine = strokes()
    _shown(tmp_path, answers, machine)
    submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[4:6] = 1
    submit(study, "one", upload(tmp_path, drawn), INFO, _options(answers, "bob", mode="merge"))
    sets = study.item("one").read_class_sets()
    np.testing.assert_array_equal(sets != H.unknown, drawn == 1)
    assert (study.item("one").read_class_sets(shown=True)[machine == 2] != H.unknown)[:4].all()


def test_answers_are_bounded_and_survive(tmp_path, study, answers):
    machine = strokes()
    file = upload(tmp_path, machine)
    for n in range(MOST_CLIENTS + 3):
        answers.note("one", f"client {n}", "segmentation", file, VALUES)
    assert len(list((study.root / "answers" / "one").iterdir())) == MOST_CLIENTS
    last = f"client {MOST_CLIENTS + 2}"
    (shown,), _ = LastAnswers(study.root).of("one", last)
    assert dict(shown.names) == VALUES and shown.file.exists()
    assert LastAnswers(study.root).of("one", "client 0") == ([], [])
    shown.file.unlink()  # a link: the upload is another name of it
    shown.file.write_bytes(b"half")
    options = replace(_options(answers, last))
    derived = submit(study, "one", file, INFO, options)
    assert derived.machine_share == 0, "what cannot be compared is taken as it is said"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_was_shown_counts_also_where_the_study_took_no_files(
    tmp_path, study, answers, monkeypatch, code
):
    machine = strokes()
    _shown(tmp_path, answers, machine, "instances", {"axon 17": 3})

    def refuses(target: Path, data: object) -> None:
        if target.is_relative_to(study.root):
            raise OSError(code, "no files here")
        write_json(target, data)

    with monkeypatch.context() as patch:
        patch.setattr(shown_module, "write_json", refuses)
        _shown(tmp_path, answers, machine)
        answers.note_click("one", "ann", "organelle")
        answers.note_click("one", "bob", "axon")
    shown, clicked = answers.of("one", "ann")
    assert len(shown) == 2, "what was noted before is still known"
    assert clicked == ["organelle"] and answers.of("one", "bob")[1] == ["axon"]
    derived = submit(study, "one", upload(tmp_path, machine), INFO, _options(answers))
    touched = machine == 2  # the segment that was clicked
    assert derived.touched_share == pytest.approx(touched.mean())
    answers.forget("one")
    assert answers.of("one", "ann") == ([], [])


def test_another_fault_of_the_disk_is_not_hidden(tmp_path, study, answers, monkeypatch):
    def fails(target: Path, data: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(shown_module, "write_json", fails)
    with pytest.raises(OSError, match="the disk fails"):
        _shown(tmp_path, answers, strokes())


def test_an_answer_that_cannot_be_copied_leaves_no_part_of_it(
    tmp_path, study, answers, monkeypatch
):
    def half(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV)))
    monkeypatch.setattr(shown_module.shutil, "copyfile", half)
    with pytest.raises(OSError, match="the disk fails"):
        _shown(tmp_path, answers, strokes())
    assert not [p for p in (study.root / "answers").rglob("*") if p.is_file()]
