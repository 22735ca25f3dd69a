"""`model.spatial_dims: 2`: training, prediction and clicks of a network without a third axis."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click_cases import grey_network, source, whole
from engine_cases import HIERARCHY, add_cells, tiny_settings

from lib.clicks.answer import segment_clicked
from lib.clicks.class_map import segment_classes
from lib.clicks.source import Clicks
from lib.engine.run import RunOptions, train
from lib.labels.hierarchy import flat_hierarchy
from lib.prediction.predictor import load_predictor
from lib.volumes.study import Study

CLASSES = flat_hierarchy(4)


@pytest.mark.parametrize(
    ("shape", "size"), [((48, 40, 1), (10.0, 10.0, 40.0)), ((48, 40, 12), (10.0, 10.0, 10.0))]
)
def test_a_network_of_two_axes_trains_and_predicts(tmp_path, shape, size):
    study = Study(tmp_path / "s", HIERARCHY)
    add_cells(study, "a-train", shape, size, split="train")
    add_cells(study, "a-val", shape, size, split="val")
    settings = tiny_settings(
        model__spatial_dims=2, training__max_epochs=1, training__image_interval=1,
        loss__weight_near=1.0,
    )  # fmt: skip
    result = train(settings, RunOptions((study.root,), tmp_path / "out"))
    assert result.steps == 2 and result.report is not None
    assert result.report.places > 0 and math.isfinite(result.report.score)
    predictor = load_predictor(tmp_path / "out" / "best.pt", settings)
    item = study.item("a-val")
    classes = predictor.classes(item.open_image(), item.voxel_size_nm)
    assert classes.shape == shape and classes.min() >= 1
    objects = predictor.objects(item.open_image(), item.voxel_size_nm)
    assert objects.ids.shape == shape


@pytest.mark.parametrize("depth", [1, 6])
def test_points_answer_for_a_network_of_two_axes(depth):
    """An object is clicked in one section; classes are named in several at once."""
    image = np.zeros((32, 24, depth), np.float32)
    image[4:14, 4:12], image[18:28, 4:12] = 2, 3
    at = source(image, grey_network(dims=2))
    last = depth - 1
    answer = segment_clicked(at, Clicks([(6, 6, last)]), section=last)
    assert whole(answer, image)[4:14, 4:12, last].all()
    before = segment_classes(at, {}, CLASSES).classes
    points = {0: [(1, 1, 0)], 2: [(6, 6, last), (20, 6, 0)]}
    after = segment_classes(at, points, CLASSES).classes
    assert after.shape == image.shape and before.shape == image.shape
    for class_id, places in points.items():
        assert all(after[p] == class_id + 1 for p in places)
    middle = [z for z in range(depth) if z not in (0, last)]
    assert (after[..., middle] != before[..., middle]).mean() < 0.5 if middle else True
