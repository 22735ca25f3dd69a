"""Answering from cached features equals running the whole prompted network."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lib.configs.settings import LossSettings, ModelSettings
from lib.decoding import click_evidence
from lib.decoding.click_evidence import (
    NOT_A_CANDIDATE,
    WindowPoints,
    compute_features,
    prompted_rows,
    window_logits,
    with_stand_ins,
)
from lib.decoding.feature_cache import WindowFeatures
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prompts.points import PointPrompts
from lib.volumes.boxes import Box

SHAPE = (24, 20, 6)
BOX: Box = ((5, 29), (0, 20), (2, 8))


def network(prompt: float) -> NeuropilNet:
    torch.manual_seed(1)
    net = build_network(
        ModelSettings(feature_size=8), LossSettings(weight_prompt=prompt), load_hierarchy()
    )
    torch.nn.init.normal_(net.prompt_encoder.gate)
    torch.nn.init.normal_(net.prompt_encoder.conv.weight)
    if net.mask_head is not None:
        torch.nn.init.normal_(net.mask_head.out.weight)
    return net.eval()


def clicks() -> WindowPoints:
    return WindowPoints(
        np.array([[3, 4, 1], [10, 10, 3], [3, 4, 1]]), np.array([[20, 1, 5]]), 3, True
    )


def test_rows_of_a_residual_equal_the_dense_sum() -> None:
    net = network(0.0)
    features = torch.randn(np.prod(SHAPE), 16).half()
    prompts = PointPrompts.from_clicks([[0, 0, 0], [5, 5, 5]], [[23, 19, 0]], class_id=2)
    with torch.no_grad():
        residual = net.sparse_residual(prompts, SHAPE)
        dense = features.float() + residual.dense()[0].movedim(0, -1).reshape(-1, 16)
        for index in (torch.arange(len(features)), torch.arange(0, len(features), 7)):
            torch.testing.assert_close(prompted_rows(features, index, residual), dense[index])


def test_cached_answer_equals_the_whole_network() -> None:
    """With the mask head: the same logits where the network is run on everything anew."""
    net = network(1.0)
    net.delta_d = 1e3  # every voxel is a candidate
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, "float32")
    assert window.features.dtype == torch.float16 and window.embedding.shape == (8, patch.size)
    found = window_logits(net, window, clicks(), (8.0, 8.0, 40.0))
    with torch.no_grad():
        prompts = clicks().prompts((8.0, 8.0, 40.0), 3)
        out = net(torch.from_numpy(patch)[None, None], prompts)
    mask = out["mask"][0, 0].numpy()
    # Where the object is not, nothing is added; where it is, its class counts as well.
    low = mask <= 0
    assert low.any() and np.abs(found - mask)[low].max() < 0.05
    assert (found[~low] <= mask[~low] + 0.05).all()


@pytest.mark.parametrize("shape", [(41, 30, 5), (24, 25, 6)])
def test_looking_at_every_second_voxel_first_finds_the_same_object(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answer is positive it does not depend on what was looked at first."""
    net = network(0.0)
    box: Box = tuple((0, n) for n in shape)  # type: ignore[assignment]
    torch.nn.init.zeros_(net.prompt_encoder.gate)  # the clicked voxel stays like its neighbours
    noise = np.random.default_rng(0).standard_normal((*shape, 16))
    smooth = 30 * gaussian_filter(noise, (4, 4, 1, 0)).reshape(-1, 16)
    features = torch.from_numpy(smooth.astype(np.float16))
    with torch.no_grad():
        embedding = net.task_heads.rows(features.float(), ("instance",))["instance"].t()
    window = WindowFeatures(box, features, embedding.half())
    at = int(np.ravel_multi_index((12, 14, 2), shape))
    net.delta_d = float((embedding - embedding[:, [at]]).norm(dim=0).quantile(0.3))
    points = WindowPoints(np.array([[12, 14, 2]]), np.zeros((0, 3), np.int64), -1, True)
    monkeypatch.setattr(click_evidence, "CHUNK", 10**9)
    at_once = window_logits(net, window, points, (8.0, 8.0, 8.0))
    monkeypatch.setattr(click_evidence, "CHUNK", 100)
    in_steps = window_logits(net, window, points, (8.0, 8.0, 8.0))
    inside = at_once > 0
    assert 50 < inside.sum() < inside.size / 2
    assert ((in_steps > 0) & ~inside).sum() == 0
    assert ((in_steps > 0) & inside).sum() > 0.99 * inside.sum()
    assert (in_steps == NOT_A_CANDIDATE).sum() >= (at_once == NOT_A_CANDIDATE).sum()


def test_stand_ins_are_where_no_answer_can_be() -> None:
    """Without negative points the mask head gets some that are far in embedding."""
    window = WindowFeatures(
        BOX,
        torch.zeros(24 * 20 * 6, 16),
        torch.zeros((8, 24, 20, 6), dtype=torch.float16).flatten(1),
    )
    window.embedding.view(8, *SHAPE)[0, 12:] = 5.0
    points = WindowPoints(np.array([[3, 4, 1]]), np.zeros((0, 3), np.int64), 3, True)
    filled = with_stand_ins(window, points, 3.0)
    assert len(filled.negative) == 5 and (filled.negative[:, 0] >= 12).all()
    assert np.array_equal(filled.positive, points.positive) and filled.class_id == 3
    one = WindowPoints(points.positive, np.array([[20, 1, 5]]), 3, True)
    kept = with_stand_ins(window, one, 3.0).negative
    assert len(kept) == 5 and kept[0].tolist() == [20, 1, 5]
    assert with_stand_ins(window, points, 6.0) is points  # nothing is that far


def test_far_voxels_are_not_looked_at() -> None:
    net = network(0.0)
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, "float32")
    points = WindowPoints(np.array([[3, 4, 1]]), np.zeros((0, 3), np.int64), -1, True)
    apart = (window.embedding.float() - window.embedding[:, [(3 * 20 + 4) * 6 + 1]].float()).norm(
        dim=0
    )
    net.delta_d = float(apart.median()) / 2
    logits = window_logits(net, window, points, (8.0, 8.0, 8.0)).ravel()
    far = (apart > 2.01 * net.delta_d).numpy()
    assert (logits[far] == NOT_A_CANDIDATE).all()
    assert (logits[(apart < 1.99 * net.delta_d).numpy()] != NOT_A_CANDIDATE).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_half_precision_loses_nothing_that_matters(precision: str) -> None:
    """The stored features differ from the computed ones by rounding only."""
    net = network(0.0)
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, precision)  # type: ignore[arg-type]
    with torch.no_grad():
        exact = net.features(torch.from_numpy(patch)[None, None])[0].movedim(0, -1).flatten(0, 2)
    error = (window.features.float() - exact).abs().mean() / exact.abs().mean()
    assert error < (1e-3 if precision == "float32" else 3e-2)
