"""What the page shows: sections, cards, curves, versions of the weights, the interface."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from engine_cases import HIERARCHY, tiny_settings
from numpy.typing import NDArray
from PIL import Image

from lib.configs.settings import QuerySettings
from lib.engine.log import TrainingLog
from lib.engine.publish import keep_version
from lib.labels.colors import LABEL_OPACITY
from lib.networks.model import build_network
from lib.networks.weights import save_weights
from lib.prediction.learned import Learned, Stored, heads_path, save_heads
from lib.proofread.current import Placed
from lib.proofread.store import ObjectStore
from lib.queries.ledger import HandedOut, Ledger
from lib.queries.store import ScoreStore
from lib.view.api import endpoints
from lib.view.overview import PAGE, ago, card, overview
from lib.view.render import STATIC, render
from lib.view.runs import HEIGHT, last_figures, newest_run, refits
from lib.view.sections import TAGS, layers, section_axis, section_png
from lib.view.versions import weights_versions
from lib.volumes.boxes import describe_box
from lib.volumes.study import Study, StudyItem

SHAPE, VOXEL = (40, 24, 6), (10.0, 10.0, 40.0)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "study", HIERARCHY)


def half_known(study: Study, item_id: str = "half", **more: Any) -> StudyItem:
    """Dendrite known where x < 20 of sections 4 and 5; nothing else is."""
    sets = np.full(SHAPE, HIERARCHY.unknown, np.int32)
    sets[:20, :, 4:] = HIERARCHY.set_named("dendrite")
    image = np.tile(np.arange(40, dtype=np.uint8)[:, None, None] * 4, (1, 24, 6))
    return study.add_item(item_id, image, VOXEL, sets, **more)[0]


def pixels(item: StudyItem, layer: str, section: int, size: int = 1024) -> NDArray[np.uint8]:
    """(width, height, 3) of the picture."""
    png = section_png(item, layer, section, size, ObjectStore(item.study.root, 1))
    return np.asarray(Image.open(io.BytesIO(png))).transpose(1, 0, 2)


def test_a_layer_lies_over_the_image_where_it_says_something(study: Study) -> None:
    item = half_known(study)
    assert layers(item) == ["image", "classes"]
    bare, shown = (pixels(item, name, 5) for name in ("image", "classes"))
    assert bare.shape == (40, 24, 3) and (bare[..., 0] == bare[..., 2]).all()
    assert bare[30, 0, 0] > bare[10, 0, 0], "x runs to the right"
    np.testing.assert_array_equal(shown[20:], bare[20:])
    color = np.array(HIERARCHY.classes[HIERARCHY.class_names.index("dendrite")].color)
    expected = (1 - LABEL_OPACITY) * bare[5, 5] + LABEL_OPACITY * color
    np.testing.assert_allclose(shown[5, 5], expected, atol=1.5)
    np.testing.assert_array_equal(pixels(item, "classes", 0), bare)


def test_a_large_section_is_shrunk_with_its_labels_in_place(study: Study) -> None:
    item = half_known(study)
    shown = pixels(item, "classes", 5, 10)
    assert shown.shape == (10, 6, 3)
    grey = np.ptp(shown.astype(int), axis=2) == 0
    assert not grey[:5].any() and grey[5:].all()


def test_sections_run_along_the_coarsest_axis(study: Study) -> None:
    image = np.zeros((6, 40, 24), np.uint8)
    item = study.add_item("side", image, (40.0, 10.0, 10.0))[0]
    assert section_axis(item) == 0
    assert pixels(item, "image", 5).shape == (40, 24, 3)


@pytest.mark.parametrize(
    ("layer", "section", "told"),
    [("objects", 0, "layer: expected one of image, classes"), ("image", 6, "0 to 5, found 6")],
)
def test_what_is_not_there_is_told(study: Study, layer: str, section: int, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        pixels(half_known(study), layer, section)


@pytest.mark.parametrize("layer", ["classes", "objects", "found objects", "uncertainty"])
@pytest.mark.parametrize("shape", [(30, 24, 6), (41, 25, 7)])
def test_a_layer_of_another_shape_than_its_image_is_named(
    study: Study, layer: str, shape: tuple[int, int, int]
) -> None:
    item = study.add_item("bare", np.zeros(SHAPE, np.uint8), VOXEL)[0]
    path = study.root / "labels" / TAGS[layer] / "bare.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.diag([*VOXEL, 1.0])), path)
    with pytest.raises(ValueError, match=re.escape(f"shape {shape}; expected {SHAPE}")) as error:
        pixels(item, layer, 5)
    assert path.name in str(error.value)


def store_of(study: Study) -> ScoreStore:
    return ScoreStore(study, QuerySettings(region=(8, 8, 2)))


def test_a_card_counts_what_is_known_and_shows_where_it_is(study: Study) -> None:
    shown = card(store_of(study), half_known(study))
    assert shown.known_share == pytest.approx(20 / 40 * 2 / 6, abs=1e-3)
    assert shown.section in (4, 5) and shown.sections == 6
    assert shown.best_layer == "classes" and not shown.trouble


def test_one_damaged_item_is_named_and_the_others_are_shown(study: Study) -> None:
    half_known(study)
    (study.root / "bad.nii").write_bytes(b"no image")
    (study.root / "gone.nii").symlink_to(study.root / "nowhere.nii")
    told = overview(store_of(study))
    troubles = {c.id: c.trouble for c in told.cards}
    assert troubles["half"] == "" and "bad.nii" in troubles["bad"]
    assert [s.name for s in told.skipped] == ["gone.nii"] and told.skipped[0].reason
    assert told.total == 2 and told.annotated == 1


def test_the_newest_regions_come_first_and_pages_hold_a_few_items(study: Study) -> None:
    for number in range(3):
        half_known(study, f"item-{number}")
    ledger = Ledger(study.root, 1800)
    box = ((0, 8), (8, 16), (0, 2))
    for age, client in ((60, "ann"), (5, "bo")):
        ledger.add(HandedOut("item-1", (box[0], box[1], (age, age + 2)), client, "random",
                             time.time() - age))  # fmt: skip
    told = overview(store_of(study), start=10**9)
    assert [e.client for e in told.regions] == ["bo", "ann"] and told.served == 2
    assert told.start == 0 and len(told.cards) == 3 <= PAGE
    assert [len(c.regions) for c in told.cards] == [0, 2, 0]
    assert describe_box(box) == "i 0-7, j 8-15, k 0-1"
    assert ago(time.time() - 7300) == "2 hours ago" and ago(time.time()) == "just now"


def test_corrections_show_as_current_objects_and_are_told(study: Study) -> None:
    item = half_known(study)
    objects, _ = ObjectStore(study.root, 1).open(item.id, item.shape)
    mask = np.ones((10, 8, 1), np.bool_)
    objects.accept(Placed(mask, ((0, 10), (0, 8), (2, 3))), 7, "axon 7", by="ann")
    objects.accept(Placed(mask, ((20, 30), (0, 8), (2, 3))), 9, by="ann")
    objects.undo(by="ann")
    shown = card(store_of(study), item)
    assert shown.accepted == 1 and [e.described() for e in shown.edits] == ["accept of axon 7"]
    assert shown.best_layer == "current objects"
    picture = pixels(item, "current objects", 2).astype(int)
    colored = np.ptp(picture, axis=2) > 0
    assert colored[:10, :8].all() and colored.sum() == 80
    page = render("item.html", {"item": shown, "rectangles": [], "tags": [], "section": 2,
                                "neuroglancer": True,
                                "layer": "classes", "classes": []})  # fmt: skip
    assert "accept of axon 7" in page and ">ann<" in page


def learned(after: float, used: bool) -> Learned:
    figure = {"name": "axon", "before": 0.4, "after": after, "sure": True, "voxels": 9,
              "used": used}  # fmt: skip
    return Learned("Learned axon.", used, "", "", [figure])


def test_refits_are_a_curve_of_what_answers(tmp_path: Path) -> None:
    assert refits(tmp_path) is None
    save_heads(tmp_path, Stored(learned(0.7, True), None, (learned(0.1, False),)))
    curve = refits(tmp_path)
    assert curve is not None and curve.points == ((1, 0.4), (2, 0.7))
    heads_path(tmp_path).write_bytes(b"torn")
    assert refits(tmp_path) is None


def test_curves_are_those_of_the_newest_run(tmp_path: Path) -> None:
    assert newest_run(tmp_path) is None and last_figures(tmp_path) == {}
    log = TrainingLog(tmp_path / "train_01" / "events", True, 0)
    for step, loss in enumerate((4.0, 2.0, float("nan"), 1.0), 1):
        log.scalars({"train/loss": loss, "train/else": 1.0}, step)
    log.close()
    run = newest_run(tmp_path)
    assert run is not None and run.name == "train_01"
    (curve,) = run.curves
    assert (curve.last, curve.low, curve.high) == (1.0, 1.0, 4.0)
    assert [s for s, _ in curve.points] == [1, 2, 4], "a step without a figure is left out"
    first, *_, last = curve.path.split()
    assert first == "0.0,0.0" and last.endswith(f",{HEIGHT:.1f}")


def test_versions_of_the_weights_tell_their_figures_or_their_fault(tmp_path: Path) -> None:
    settings = tiny_settings()
    net = build_network(settings.model, settings.loss, HIERARCHY)
    published = tmp_path / "neuropil.pt"
    assert weights_versions(published) == []
    save_weights(published, net.state_dict(), settings, HIERARCHY,
                 {"step": 7, "figures": {"val/score": 0.5, "val/are": 0.25}})  # fmt: skip
    kept = keep_version(published)
    assert kept is not None
    save_weights(published, net.state_dict(), settings, HIERARCHY, {"step": 9, "score": 0.6})
    now, before = weights_versions(published)
    assert now.current and now.step == 9 and now.figures == (("score", 0.6),)
    assert not before.current and before.figures == (("score", 0.5), ("ARE", 0.25))
    assert re.fullmatch(r"[0-9a-f]{12}", before.digest) and before.name == kept.name
    kept.write_bytes(b"torn")
    assert "torn" not in (trouble := weights_versions(published)[1].trouble) and trouble


DESCRIPTION = {
    "paths": {
        "/infer/{model}": {
            "post": {
                "tags": ["Infer"], "summary": "Run",
                "parameters": [
                    {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}},
                    {"name": "image", "in": "query", "schema": {"type": "string", "default": ""}},
                ],
                "requestBody": {"content": {"multipart/form-data": {
                    "schema": {"$ref": "#/components/schemas/Body"}}}},
            }
        },
        "/train/": {"post": {"requestBody": {"content": {"application/json": {
            "schema": {"anyOf": [{"type": "object"}, {"type": "null"}]}}}}}},
    },
    "components": {"schemas": {"Body": {"required": ["file"], "properties": {
        "file": {"type": "string", "format": "binary"},
        "params": {"type": "string", "default": "{}"}}}}},
}  # fmt: skip


def test_requests_are_told_with_a_line_that_makes_them() -> None:
    infer, train = endpoints(DESCRIPTION)
    assert [(p.name, p.place, p.kind) for p in infer.parameters] == [
        ("model", "path", "string"), ("image", "query", "string"), ("file", "form", "file"),
        ("params", "form", "string"),
    ]  # fmt: skip
    assert infer.curl("http://h") == "curl -X POST -F file=@FILE http://h/infer/MODEL"
    assert train.curl("http://h").endswith("-d '{}' http://h/train/") and train.group == "Others"


def test_names_are_text_whatever_they_are(study: Study) -> None:
    name = "<script>alert(1)</script>&'\""
    shown = card(store_of(study), half_known(study))
    values = {"item": shown.__class__(name, trouble=name), "rectangles": [], "tags": []}
    page = render("item.html", values)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_what_is_hidden_is_not_shown() -> None:
    """A display of its own would win over the attribute by which the script hides buttons."""
    assert "[hidden] { display: none !important; }" in (STATIC / "page.css").read_text()


def test_nothing_is_taken_from_elsewhere() -> None:
    for path in [*STATIC.iterdir(), *(STATIC.parent / "templates").iterdir()]:
        found = re.findall(r"(?:src|href|url|import)\W{1,3}(?:https?:)?//\S+", path.read_text())
        for address in found:
            pytest.fail(f"{path.name}: {address}")
