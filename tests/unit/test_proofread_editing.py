"""Edits by clicks: the option `do` of `proofread`, without a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from proofread_cases import SHAPE, current, whole

from lib.clicks.answer import ClickAnswer
from lib.clicks.viewer import ViewerRequest
from lib.configs.settings import LabelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.proofread.answering import answer_clicks, of_kind
from lib.proofread.current import CurrentObjects
from lib.proofread.editing import Editor, EditRequest
from lib.volumes.boxes import whole_box

EDITOR = Editor(load_hierarchy(), LabelSettings())
MITO = load_hierarchy().class_names.index("mitochondria")


def answer(x: int, width: int = 3) -> ClickAnswer:
    """What clicks answer: a slab."""
    mask = np.zeros(SHAPE, np.bool_)
    mask[x : x + width] = True
    return ClickAnswer(mask, whole_box(SHAPE))


def accept(objects: CurrentObjects, name: str, x: int, width: int = 3) -> dict:
    asked = EditRequest("accept", [[x, 1, 1]], name, "anna")
    return EDITOR.run(objects, asked, lambda: answer(x, width))[1]


def test_a_second_object_under_the_name_of_an_accepted_one_is_refused(tmp_path: Path) -> None:
    objects = current(tmp_path)
    assert accept(objects, "axon 7", 0)["edit"]["object"] == 7
    with pytest.raises(ValueError, match=r"'axon 7' is an accepted object elsewhere.*another name"):
        accept(objects, "axon 7", 8)
    assert (whole(objects)[:3] == 7).all() and not (whole(objects)[3:] == 7).any()
    assert objects.standing().accepted == {7}
    assert accept(objects, "axon 8", 8)["edit"]["object"] == 8


def test_an_accepted_object_is_corrected_under_its_name(tmp_path: Path) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 7", 0)
    assert accept(objects, "axon 7", 2, 4)["edit"]["object"] == 7
    assert (whole(objects)[2:6] == 7).all() and not (whole(objects)[:2] == 7).any()


def test_a_name_is_free_again_when_its_object_is_deleted(tmp_path: Path) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 7", 0)
    EDITOR.run(objects, EditRequest("delete", [[1, 1, 1]], "", "anna"), lambda: answer(0))
    assert accept(objects, "axon 7", 8)["edit"]["object"] == 7
    assert (whole(objects)[8:11] == 7).all()


def run(objects: CurrentObjects, action: str, points: list, name: str = "") -> dict:
    asked = EditRequest(action, points, name, "anna")
    found, told = EDITOR.run(objects, asked, lambda: answer(0))
    return {**told["edit"], "warnings": found.warnings}


def test_an_organelle_is_not_accepted_for_the_cell_around_it(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 5, np.uint32, order="F")
    objects = current(tmp_path, ids)
    inner = replace(answer(4), organelle=MITO)
    edit = EDITOR.run(objects, EditRequest("accept", [[5, 1, 1]], "", "anna"), lambda: inner)[1]
    assert edit["edit"]["object"] == 6 and edit["edit"]["name"] == "mitochondria 6"
    assert (whole(objects) == 5).sum() == np.prod(SHAPE) - inner.mask.sum()


def test_an_organelle_takes_its_voxels_of_an_accepted_cell_and_of_no_organelle(
    tmp_path: Path,
) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 3", 0, 10)
    inner = replace(answer(2), organelle=MITO)
    asked = EditRequest("accept", [[3, 1, 1]], "mitochondria 7", "anna", kind="organelle")
    assert EDITOR.run(objects, asked, lambda: inner)[1]["edit"]["object"] == 7
    assert (whole(objects)[2:5] == 7).all() and objects.standing().accepted == {3, 7}
    wide = replace(answer(4, 4), organelle=MITO)
    asked = EditRequest("accept", [[7, 1, 1]], "mitochondria 8", "anna", kind="organelle")
    found, _ = EDITOR.run(objects, asked, lambda: wide)
    assert (whole(objects)[4] == 7).all() and (whole(objects)[5:8] == 8).all()
    assert "accepted objects (mitochondria 7) were left to them" in found.warnings[0]
    cell = of_kind(objects, [[3, 1, 1]], "cell", {7, 8})
    assert (cell.read(whole_box(SHAPE))[:10] == 3).all(), "a cell is as if nothing lay in it"
    assert of_kind(objects, [[3, 1, 1]], "organelle", {7, 8}) is objects


def test_a_click_for_an_organelle_is_not_answered_by_the_cell_that_a_person_made(
    tmp_path: Path,
) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 3", 0, 10)
    inner = replace(answer(2), organelle=MITO)
    asked = ViewerRequest([[3, 1, 1]], kind="organelle")
    assert answer_clicks(objects, asked, lambda _: inner) is inner
    made = answer_clicks(objects, replace(asked, kind="cell"), lambda _: inner)
    assert made.mask.all() and made.box[0] == (0, 10)


def test_names_of_what_is_merged(tmp_path: Path) -> None:
    ids = np.zeros(SHAPE, np.uint32, order="F")
    ids[:4], ids[4:8], ids[8:] = 1, 2, 3
    objects = current(tmp_path, ids)
    run(objects, "name", [[5, 1, 1]], "axon")
    assert objects.standing().names == {2: "axon 2"}
    merged = run(objects, "merge", [[1, 1, 1], [5, 1, 1]], "Segment_4")
    assert (merged["object"], merged["name"]) == (1, "axon 2"), "a name of no class gives way"
    assert run(objects, "merge", [[9, 1, 1], [1, 1, 1]], "dendrite 8")["name"] == "dendrite 8"
    objects.undo()
    assert objects.standing().names == {1: "axon 2"}
    with pytest.raises(ValueError, match=r"do=name: label: 'axon 2' is object 1 already"):
        run(objects, "name", [[9, 1, 1]], "axon 2")
    with pytest.raises(ValueError, match=r"do=name: label: expected the name"):
        run(objects, "name", [[9, 1, 1]], "background")


def test_what_an_edit_unlocks_is_told(tmp_path: Path) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 3", 0)
    accept(objects, "axon 4", 5)
    told = run(objects, "merge", [[1, 1, 1], [6, 1, 1]])["warnings"]
    assert told == ("axon 3, axon 4 have changed and are accepted no more; accept what it is now",)
    assert not run(objects, "delete", [[1, 1, 1]])["warnings"]


def test_the_name_goes_with_the_part_that_a_split_shows(tmp_path: Path) -> None:
    objects = current(tmp_path, np.full(SHAPE, 5, np.uint32, order="F"))
    run(objects, "name", [[1, 1, 1]], "axon 2")
    assert run(objects, "split", [[1, 1, 1]], "axon_2")["object"] == 6
    assert objects.standing().names == {6: "axon_2"}
    objects.undo()
    assert objects.standing().names == {5: "axon 2"}
    assert run(objects, "split", [[1, 1, 1]])["name"] == "" and objects.named("axon 2") == 5


def test_a_part_is_not_called_like_an_object_of_the_machine(tmp_path: Path) -> None:
    """A viewer's segments are told apart by their names, and the machine's go by their ids."""
    ids = np.full(SHAPE, 5, np.uint32, order="F")
    ids[8:] = 6
    objects = current(tmp_path, ids)
    told = run(objects, "split", [[1, 1, 1]], "axon 6")
    assert (told["object"], told["name"]) == (7, "axon 7")


def test_a_cell_keeps_what_it_has_beneath_its_organelles(tmp_path: Path) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 3", 0, 10)
    inner = replace(answer(2), organelle=MITO)
    asked = EditRequest("accept", [[3, 1, 1]], "mitochondria 7", "anna", kind="organelle")
    EDITOR.run(objects, asked, lambda: inner)
    accept(objects, "axon 3", 0, 9)  # from its middle, with the organelle in it
    assert (whole(objects)[2:5] == 7).all() and objects.standing().accepted == {3, 7}
    assert (objects.without({7}).read(whole_box(SHAPE))[:9] == 3).all()
    objects.undo()
    assert (whole(objects)[2:5] == 7).all() and (whole(objects)[9] == 3).all()
    with pytest.raises(ValueError, match=r"nothing is left of it: .*axon 3"):
        accept(objects, "dendrite 8", 5)


def test_what_is_deleted_is_named(tmp_path: Path) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 7", 0)
    assert run(objects, "delete", [], "axon 7")["did"] == "delete of axon 7"
    assert objects.standing().names == {}


def test_of_an_accepted_object_that_is_deleted_it_is_told_how_to_have_it_back(
    tmp_path: Path,
) -> None:
    objects = current(tmp_path)
    accept(objects, "axon 7", 0)
    told = run(objects, "delete", [], "axon 7")["warnings"]
    assert told == ("axon 7 was accepted and is deleted; do=undo brings it back",)
    run(objects, "undo", [])
    assert objects.standing().accepted == {7}
