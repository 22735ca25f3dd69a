"""Keys of Neuroglancer, without a browser: each is put to the viewer as the client puts it."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import neuroglancer
import numpy as np
import pytest
import requests
from view_cases import (  # noqa: F401
    LEFT,
    RIGHT,
    SETTINGS,
    SHAPE,
    SIZE_NM,
    H,
    desk_of_one,
    found_ids,
    press,
    stopped,
)

from lib.prediction.object_classes import classes_of_objects
from lib.proofread.store import ObjectStore
from lib.view.neuroglancer import layers
from lib.view.neuroglancer.keys import CLASS_BINDINGS, KEYS
from lib.view.neuroglancer.viewer import LiveViewer
from lib.view.neuroglancer.windows import Windows
from lib.volumes.boxes import box_slices, whole_box

AXON = H.class_names.index("axon")


@pytest.fixture
def viewer(tmp_path: Path) -> LiveViewer:
    desk = desk_of_one(tmp_path)
    return LiveViewer(desk.item("one"), "http://127.0.0.1:1", "me")


def current(viewer: LiveViewer) -> np.ndarray:
    """The map as another process reads it."""
    item = viewer.scene.item
    assert item is not None
    objects, _ = ObjectStore(item.study.root, 5).open("one", SHAPE)
    return objects.read(whole_box(SHAPE))


def test_layers_are_there_from_the_start(viewer: LiveViewer) -> None:
    state = viewer.viewer.state
    names = [layer.name for layer in state.layers]
    assert {"image", "objects", "handed out", "annotated", "yes", "no", "region"} <= set(names)
    assert state.dimensions.names == ("x", "y", "z")
    assert np.allclose(state.dimensions.scales, np.array(SIZE_NM) * 1e-9)


def test_points_are_answered_and_the_answer_is_a_layer(viewer: LiveViewer) -> None:
    told = press(viewer, "positive", (8, 10, 4))
    assert "voxels in" in told and viewer.session.positive == [(8, 10, 4)]
    assert layers.ANSWER in viewer.viewer.state.layers
    press(viewer, "negative", (20, 10, 4))
    assert len(viewer.viewer.state.layers["no"].layer.annotations) == 1
    press(viewer, "clear")
    state = viewer.viewer.state
    assert layers.ANSWER not in state.layers and not state.layers["yes"].layer.annotations


def test_points_mean_cells_or_from_a_key_on_organelles(viewer: LiveViewer) -> None:
    assert press(viewer, "kind") == "points mean organelles"
    told = press(viewer, "positive", (8, 10, 4))
    assert told.startswith("an organelle, ") or "no organelle is seen at the points" in told
    told = press(viewer, "kind")
    assert told.startswith("points mean cells; a cell, ")


def test_an_accepted_object_is_locked_and_undone(viewer: LiveViewer) -> None:
    assert "accept" in press(viewer, "accept", (8, 10, 4))
    objects = viewer.scene.current()
    assert objects is not None and objects.standing().accepted == {LEFT}
    assert (current(viewer) == found_ids()).all()
    assert "undo" in press(viewer, "undo")
    assert not objects.standing().accepted
    press(viewer, "redo")
    assert objects.standing().accepted == {LEFT}


def test_the_answer_to_points_is_accepted(viewer: LiveViewer) -> None:
    press(viewer, "positive", (8, 10, 4))
    answer = viewer.session.answer
    assert answer is not None
    press(viewer, "accept", (0, 0, 0))
    seen = current(viewer)[box_slices(answer.box)][answer.mask]
    assert len(np.unique(seen)) == 1 and seen[0] > 0
    assert viewer.session.answer is None and not viewer.session.positive


def test_objects_are_merged_split_and_deleted(viewer: LiveViewer) -> None:
    press(viewer, "positive", (8, 10, 4))
    assert "merge of object 1 with 2" in press(viewer, "merge", (20, 10, 4))
    assert set(np.unique(current(viewer))) == {0, LEFT}
    press(viewer, "undo")
    assert set(np.unique(current(viewer))) == {0, LEFT, RIGHT}
    press(viewer, "delete", (20, 10, 4))
    assert set(np.unique(current(viewer))) == {0, LEFT}


def test_a_class_is_chosen_by_the_keys_after_k(viewer: LiveViewer) -> None:
    bindings = viewer.viewer.config_state.state.input_event_bindings.data_view
    before = bindings.to_json()
    assert "axon" in press(viewer, "class")
    bindings = viewer.viewer.config_state.state.input_event_bindings.data_view
    assert bindings[CLASS_BINDINGS[AXON]] == f"neuropil-class-{AXON}"
    press(viewer, f"class-{AXON}", (20, 10, 4))
    objects = viewer.scene.current()
    assert objects is not None and objects.standing().names == {RIGHT: f"axon {RIGHT}"}
    after = viewer.viewer.config_state.state.input_event_bindings.data_view
    assert after.to_json() == before
    (name,) = [n for n in viewer.properties if n.startswith("objects-")]
    inline = viewer.properties[name]["inline"]
    tags = inline["properties"][1]
    shown = [tags["tags"][t] for t in tags["values"][inline["ids"].index(str(RIGHT))]]
    assert shown == ["axon", "cell", "corrected"]


def test_the_next_doubt_moves_the_view_and_says_why(viewer: LiveViewer) -> None:
    told = press(viewer, "doubt")
    assert "may be one object" in told
    assert viewer.viewer.state.position[0] in (15.5, 16.5)
    boxes = viewer.viewer.state.layers["handed out"].layer.annotations
    press(viewer, "accept", (8, 10, 4))
    assert "no place is in doubt" in press(viewer, "doubt")
    assert len(boxes) <= 1


def test_lines_are_strokes(viewer: LiveViewer) -> None:
    with viewer.viewer.txn() as state:
        state.layers["yes"].layer.annotations = [
            neuroglancer.LineAnnotation(id="drawn", point_a=[4.5, 10.5, 4.5], point_b=[12, 10, 4.5])
        ]
    press(viewer, "answer")
    assert {(4, 10, 4), (12, 10, 4)} <= set(viewer.session.drawn[0])
    assert layers.ANSWER in viewer.viewer.state.layers
    assert [a.id for a in viewer.viewer.state.layers["yes"].layer.annotations] == ["drawn"]


def test_what_is_on_the_screen_is_computed(viewer: LiveViewer) -> None:
    assert "objects in i 0-31" in press(viewer, "objects")
    found = viewer.session.objects
    assert found is not None and found.ids.shape == SHAPE
    assert layers.FOUND in viewer.viewer.state.layers
    (name,) = [n for n in viewer.properties if n.startswith("found-")]
    assert len(viewer.properties[name]["inline"]["ids"]) == max(1, found.ids.max())


def test_classes_on_the_screen_are_those_of_the_objects_as_they_stand(viewer: LiveViewer) -> None:
    predictor = viewer.scene.desk.network.get("cpu").predictor
    fine = predictor.classes(viewer.scene.image.voxels, SIZE_NM, "fine")

    def expected(cells: np.ndarray) -> np.ndarray:
        return classes_of_objects(fine, cells, H, SETTINGS.inference, predictor.classes_learned)

    for edit in ("", "merge"):
        if edit:
            press(viewer, "positive", (8, 10, 4))
            press(viewer, edit, (20, 10, 4))
        assert "level object" in press(viewer, "classes")
        found = viewer.session.classes
        assert found is not None and (found.ids == expected(current(viewer))).all()
    assert set(np.unique(current(viewer))) == {0, LEFT}


def test_classes_are_told_voxel_by_voxel_where_the_settings_say_so(tmp_path: Path) -> None:
    desk = desk_of_one(tmp_path)
    inference = SETTINGS.inference.model_copy(update={"level": "coarse"})
    coarse = replace(desk, settings=SETTINGS.model_copy(update={"inference": inference}))
    viewer = LiveViewer(coarse.item("one"), "http://127.0.0.1:1")
    assert "level coarse" in press(viewer, "classes")
    predictor = desk.network.get("cpu").predictor
    found = viewer.session.classes
    told = predictor.classes(viewer.scene.image.voxels, SIZE_NM, "coarse")
    assert found is not None and (found.ids == told).all()


def test_a_drawn_box_is_declared_annotated_at_the_second_press(viewer: LiveViewer) -> None:
    press(viewer, "class")
    press(viewer, f"class-{AXON}", (20, 10, 4))
    with viewer.viewer.txn() as state:
        state.layers["region"].layer.annotations = [
            neuroglancer.AxisAlignedBoundingBoxAnnotation(
                id="drawn", point_a=[14, 4, 2], point_b=[24, 20, 6]
            )
        ]
    item = viewer.scene.item
    assert item is not None
    assert "T again" in press(viewer, "declare") and not item.has_label("final")
    with viewer.viewer.txn() as state:
        assert len(list(state.layers["region"].layer.annotations)) == 1
    assert "is annotated, 2 objects" in press(viewer, "declare")
    item = item.study.item("one")
    sets, ids = item.read_class_sets(), item.read_instances()
    assert "classes" in viewer.viewer.state.layers
    box = (slice(14, 24), slice(4, 20), slice(2, 6))
    assert (ids[box] == found_ids()[box]).all()
    assert (sets[16:24, 4:20, 2:6] == 1 << AXON).all()
    outside = np.ones(SHAPE, bool)
    outside[box] = False
    assert (sets[outside] == H.unknown).all() and (ids[outside] == -1).all()


def test_edits_of_others_are_shown(viewer: LiveViewer) -> None:
    before = viewer._watch.version
    item = viewer.scene.item
    assert item is not None
    others, _ = ObjectStore(item.study.root, 5).open("one", SHAPE)
    others.merge([LEFT, RIGHT], "somebody")
    viewer.look().result(60)
    assert viewer._watch.version != before
    chunk = viewer._watch.volume.data[0:32, 0:24, 0:8]
    assert set(np.unique(chunk)) == {0, LEFT}


def test_what_cannot_be_done_is_said(viewer: LiveViewer) -> None:
    assert "no object under the mouse" in press(viewer, "accept", (0, 0, 0))
    assert "beside the image" in press(viewer, "positive", (99, 0, 0))
    assert "beside the image" in press(viewer, "positive")
    assert "two objects" in press(viewer, "merge", (8, 10, 4))


def test_a_file_of_no_study_answers_and_keeps_nothing(tmp_path: Path) -> None:
    desk = desk_of_one(tmp_path)
    scene = desk.file(str(tmp_path / "one.nii"))
    viewer = LiveViewer(scene, "http://127.0.0.1:1")
    assert "voxels in" in press(viewer, "positive", (8, 10, 4))
    assert "import SRC --lazy" in press(viewer, "accept", (8, 10, 4))
    assert "level object" in press(viewer, "classes")


def test_every_key_has_one_meaning() -> None:
    bindings = [b for key in KEYS for b in key.bindings]
    assert len(set(bindings)) == len(bindings)
    assert len(CLASS_BINDINGS) >= len(H.class_names)


def test_the_client_is_served(tmp_path: Path) -> None:
    windows = Windows(desk_of_one(tmp_path), most=1)
    first = windows.open(windows.desk.item("one"), "127.0.0.1")
    page = requests.get(first.url, timeout=10)
    assert page.status_code == 200 and "neuroglancer" in page.text.lower()
    address = first.address("classes").removeprefix("precomputed://")
    told = requests.get(f"{address}/info", timeout=10).json()
    assert told["inline"]["properties"][0]["values"][: len(H.class_names)] == list(H.class_names)
    key = first.viewer.volume_manager.get_volume_key(first._watch.volume)
    chunk = requests.get(
        f"{first.base}/neuroglancer/raw/{key}/1,1,1/4,4,2/20,8,4", timeout=10
    ).content
    shown = np.frombuffer(chunk, np.uint32).reshape(16, 4, 2)
    assert (shown == found_ids()[4:20, 4:8, 2:4]).all()
    key = first.viewer.volume_manager.get_volume_key(first._watch.volume)
    mesh = requests.get(f"{first.base}/neuroglancer/mesh/{key}/{LEFT}", timeout=10)
    assert mesh.status_code == 200 and len(mesh.content) > 100
    windows.open(windows.desk.item("one"), "127.0.0.1")
    assert requests.get(f"{address}/info", timeout=10).status_code == 404, "the oldest goes"
    windows.close()


def test_a_port_that_is_taken_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        windows = Windows(desk_of_one(tmp_path), port=taken.getsockname()[1])
        with pytest.raises(OSError, match=r"view\.port"):
            windows.start()
