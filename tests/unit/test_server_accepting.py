"""Objects that a request accepts go into the labels, and out of them when that is taken back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from proofread_cases import current

from lib.labels.hierarchy import load_hierarchy
from lib.proofread.current import CurrentObjects, Placed
from lib.server import accepting
from lib.server.accepting import label_accepted, label_of
from lib.volumes.study import Study, StudyItem

SHAPE = (12, 10, 6)
SIZE_NM = (8.0, 8.0, 40.0)


def box_of(low: int, high: int) -> NDArray[np.bool_]:
    inside = np.zeros(SHAPE, np.bool_)
    inside[low:high, 2:8, 1:5] = True
    return inside


def placed(where: NDArray[np.bool_]) -> Placed:
    return Placed(where, ((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2])))


class App:
    """An app of one item, "a", whose objects are the machine's 1 and 2.

    Args:
        root: for the study.
        labelled: what the `instance` label gives to object 1 already.
    """

    def __init__(self, root: Path, labelled: NDArray[np.bool_] | None = None) -> None:
        study = Study(root / "study", load_hierarchy())
        ids = None if labelled is None else labelled.astype(np.int64)
        sets = None if labelled is None else np.full(SHAPE, study.hierarchy.unknown, np.int32)
        self.item: StudyItem = study.add_item("a", np.zeros(SHAPE, np.uint8), SIZE_NM, sets, ids)[0]
        machine = box_of(0, 5).astype(np.uint32) + 2 * box_of(6, 11).astype(np.uint32)
        self.current: CurrentObjects = current(root, machine)
        self.submissions = SimpleNamespace(study=study)
        self.objects = SimpleNamespace(open=lambda *_: (self.current, []))
        self.saved: list[tuple[NDArray[Any], str, dict[str, Any]]] = []

    def datastore(self) -> Any:
        def save_label(image: str, file: str, tag: str, info: dict[str, Any]) -> None:
            assert image == "a"
            loaded: Any = nib.load(file)
            self.saved.append((np.asanyarray(loaded.dataobj).copy(), tag, info))

        return SimpleNamespace(save_label=save_label)


def told(op: str, number: int = 1) -> dict[str, Any]:
    return {"edit": {"op": op, "object": number}}


@pytest.mark.parametrize("reply", [{}, {"edit": None}, told("split"), told("merge"), told("name")])
def test_edits_that_decide_no_voxel_change_no_label(tmp_path: Path, reply: dict[str, Any]) -> None:
    app = App(tmp_path)
    assert label_accepted(app, "a", "ann", reply) == {} and not app.saved


def test_an_accepted_object_is_submitted_under_its_name(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.current.accept(placed(box_of(0, 5)), 1, "axon 1")
    assert label_accepted(app, "a", "ann", told("accept")) == {"labelled": True}
    ((values, tag, info),) = app.saved
    np.testing.assert_array_equal(values == 1, box_of(0, 5))
    assert tag == "final" and info["mode"] == "merge" and info["client_id"] == "ann"
    assert info["label_info"][0] == {"name": "axon 1", "idx": 1}


def test_what_the_labels_hold_of_it_beyond_is_withdrawn(tmp_path: Path) -> None:
    app = App(tmp_path, labelled=box_of(0, 7))
    app.current.accept(placed(box_of(0, 5)), 1, "axon 1")
    label_accepted(app, "a", "", told("redraw"))
    ((values, _, info),) = app.saved
    np.testing.assert_array_equal(values == 1, box_of(0, 5))
    np.testing.assert_array_equal(values == 2, box_of(5, 7))
    assert [entry["name"] for entry in info["label_info"]] == ["axon 1", "unlabelled"]


def test_an_object_that_is_no_longer_accepted_is_withdrawn_whole(tmp_path: Path) -> None:
    app = App(tmp_path, labelled=box_of(0, 5))
    assert label_accepted(app, "a", "", told("accept")) == {"labelled": False}  # it was undone
    ((values, _, info),) = app.saved
    np.testing.assert_array_equal(values == 1, box_of(0, 5))
    assert info["label_info"] == [{"name": "unlabelled", "idx": 1}]


def test_nothing_is_submitted_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    app = App(tmp_path)
    assert label_of(app.item, app.current, 2, accepted=False) is None
    assert label_accepted(app, "a", "", told("delete", 2)) == {} and not app.saved


def test_in_an_image_too_large_to_label_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "MOST_SHOWN", 10)
    app = App(tmp_path)
    app.current.accept(placed(box_of(0, 5)), 1)
    answer = label_accepted(app, "a", "", {**told("accept"), "warnings": ["before"]})
    assert answer["labelled"] is False and not app.saved
    assert answer["warnings"][0] == "before" and "too large" in answer["warnings"][1]
