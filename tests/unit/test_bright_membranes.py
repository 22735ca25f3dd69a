"""An inverted image that is said to have bright membranes is answered like the original.

Bit for bit: the grey values are whole numbers, so that the two contrast windows mirror exactly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import torch
from adaptation_cases import network, published
from block_cases import case, command
from click_cases import grey_network
from engine_cases import HIERARCHY, SECTIONS, add_cells, items_of, tiny_settings
from fastapi import HTTPException
from import_cases import run
from PIL import Image

from lib.adaptation.learner import item_rows
from lib.adaptation.marks import marks_of
from lib.configs.settings import AdaptationSettings, InferenceSettings, Settings
from lib.dicom.labels import export_item
from lib.evaluation.click_sessions import app_answers
from lib.infers.base import NeuropilTask
from lib.labels.hierarchy import flat_hierarchy
from lib.metrics.clicks import Click
from lib.networks.model import NeuropilNet
from lib.prediction.predictor import Predictor
from lib.queries.scores import ItemScores
from lib.queries.store import ScoreStore
from lib.view.sections import section_png
from lib.volumes.contrast import intensity_window, normalize
from lib.volumes.crop import Crop
from lib.volumes.opened import ImageStore
from lib.volumes.readers.opening import open_source
from lib.volumes.seen import as_seen
from lib.volumes.study import Study, StudyItem

FINE = (4.0, 4.0, 40.0)
"""Binned by 2 in plane."""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[StudyItem, StudyItem]:
    """An item, and the same inverted, in studies of their own."""
    return studies(tmp_path, SECTIONS)


def studies(folder: Path, size: tuple[float, float, float]) -> tuple[StudyItem, StudyItem]:
    study = Study(folder / "dark", HIERARCHY)
    add_cells(study, "a", (48, 40, 12), size, split="train")
    dark = study.item("a")
    other = Study(folder / "bright", HIERARCHY)
    other.add_item(
        "a", 255 - np.asarray(dark.open_image()[:, :, :]), size, dark.read_class_sets(),
        dark.read_instances(), split="train", bright_membranes=True,
    )  # fmt: skip
    return dark, other.item("a")


def predictor() -> Predictor:
    inference = InferenceSettings(
        window=(32, 32, 8), click_window=(32, 32, 8), precision="float32", min_object_voxels=3
    )
    return Predictor(grey_network(), flat_hierarchy(4), inference, finest_nm=10.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_window_is_turned_round(dtype):
    top = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, 50, (40, 30, 6)).astype(dtype) * dtype(top // 50)
    seen = as_seen(top - image, True)
    low, high = intensity_window(image)
    assert intensity_window(seen) == (top - low, top - high)
    wanted = normalize(image, (low, high))
    assert np.array_equal(normalize(seen[:, :, :], intensity_window(seen)), wanted)
    assert as_seen(image, False) is image
    part = Crop(seen, ((3, 9), (4, 9), (0, 6)), intensity_window(seen))
    assert np.array_equal(normalize(part[:, :, :], intensity_window(part)), wanted[3:9, 4:9])


def test_what_is_no_number_stays_dark():
    image = np.array([[[0.0, 0.5, np.nan, 1.0]]], np.float32)
    found = normalize(image, (1.0, 0.0))
    assert found.tolist() == [[[1.0, 0.5, 0.0, 0.0]]]


@pytest.mark.parametrize("size", [SECTIONS, FINE, (30.0, 30.0, 30.0)])
def test_classes_objects_and_clicks(tmp_path, size):
    dark, bright = studies(tmp_path, size)
    made = predictor()
    answers = []
    for item in (dark, bright):
        image = item.open_seen()
        ids = made.objects(image, size).ids
        clicks = [Click((5, 5, 2), True), Click((20, 20, 2), False)]
        answer = app_answers(made, item, ids)
        answers.append((made.classes(image, size, "fine"), ids, answer(clicks[:1]), answer(clicks)))
    for one, other in zip(*answers, strict=True):
        assert np.array_equal(one, other)
    assert answers[0][1].max() > 1
    as_it_is = made.classes(bright.open_image(), size, "fine")
    assert not np.array_equal(as_it_is, answers[0][0]), "inverted it is another image"


def test_training_scoring_and_learning(pair):
    box = ((-4, 28), (3, 35), (0, 8))
    patches = [items_of(item.study)[0].read(box).image for item in pair]
    assert np.array_equal(*patches)
    net, settings = network(), tiny_settings(inference__window=[32, 32, 8])
    scores = [scored(item, net, settings) for item in pair]
    assert np.array_equal(scores[0].entropy, scores[1].entropy)
    assert np.array_equal(scores[0].heat, scores[1].heat) and scores[0].heat.any()
    rows = [item_rows(item, published(net), AdaptationSettings(), 9) for item in pair]
    assert torch.equal(rows[0].features, rows[1].features) and len(rows[0])
    marks = [marks_of([item], published(net), 10**6, lambda _: None)[0].image for item in pair]
    windows = [intensity_window(image) for image in marks]
    assert windows[1] == tuple(255 - v for v in windows[0])


def scored(item: StudyItem, net: NeuropilNet, settings: Settings) -> ItemScores:
    """An item's scores, which no longer count when it is seen otherwise."""
    store = ScoreStore(item.study, settings.queries)
    assert store.score(lambda: (net, settings, HIERARCHY), "w") == 1
    found = store.scores(item)
    assert found is not None
    before = item.record
    item.write_record(before.changed(bright_membranes=not before.bright_membranes))
    assert store.scores(item) is None
    item.write_record(before)
    assert store.scores(item) is not None
    return found


def unasked(*_: Any) -> Any:
    raise AssertionError("the bare image has no objects")


def test_viewers_and_exports_show_the_image_as_it_is(pair, tmp_path):
    dark, bright = pair
    stored = 255 - np.asarray(dark.open_image()[:, :, :])
    assert np.array_equal(bright.open_image()[:, :, :], stored)
    pictures = [section_png(item, "image", 3, 64, unasked) for item in pair]
    (tmp_path / "a.png").write_bytes(pictures[0])
    (tmp_path / "b.png").write_bytes(pictures[1])
    grey = [np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("a.png", "b.png")]
    assert np.abs(grey[0] + grey[1] - 255).max() <= 1
    series = export_item(bright, tmp_path / "dicom")
    assert series is not None
    again = ImageStore("nm").open(bright.image_path)
    assert np.array_equal(again.voxels, stored) and again.bright_membranes


def test_records_settings_and_requests_say_it(pair):
    dark, bright = pair
    assert json.loads((bright.study.root / "a.neuropil.json").read_text())["bright_membranes"]
    assert "bright_membranes" not in (dark.study.root / "a.neuropil.json").read_text()
    whole = Study(dark.study.root, HIERARCHY, bright_membranes=True)
    assert whole.item("a").bright_membranes and not dark.bright_membranes
    dark.write_record(dark.record.changed(bright_membranes=False))
    assert not whole.item("a").bright_membranes, "a record that says otherwise"
    dark.write_record(dark.record.changed(bright_membranes=None))
    plain, said = ImageStore("nm"), ImageStore("nm", bright_membranes=True)
    one, other = plain.open(dark.image_path), said.open(dark.image_path)
    assert (one.bright_membranes, other.bright_membranes) == (False, True)
    assert one.key != other.key, "what was computed of the one is not of use for the other"
    assert one.seen_with(True).key == other.key and other.seen_with(False).key == one.key
    assert one.seen_with(False) is one
    with pytest.raises(ValueError, match="bright_membranes 'yes'"):
        dark.record.changed(bright_membranes="yes")


def test_a_request_may_say_it(pair):
    task = object.__new__(type("Bare", (NeuropilTask,), {"run": None}))
    task.images = ImageStore("nm")
    request = {"image": str(pair[0].image_path)}
    assert not task._image(request).bright_membranes
    assert task._image({**request, "bright_membranes": True}).bright_membranes
    with pytest.raises(HTTPException) as error:
        task._image({**request, "bright_membranes": "yes"})
    assert error.value.detail == "bright_membranes: expected true or false, found 'yes'"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume in `dark`, the same inverted in `bright`, and small weights."""
    folder = tmp_path_factory.mktemp("volumes")
    for name in ("dark", "bright"):
        (folder / name).mkdir()
        case(folder / name)
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{folder}/bright/em.zarr/"}}
    stored = ts.open(spec).result()
    stored.write(255 - stored.read().result()).result()
    return folder


def classes(path: Path) -> np.ndarray:
    return np.asarray(open_source(str(path)))


def test_predict_by_blocks_and_in_one(volumes):
    for out in ("seg.zarr", "one.nii.gz"):
        assert run(*command(volumes / "dark", out=out)) == 0
        words = [*command(volumes / "bright", out=out), "data.bright_membranes=true"]
        assert run(*words) == 0
    wanted = classes(volumes / "dark" / "one.nii.gz")
    assert np.array_equal(classes(volumes / "bright" / "one.nii.gz"), wanted)
    assert np.array_equal(classes(volumes / "bright" / "seg.zarr" / "classes"), wanted)


@pytest.mark.parametrize("lazy", [False, True])
def test_import_says_it_of_copies_and_of_regions(volumes, tmp_path, lazy):
    found = []
    for name, words in (("dark", []), ("bright", ["--bright-membranes"])):
        root = tmp_path / name
        more = ["--lazy", "--crop", "2:34,:,:"] if lazy else []
        assert run("import", volumes / name / "em.zarr", "--studies", root, *words, *more) == 0
        item = Study(root, HIERARCHY).item("em")
        assert item.record.bright_membranes is (True if words else None)
        opened = ImageStore("nm").open(item.image_path)
        seen = [item.open_seen(), opened.seen]
        found.append([normalize(s[:, :, :], intensity_window(s)) for s in seen])
        weights = volumes / "dark" / "tiny.pt"
        for workers in ([], ["--workers", 1]):
            assert run(
                "predict", "--studies", root, "--weights", weights, "--quiet", *workers,
                "--set", "inference.window=[16,16,8]", "inference.precision=float32",
            ) == 0  # fmt: skip
            found[-1].append(classes(item.label_path("original")))
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
