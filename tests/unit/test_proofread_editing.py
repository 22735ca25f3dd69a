"""Edits by clicks: the option `do` of `proofread`, without a server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from proofread_cases import SHAPE, current, whole

from lib.clicks.answer import ClickAnswer
from lib.configs.settings import LabelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.proofread.current import CurrentObjects
from lib.proofread.editing import Editor, EditRequest
from lib.volumes.boxes import whole_box

EDITOR = Editor(load_hierarchy(), LabelSettings())


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
