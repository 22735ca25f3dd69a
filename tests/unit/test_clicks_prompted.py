"""Answering from cached features equals running the whole prompted network."""

import numpy as np
import pytest
import torch
from click_cases import source

from lib.clicks.judge import NOT_A_CANDIDATE, ClickJudge, prompted_rows
from lib.clicks.prompted import (
    ASKED,
    STAND_INS,
    SUREST,
    WEIGHT,
    WindowPoints,
    judged,
    prompted_costs,
    with_stand_ins,
)
from lib.clicks.source import Clicks, compute_features
from lib.configs.settings import LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.networks.study_heads import StudyHeads, with_study_heads
from lib.prediction.feature_cache import WindowFeatures
from lib.prediction.filters import COUNT
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


def everywhere(
    net: NeuropilNet, window: WindowFeatures, points: WindowPoints | None = None
) -> np.ndarray:
    """(x, y, z) logits of all voxels of a window."""
    places = np.argwhere(np.ones(SHAPE))
    return judged(net, window, points or clicks(), (8.0, 8.0, 40.0), places).reshape(SHAPE)


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
    found = everywhere(net, window)
    assert (found != NOT_A_CANDIDATE).all()
    if net.mask_head is None:
        return  # the rule of distance is not part of the network
    with torch.no_grad():
        prompts = clicks().prompts((8.0, 8.0, 40.0), 3)
        out = net(torch.from_numpy(patch)[None, None], prompts)
    mask = out["mask"][0, 0].numpy()
    # Where the object is not, nothing is added; where it is, its class counts as well.
    low, high = mask <= 0, mask > 0
    assert low.any() and np.abs(found - mask)[low].max() < 0.05
    assert (found[high] <= mask[high] + 0.05).all()


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
    first, second = (everywhere(net, w) for w in (exact, rounded))
    assert np.abs(first - second).mean() < 0.02 * first.std()


def test_far_voxels_are_not_looked_at() -> None:
    net = network(0.0)
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, "float32")
    points = WindowPoints(np.array([[3, 4, 1]]), np.zeros((0, 3), np.int64), -1, True)
    here = window.embedding[(3 * 20 + 4) * 6 + 1].float()
    apart = (window.embedding.float() - here).norm(dim=1)
    net.delta_d = float(apart.median()) / 2
    logits = everywhere(net, window, points).ravel()
    far = (apart > 2.01 * net.delta_d).numpy()
    assert (logits[far] == NOT_A_CANDIDATE).all() and far.any()
    near = (apart < 1.99 * net.delta_d).numpy()
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


def test_pieces_are_asked_at_a_few_voxels_of_the_windows_of_the_points() -> None:
    image = np.zeros((64, 32, 8), np.float32)
    image[4:14, 4:12, 1:7] = 2
    image[20:30, 4:12, 1:7] = 5
    ids = np.zeros((64, 32, 8), np.uint32)
    ids[image == 2], ids[image == 5] = 1, 2
    ids[50:60, 4:12] = 3  # in another window
    box = ((0, 64), (0, 32), (0, 8))
    asked = Clicks([(6, 6, 3)])
    points = np.array([[6, 6, 3]]), np.zeros((0, 3), np.int64)
    costs = prompted_costs(source(image), asked, *points, ids, box)
    assert costs[1] > 0 > costs[2] and costs[0] == costs[3] == 0
    surface = (ids == 1).sum() ** (2 / 3)
    assert costs[1] <= WEIGHT * SUREST * surface
    few = np.zeros_like(ids)
    few[6, 6, 3] = 1
    assert prompted_costs(source(image), asked, *points, few, box)[1] > 0  # smaller than ASKED
    assert ASKED > 1


def test_a_judge_asks_the_published_heads_on_both_sides() -> None:
    """What a study learned of classes changes neither the clicked side nor the judged one."""
    net = network(1.0)
    patch = np.random.default_rng(0).random(SHAPE, np.float32)
    window = compute_features(net, BOX, patch, "float32")
    classes = net.task_heads.kernel("semantic")[1].numel()
    heads = StudyHeads(net.feature_channels, {"semantic": classes}, 4, COUNT)
    torch.nn.init.normal_(heads.outer.weight, std=20.0)
    adapted = with_study_heads(net, heads.requires_grad_(False))
    assert np.array_equal(everywhere(adapted, window), everywhere(net, window))
