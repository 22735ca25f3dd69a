"""Several ways to find boundaries ask the features once and say what each alone says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adaptation_cases import HIERARCHY, VOXEL, network

from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings, Settings
from lib.networks.study_heads import (
    BOUNDARY,
    CLASSES,
    StudyHeads,
    from_plain,
    to_plain,
    together,
    with_study_heads,
)
from lib.networks.weights import load_network, save_weights
from lib.prediction.evidence import Evidence, collect_evidence, collect_ways
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import Shelf
from lib.prediction.filters import COUNT
from lib.prediction.scratch import Scratch
from lib.prediction.ways import Way, boundary_of

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
    one = heads(net.feature_channels, {BOUNDARY: 1}, 2, COUNT)
    other = heads(net.feature_channels, {BOUNDARY: 1}, 3)
    ways = [Way(), Way(classes), Way(classes, one, True), Way(None, other, True)]
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_boundary_head_of_a_file_sees_features_and_responses(precision: str) -> None:
    net, rng = network(), np.random.default_rng(0)
    image = rng.integers(0, 255, (24, 20, 5)).astype(np.uint8)
    head = heads(net.feature_channels, {BOUNDARY: 1}, 4, COUNT)
    head.outer.bias.add_(4.0)  # it sees boundaries in many places
    settings = SETTINGS.model_copy(update={"precision": precision})
    with Scratch(2**30) as scratch:
        plain = collect_evidence(net, image, VOXEL, settings, HIERARCHY, scratch)
        net.boundary = to_plain(head)
        assert Way.of(net).classes is None
        found = collect_evidence(net, image, VOXEL, settings, HIERARCHY, scratch)
        part = ((3, 20), (0, 13), (1, 5))
        cut = collect_evidence(net, image, VOXEL, settings, HIERARCHY, scratch, box=part)
        own = Way(None, boundary_of(net), alone=True)
        (alone,) = collect_ways(net, [own], image, VOXEL, settings, HIERARCHY, scratch)
    assert not np.array_equal(found.affinities, plain.affinities)
    np.testing.assert_array_equal(found.classes, plain.classes)
    assert (found.affinities <= plain.affinities + 0.02).all()
    lowest = np.minimum(alone.affinities, plain.affinities)
    # windows are blended afterwards: where they differ, the lowest of means is not the mean
    assert (found.affinities >= lowest - 0.02).mean() > 0.9
    where = tuple(slice(*span) for span in part)
    inner = found.affinities[(0, *where)][:-1]  # pairs along x with both voxels in the part
    np.testing.assert_allclose(cut.affinities[0][:-1], inner, atol=2e-3)


def test_a_study_of_its_own_boundaries_goes_before_the_file() -> None:
    net = network()
    net.boundary = to_plain(heads(net.feature_channels, {BOUNDARY: 1}, 4, COUNT))
    classes, own = (
        heads(net.feature_channels, {CLASSES: 12}, 1),
        heads(net.feature_channels, {BOUNDARY: 1}, 2),
    )
    of_file = Way.of(with_study_heads(net, classes))
    assert of_file.classes is classes and of_file.boundary is not None
    assert of_file.boundary.beside == COUNT
    assert Way.of(with_study_heads(net, own)) == Way(own, own, alone=True)


def test_heads_as_plain_values_are_the_same_heads() -> None:
    head, rows = heads(5, {BOUNDARY: 1}, 2, COUNT), torch.randn(40, 5 + COUNT)
    again = from_plain(json.loads(json.dumps(to_plain(head))))
    one, other = (h.change(rows[:, :5], rows[:, 5:]) for h in (head, again))
    torch.testing.assert_close(one, other)


def test_a_boundary_head_for_other_filters_is_refused() -> None:
    net = network()
    net.boundary = to_plain(heads(net.feature_channels, {BOUNDARY: 1}, 4, COUNT + 1))
    with pytest.raises(ValueError, match=f"{COUNT + 1} filter responses.*fit_boundary"):
        boundary_of(net)


def test_what_was_fitted_to_weights_goes_where_they_go(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "weights.pt"
    net.boundary = to_plain(heads(net.feature_channels, {BOUNDARY: 1}, 4))
    model = ModelSettings(feature_size=8, head_size=8, embedding_size=2)
    settings = Settings(model=model, loss=LossSettings(weight_geometry=0.0))
    save_weights(path, net.state_dict(), settings, HIERARCHY, {"step": 1, **net.fitted})
    loaded = load_network(path)[0]
    assert loaded.fitted == net.fitted and "joining" not in loaded.fitted
    image = np.random.default_rng(0).integers(0, 255, (24, 20, 5)).astype(np.uint8)
    with Scratch(2**30) as scratch:
        one, other = (
            collect_evidence(n, image, VOXEL, SETTINGS, HIERARCHY, scratch) for n in (net, loaded)
        )
    assert_alike(one, other)
