"""Validation of networks with study heads: what a training run has to beat."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from engine_cases import HIERARCHY, items_of, tiny_settings, tiny_study

from lib.engine.validation import validate, validation_places
from lib.networks.model import build_network
from lib.networks.study_heads import StudyHeads, with_study_heads
from lib.prediction.filters import COUNT, beside_of, filter_responses


def test_heads_that_see_filter_responses_are_scored_with_them(tmp_path: Path) -> None:
    """Heads that turn every voxel into one class, whatever the network says."""
    settings = tiny_settings()
    items = items_of(tiny_study(tmp_path / "study"))
    places = validation_places(items, (32, 32, 8), 2)
    net = build_network(settings.model, settings.loss, HIERARCHY)
    heads = StudyHeads(net.feature_channels, {"semantic": HIERARCHY.num_classes}, 1, COUNT)
    heads.inner.weight.data.zero_()
    heads.inner.bias.data.fill_(1.0)
    cpu = torch.device("cpu")
    for value in (0, 1):
        heads.outer.weight.data.zero_()
        heads.outer.weight.data[value] = 1000.0
        adapted = with_study_heads(net, heads.requires_grad_(False))
        report = validate(adapted, places, settings, HIERARCHY, cpu, nullcontext)
        said = report.classes.confusion.sum(0)
        assert said[value] == said.sum() > 0


def test_responses_of_a_batch_are_those_of_its_images() -> None:
    image = torch.rand((2, 1, 20, 18, 6), generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[10.0, 10.0, 10.0], [8.0, 8.0, 40.0]])
    settings = tiny_settings()
    net = build_network(settings.model, settings.loss, HIERARCHY)
    assert beside_of(net, image, sizes) is None, "published networks see none"
    heads = StudyHeads(net.feature_channels, {"semantic": HIERARCHY.num_classes}, 1, COUNT)
    found = beside_of(with_study_heads(net, heads), image, sizes)
    assert found is not None and found.shape == (2, 20, 18, 6, COUNT)
    for n, nm in enumerate(sizes.tolist()):
        expected = torch.from_numpy(filter_responses(image[n, 0].numpy(), nm)).movedim(0, -1)
        assert torch.equal(found[n], expected)
