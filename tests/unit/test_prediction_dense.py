"""One pass of the heads over a volume: views are averaged, parts and batches change nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.networks.study_heads import StudyHeads, with_study_heads
from lib.prediction.classes import class_probabilities
from lib.prediction.dense import DensePass
from lib.prediction.filters import COUNT, filter_responses
from lib.prediction.forward import MIRRORED, View
from lib.volumes.boxes import Box, box_shape, box_slices, shift_box
from lib.volumes.contrast import intensity_window, normalize

HIERARCHY = load_hierarchy()
SHAPE = (30, 22, 10)
INFERENCE = InferenceSettings(window=(16, 16, 8), overlap=0.25, precision="float32")
HEADS = ("semantic", "coarse")
VOXEL = (10.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def net() -> NeuropilNet:
    torch.manual_seed(0)
    model = ModelSettings(feature_size=8, head_size=8, embedding_size=2)
    return build_network(model, LossSettings(weight_geometry=0.0), HIERARCHY).eval()


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)


def collected(dense: DensePass, box: Box | None = None) -> dict[str, np.ndarray]:
    """The blended outputs of a pass, put together."""
    part = box or ((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2]))
    out: dict[str, np.ndarray] = {}
    x, y, z = (-low for low, _ in part)

    def consume(done: Box, outputs: Mapping[str, Tensor]) -> None:
        where = box_slices(shift_box(done, (x, y, z)))
        for name, values in outputs.items():
            whole = out.setdefault(name, np.zeros((values.shape[0], *box_shape(part)), np.float32))
            whole[(slice(None), *where)] = values.numpy()

    channels = HIERARCHY.num_classes + HIERARCHY.num_groups
    dense.run(class_probabilities, consume, channels, box=box)
    return out


def settings(**changes: object) -> InferenceSettings:
    return INFERENCE.model_copy(update=changes)


def test_batches_and_tiles_change_nothing(net: NeuropilNet, volume: np.ndarray) -> None:
    plain = collected(DensePass(net, volume, VOXEL, INFERENCE, HEADS))
    assert {name: v.shape[0] for name, v in plain.items()} == {"semantic": 12, "coarse": 5}
    np.testing.assert_allclose(plain["semantic"].sum(0), 1, atol=1e-4)
    for changes in ({"batch_size": 3}, {"tile_bytes": 1}):
        again = collected(DensePass(net, volume, VOXEL, settings(**changes), HEADS))
        for name, values in plain.items():
            np.testing.assert_allclose(again[name], values, atol=1e-5, err_msg=str(changes))


def test_a_part_has_the_values_of_the_whole(net: NeuropilNet, volume: np.ndarray) -> None:
    whole = collected(DensePass(net, volume, VOXEL, INFERENCE, HEADS))
    box = ((3, 19), (8, 22), (2, 9))
    part = collected(DensePass(net, volume, VOXEL, INFERENCE, HEADS), box)
    for name, values in part.items():
        assert np.array_equal(values, whole[name][(slice(None), *box_slices(box))])


@torch.inference_mode()
def test_mirrored_views_are_averaged_on_the_windows_own_voxels(
    net: NeuropilNet, volume: np.ndarray
) -> None:
    dense = DensePass(net, volume, VOXEL, settings(mirror=True), HEADS)
    boxes = [next(dense.grid.boxes())]
    views = list(dense.forward.seen(boxes))
    assert [v.mirrored for v in views] == list(MIRRORED)
    image = torch.from_numpy(dense.forward.features.voxels(boxes[0]))[None, None]
    for view in views:
        flipped = image.flip(view.mirrored) if view.mirrored else image
        out = net.heads(net.features(flipped), only=HEADS)["semantic"]
        expected = out.flip(view.mirrored) if view.mirrored else out
        assert torch.allclose(view.outputs["semantic"], expected, atol=1e-4)
    found = dense.forward.mean(boxes, class_probabilities)["semantic"]
    each = torch.stack([v.outputs["semantic"].softmax(1) for v in views])
    assert torch.allclose(found, each.mean(0), atol=1e-6)


def test_a_pass_may_differ_from_the_settings(net: NeuropilNet, volume: np.ndarray) -> None:
    dense = DensePass(net, volume, VOXEL, settings(mirror=True), HEADS, overlap=0.0, mirror=False)
    assert dense.grid.count < DensePass(net, volume, VOXEL, INFERENCE, HEADS).grid.count
    assert dense.forward.mirrored == ((),)


def test_progress_counts_windows(net: NeuropilNet, volume: np.ndarray) -> None:
    dense = DensePass(net, volume, VOXEL, INFERENCE, ("semantic",))
    told: list[tuple[int, int]] = []

    def decode(view: View) -> dict[str, Tensor]:
        return {"features": view.features.float()}

    dense.run(decode, lambda *_: None, 8, progress=lambda *step: told.append(step))
    assert told[-1] == (dense.grid.count, dense.grid.count)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_studys_heads_see_filter_responses_of_the_whole_image(
    net: NeuropilNet, volume: np.ndarray, mirror: bool
) -> None:
    """Heads that look at responses alone say the same whatever the windows and views are."""
    torch.manual_seed(1)
    heads = StudyHeads(net.feature_channels, {"semantic": HIERARCHY.num_classes}, 6, COUNT)
    torch.nn.init.normal_(heads.outer.weight, std=10.0)
    heads.inner.weight.data[:, : net.feature_channels] = 0.0
    blank = copy.deepcopy(net)
    for head in HEADS:
        for values in blank.task_heads.layers[head].parameters():
            torch.nn.init.zeros_(values)
    adapted = with_study_heads(blank, heads.requires_grad_(False))
    found = collected(DensePass(adapted, volume, VOXEL, settings(mirror=mirror), HEADS))
    image = normalize(volume, intensity_window(volume))
    seen = torch.from_numpy(filter_responses(image, VOXEL)).movedim(0, -1)
    nothing = torch.zeros((*SHAPE, net.feature_channels))
    expected = heads.change(nothing, seen).softmax(-1).movedim(-1, 0)
    assert np.abs(found["semantic"] - expected.numpy()).max() < 1e-2, "responses are kept as halves"
    assert expected.std() > 0.05, "the heads say different things of different places"
