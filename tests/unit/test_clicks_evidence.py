"""Answering from cached features equals running the whole prompted network."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lib.clicks import flood as click_flood
from lib.clicks.evidence import (
    STAND_INS,
    WindowPoints,
    compute_features,
    window_logits,
    with_stand_ins,
)
from lib.clicks.flood import UNREACHED
from lib.clicks.judge import NOT_A_CANDIDATE, ClickJudge, prompted_rows
from lib.clicks.masks import clicked_object
from lib.configs.settings import LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prediction.feature_cache import WindowFeatures
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


@pytest.mark.parametrize("prompt", [0.0, 1.0], ids=["distance", "mask head"])
def test_cached_answer_equals_the_whole_network(prompt: float) -> None:
    """The same logits where the network is run on everything anew."""
    net = network(prompt)
    net.delta_d = 1e3  # every voxel is a candidate
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, "float32")
    assert window.features.dtype == torch.float16 and window.embedding.shape == (patch.size, 8)
    found = window_logits(net, window, clicks(), (8.0, 8.0, 40.0))
    reached = found > UNREACHED
    assert reached[3, 4, 1] and reached[10, 10, 3] and reached.mean() > 0.2
    assert (found[reached] != NOT_A_CANDIDATE).all()
    if net.mask_head is None:
        return  # the rule of distance is not part of the network
    with torch.no_grad():
        prompts = clicks().prompts((8.0, 8.0, 40.0), 3)
        out = net(torch.from_numpy(patch)[None, None], prompts)
    mask = out["mask"][0, 0].numpy()
    # Where the object is not, nothing is added; where it is, its class counts as well.
    low, high = reached & (mask <= 0), reached & (mask > 0)
    assert low.any() and np.abs(found - mask)[low].max() < 0.05
    assert (found[high] <= mask[high] + 0.05).all()


def smooth_window(shape: tuple[int, int, int], net: NeuropilNet) -> WindowFeatures:
    """Features that change slowly: objects of any form and size."""
    noise = np.random.default_rng(0).standard_normal((*shape, 16))
    smooth = 30 * gaussian_filter(noise, (4, 4, 1, 0)).reshape(-1, 16)
    features = torch.from_numpy(smooth.astype(np.float16))
    with torch.no_grad():
        embedding = net.task_heads.rows(features.float(), ("instance",))["instance"]
    box: Box = ((0, shape[0]), (0, shape[1]), (0, shape[2]))
    return WindowFeatures(box, features, embedding.half())


@pytest.mark.parametrize("prompt", [0.0, 1.0], ids=["distance", "mask head"])
@pytest.mark.parametrize("shape", [(61, 50, 5), (48, 64, 8)])
def test_judging_only_what_the_object_reaches_finds_the_same_object(
    shape: tuple[int, int, int], prompt: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(prompt)
    torch.nn.init.zeros_(net.prompt_encoder.gate)  # the clicked voxel stays like its neighbours
    window = smooth_window(shape, net)
    point = np.array([[12, 14, 2]])
    at = int(np.ravel_multi_index((12, 14, 2), shape))
    apart = (window.embedding.float() - window.embedding[at].float()).norm(dim=1)
    net.delta_d = float(apart.quantile(0.1))
    if net.mask_head is not None:
        torch.nn.init.zeros_(net.mask_head.out.weight)  # the starting rule, at this distance
        with torch.no_grad():
            net.mask_head.rule.weight[0, 5] = 0.0
            net.mask_head.rule.bias.fill_(3 * net.delta_d)
    points = WindowPoints(point, np.zeros((0, 3), np.int64), -1, True)
    monkeypatch.setattr(click_flood, "BLOCK", (8, 8, 4))
    in_steps = window_logits(net, window, points, (8.0, 8.0, 8.0))
    monkeypatch.setattr(click_flood, "BLOCK", shape)
    at_once = window_logits(net, window, points, (8.0, 8.0, 8.0))
    reached = in_steps > UNREACHED
    assert (at_once > UNREACHED).all() and 0.1 < reached.mean() < 0.95
    np.testing.assert_allclose(in_steps[reached], at_once[reached], atol=1e-3)
    none = np.zeros((0, 3), np.int64)
    whole, _ = clicked_object(at_once, point, none)
    found, _ = clicked_object(in_steps, point, none)
    assert np.array_equal(found, whole) and 200 < whole.sum() < whole.size / 2


def test_the_order_of_voxels_does_not_matter_to_a_judge() -> None:
    net = network(1.0)
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, "float32")
    judge = ClickJudge(net, window, clicks().prompts((8.0, 8.0, 40.0), 3))
    places = torch.from_numpy(np.argwhere(np.ones(SHAPE)))
    voxels = torch.arange(len(places))
    some = torch.randperm(len(places))[:500]
    with torch.no_grad():
        everything = judge(voxels, places.float())
        assert (everything > NOT_A_CANDIDATE).any()
        torch.testing.assert_close(
            judge(voxels[some], places[some].float()), everything[some], atol=1e-3, rtol=1e-4
        )


def test_stand_ins_are_where_no_answer_can_be() -> None:
    """Without negative points the mask head gets some that are far in embedding."""
    window = WindowFeatures(
        BOX,
        torch.zeros(24 * 20 * 6, 16),
        torch.zeros((24, 20, 6, 8), dtype=torch.float16).flatten(0, 2),
    )
    window.embedding.view(*SHAPE, 8)[12:, ..., 0] = 5.0
    points = WindowPoints(np.array([[3, 4, 1]]), np.zeros((0, 3), np.int64), 3, True)
    filled = with_stand_ins(window, points, 3.0)
    assert len(filled.negative) == STAND_INS and (filled.negative[:, 0] >= 12).all()
    assert np.array_equal(filled.positive, points.positive) and filled.class_id == 3
    one = WindowPoints(points.positive, np.array([[20, 1, 5]]), 3, True)
    kept = with_stand_ins(window, one, 3.0).negative
    assert len(kept) == STAND_INS and kept[0].tolist() == [20, 1, 5]
    assert with_stand_ins(window, points, 6.0) is points  # nothing is that far


def test_half_precision_gives_the_same_logits_but_for_rounding() -> None:
    net = network(1.0)
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    exact, rounded = (
        compute_features(net, BOX, patch, precision) for precision in ("float32", "bfloat16")
    )
    assert rounded.features.dtype == torch.bfloat16
    net.delta_d = 1e3  # every voxel is a candidate
    first, second = (window_logits(net, w, clicks(), (8.0, 8.0, 40.0)) for w in (exact, rounded))
    both = (first > UNREACHED) & (second > UNREACHED)
    assert (
        both.mean() > 0.2 and np.abs(first[both] - second[both]).mean() < 0.02 * first[both].std()
    )


def test_far_voxels_are_not_looked_at() -> None:
    net = network(0.0)
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, "float32")
    points = WindowPoints(np.array([[3, 4, 1]]), np.zeros((0, 3), np.int64), -1, True)
    here = window.embedding[(3 * 20 + 4) * 6 + 1].float()
    apart = (window.embedding.float() - here).norm(dim=1)
    net.delta_d = float(apart.median()) / 2
    logits = window_logits(net, window, points, (8.0, 8.0, 8.0)).ravel()
    far, judged = (apart > 2.01 * net.delta_d).numpy(), logits > UNREACHED
    assert (logits[far & judged] == NOT_A_CANDIDATE).all() and (far & judged).any()
    near = (apart < 1.99 * net.delta_d).numpy() & judged
    assert near.any() and (logits[near] != NOT_A_CANDIDATE).all()


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
