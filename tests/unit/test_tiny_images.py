"""Images of one voxel, one row, or fewer voxels than a bin are answered like any other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click_cases import grey_network, source, whole

from lib.adaptation.refit import change_of
from lib.clicks.answer import segment_clicked
from lib.clicks.class_map import segment_classes
from lib.clicks.source import Clicks
from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import flat_hierarchy
from lib.networks.study_heads import StudyHeads
from lib.prediction.predictor import Predictor

CLASSES = flat_hierarchy(4)
TINY = [
    ((1, 1, 1), (10.0, 10.0, 10.0)),
    ((1, 40, 1), (10.0, 10.0, 10.0)),
    ((2, 2, 1), (5.0, 5.0, 40.0)),
    ((3, 2, 3), (2.0, 2.0, 2.0)),
    ((1, 1, 9), (10.0, 10.0, 40.0)),
]
"""Shapes and voxel sizes; the third and the fourth are one voxel of the network."""


@pytest.mark.parametrize(("shape", "size"), TINY)
def test_classes_and_objects(shape, size):
    predictor = Predictor(grey_network(), CLASSES, InferenceSettings(), finest_nm=10.0)
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    classes = predictor.classes(image, size, "fine")
    assert classes.shape == shape and classes.min() >= 1
    objects = predictor.objects(image, size)
    assert objects.ids.shape == shape and objects.ids.max() == objects.count
    assert predictor.object_classes(image, size).shape == shape


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 1), (2, 2, 1)])
def test_clicks(shape):
    image = np.full(shape, 2, np.float32)
    at = source(image, grey_network())
    last = tuple(n - 1 for n in shape)
    answer = segment_clicked(at, Clicks([last]))
    assert whole(answer, image)[last]
    if last != (0, 0, 0):
        apart = whole(segment_clicked(at, Clicks([last], [(0, 0, 0)])), image)
        assert apart[last] and not apart[0, 0, 0]
    assert segment_classes(at, {2: [last]}, CLASSES).classes[last] == 3


def test_a_part_of_the_rows_that_is_empty_changes_nothing():
    """A handful of known voxels leaves some of the folds without a row."""
    heads = StudyHeads(5, {"semantic": 4, "coarse": 2}, 8)
    found = change_of(heads, torch.zeros(0, 5))
    assert found["semantic"].shape == (0, 4) and found["coarse"].shape == (0, 2)
