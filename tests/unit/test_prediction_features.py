"""Features of windows are kept: a second run uses the heads alone and says the same."""

import math

import numpy as np
import pytest
import torch

from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prediction.classes import predict_classes
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import FeatureSource, Shelf, window_features
from lib.prediction.instances import predict_objects
from lib.prediction.window_grid import window_grid

HIERARCHY = load_hierarchy()
VOXEL = (8.0, 8.0, 8.0)
INFERENCE = InferenceSettings(window=(16, 16, 8), min_object_voxels=0)


def network(dims: int = 3) -> NeuropilNet:
    torch.manual_seed(0)
    model = ModelSettings(feature_size=8, head_size=8, embedding_size=2, spatial_dims=dims)
    return build_network(model, LossSettings(weight_geometry=0.0), HIERARCHY).eval()


def image(shape: tuple[int, ...] = (24, 20, 8)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def counted(net: NeuropilNet) -> list[int]:
    """Grows by one with every pass of the backbone."""
    passes: list[int] = []
    net.backbone.register_forward_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_another_level_and_instances_run_no_backbone(dims: int, mirror: bool) -> None:
    net, volume = network(dims), image()
    inference = INFERENCE.model_copy(update={"mirror": mirror})
    shelf = Shelf(FeatureCache(2**28), "weights", "image")
    passes = counted(net)
    first = predict_classes(net, volume, VOXEL, inference, hierarchy=HIERARCHY, shelf=shelf)
    once = len(passes)
    assert once > 0
    again = predict_classes(net, volume, VOXEL, inference, hierarchy=HIERARCHY, shelf=shelf)
    coarse = predict_classes(
        net, volume, VOXEL, inference, hierarchy=HIERARCHY, shelf=shelf, level="coarse"
    )
    found = predict_objects(net, volume, VOXEL, inference, hierarchy=HIERARCHY, shelf=shelf)
    assert len(passes) == once

    assert np.array_equal(again, first)
    plain = {"hierarchy": HIERARCHY}
    assert np.array_equal(first, predict_classes(net, volume, VOXEL, inference, **plain))
    alone = predict_classes(net, volume, VOXEL, inference, **plain, level="coarse")
    assert np.array_equal(coarse, alone)
    assert np.array_equal(found.ids, predict_objects(net, volume, VOXEL, inference, **plain).ids)


@pytest.mark.parametrize("changed", ["weights", "image"])
def test_other_weights_or_another_image_are_computed_anew(changed: str) -> None:
    net, cache = network(), FeatureCache(2**28)
    named = {"weights": "one", "image": "one"}
    first = Shelf(cache, **named)
    other = Shelf(cache, **{**named, changed: "other"})
    predict_classes(net, image(), VOXEL, INFERENCE, hierarchy=HIERARCHY, shelf=first)
    passes = counted(net)
    predict_classes(net, image(), VOXEL, INFERENCE, hierarchy=HIERARCHY, shelf=other)
    assert len(passes) == window_grid((24, 20, 8), INFERENCE.window, INFERENCE.overlap).count


def test_a_volume_that_does_not_fit_pushes_nothing_out() -> None:
    net, volume = network(), image()
    grid = window_grid(volume.shape, INFERENCE.window, INFERENCE.overlap)
    one = 4 * net.feature_channels * math.prod(grid.window)
    inference = INFERENCE.model_copy(update={"precision": "float32"})
    for budget, kept in ((2 * one * grid.count, grid.count), (2 * one * grid.count - 1, 0)):
        cache = FeatureCache(budget)
        predict_classes(
            net, volume, VOXEL, inference, hierarchy=HIERARCHY, shelf=Shelf(cache, "w", "i")
        )
        assert len(cache) == kept


def test_window_features_are_the_backbones() -> None:
    net, volume = network(), image()
    grid = window_grid(volume.shape, INFERENCE.window, INFERENCE.overlap)
    source = FeatureSource(net, volume, "float32")
    found = dict(window_features(source, grid))
    assert list(found) == list(grid.boxes()) and len(found) == grid.count
    box = list(grid.boxes())[-1]
    with torch.no_grad():
        expected = net.features(torch.from_numpy(source.voxels(box))[None, None])[0]
    assert torch.allclose(found[box], expected, atol=1e-5)
    assert list(dict(window_features(source, grid, [box]))) == [box]
