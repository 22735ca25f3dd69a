"""Several ways to find boundaries ask the features once and say what each alone says."""

import numpy as np
import pytest
import torch
from adaptation_cases import HIERARCHY, VOXEL, network

from lib.configs.settings import InferenceSettings
from lib.networks.study_heads import BOUNDARY, CLASSES, StudyHeads, together, with_study_heads
from lib.prediction.evidence import Evidence, Way, collect_evidence, collect_ways
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import Shelf
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.scratch import Scratch

SETTINGS = InferenceSettings(window=(16, 16, 4), overlap=0.25, long_range=(3,))


def heads(channels: int, outputs: dict[str, int], seed: int, beside: int = 0) -> StudyHeads:
    torch.manual_seed(seed)
    made = StudyHeads(channels, outputs, 4, beside)
    torch.nn.init.normal_(made.outer.weight, std=3.0)
    seen = channels + beside
    made.mean, made.scale = torch.randn(seen), torch.rand(seen) + 0.5
    return made.requires_grad_(False).eval()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("mirror", [False, True])
def test_ways_together_are_the_ways_alone(precision: str, mirror: bool) -> None:
    net = network()
    image = np.random.default_rng(0).integers(0, 255, (24, 20, 5)).astype(np.uint8)
    classes = heads(net.feature_channels, {CLASSES: 12}, 1)
    one = heads(net.feature_channels, {BOUNDARY: 1}, 2, FILTERS)
    other = heads(net.feature_channels, {BOUNDARY: 1}, 3)
    ways = [Way(), Way(classes), Way(classes, one), Way(None, other)]
    settings = SETTINGS.model_copy(update={"precision": precision, "mirror": mirror})
    cache = FeatureCache(2**28)
    shelf = Shelf(cache, "weights", "image")
    with Scratch(2**30) as scratch:
        found = collect_ways(net, ways, image, VOXEL, settings, HIERARCHY, scratch, shelf=shelf)
        passes = cache.misses
        for way, each in zip(ways, found, strict=True):
            parts = [h for h in (way.classes, way.boundary) if h is not None]
            study = together(*parts) if len(parts) == 2 else parts[0] if parts else None
            alone = collect_evidence(
                with_study_heads(net, study), image, VOXEL, settings, HIERARCHY, scratch,
                shelf=shelf,
            )  # fmt: skip
            assert_alike(each, alone)
        assert cache.misses == passes, "the features are computed once"
    assert not np.array_equal(found[0].classes, found[1].classes)
    assert found[1].classes is found[2].classes, "what two ways have in common is one array"


def assert_alike(one: Evidence, other: Evidence) -> None:
    np.testing.assert_allclose(one.affinities, other.affinities, atol=2e-3)
    assert (one.classes == other.classes).mean() > 0.999
    assert (one.foreground == other.foreground).mean() > 0.999
