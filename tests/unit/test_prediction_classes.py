"""Class maps: values of each level, and the network run on a lazy volume."""

import numpy as np
import pytest
import torch

from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.labels.hierarchy import flat_hierarchy, hierarchy_from_dict, load_hierarchy
from lib.networks.model import NeuropilNet, build_network
from lib.prediction.classes import decode_level, predict_classes

HIERARCHY = load_hierarchy()
VOXEL = (8.0, 8.0, 40.0)
INFERENCE = InferenceSettings(window=(16, 16, 8), overlap=0.5, precision="float32")


def tiny_network(hierarchy=HIERARCHY, **model) -> NeuropilNet:
    torch.manual_seed(0)
    net = build_network(ModelSettings(feature_size=8, **model), LossSettings(), hierarchy)
    return net.eval()


def image(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


class Watched:
    """A lazy volume that notes the largest piece read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.largest = array, array.shape, 0

    def __getitem__(self, key):
        piece = self.array[key]
        self.largest = max(self.largest, piece.size)
        return piece


def probabilities(**by_name: list[float]) -> torch.Tensor:
    p = torch.zeros(12, 1, 1, 1)
    for name, value in by_name.items():
        p[HIERARCHY.class_names.index(name)] = value
    return p


def test_each_level_has_its_values() -> None:
    outputs = {
        "semantic": probabilities(axon=0.4, dendrite=0.35, mitochondria=0.25),
        "coarse": torch.tensor([0.9, 0.1, 0.1, 0.2, 0.1]).view(5, 1, 1, 1),
    }
    axon = HIERARCHY.class_names.index("axon") + 1
    assert decode_level(outputs, "fine", HIERARCHY, INFERENCE).item() == axon
    assert decode_level(outputs, "coarse", HIERARCHY, INFERENCE).item() == 101
    assert decode_level(outputs, "fallback", HIERARCHY, INFERENCE).item() == 101
    doubted = {**outputs, "coarse": torch.tensor([0.8, 0.1, 0.9, 0.2, 0.1]).view(5, 1, 1, 1)}
    assert decode_level(doubted, "coarse", HIERARCHY, INFERENCE).item() == 101, (
        "0.8 by 0.75 of the classes, and not 0.9 by 0.25"
    )
    sure = {**outputs, "semantic": probabilities(axon=0.6, dendrite=0.4)}
    assert decode_level(sure, "fallback", HIERARCHY, INFERENCE).item() == axon
    vague = {**outputs, "coarse": outputs["coarse"] * 0.5}
    assert decode_level(vague, "fallback", HIERARCHY, INFERENCE).item() == axon


def test_a_class_outside_all_groups_keeps_its_value_in_the_coarse_level() -> None:
    some = hierarchy_from_dict({"classes": ["a", "b", "c"], "groups": {"g": ["a", "b"]}})
    outputs = {
        "semantic": torch.tensor([[0.1, 0.8], [0.1, 0.1], [0.8, 0.1]]).view(3, 2, 1, 1),
        "coarse": torch.tensor([[0.3, 0.9]]).view(1, 2, 1, 1),
    }
    found = decode_level(outputs, "coarse", some, INFERENCE).flatten().tolist()
    assert found == [3, 101]


def test_a_level_without_groups_is_refused() -> None:
    flat = flat_hierarchy(2)
    with pytest.raises(ValueError, match="needs coarse groups"):
        predict_classes(
            tiny_network(flat),
            image((8, 8, 4)),
            VOXEL,
            INFERENCE,
            hierarchy=flat,
            level="coarse",
        )


@pytest.mark.parametrize("level", ["fine", "coarse", "fallback"])
def test_tiles_equal_the_whole_and_the_volume_is_read_in_pieces(level: str) -> None:
    net, volume = tiny_network(), Watched(image((40, 36, 20)))
    whole = predict_classes(net, volume, VOXEL, INFERENCE, hierarchy=HIERARCHY, level=level)
    small = INFERENCE.model_copy(update={"tile_bytes": 1})
    tiled = predict_classes(net, volume, VOXEL, small, hierarchy=HIERARCHY, level=level)
    assert whole.dtype == np.uint8 and whole.shape == volume.shape
    np.testing.assert_array_equal(tiled, whole)
    assert whole.min() >= 1


def test_only_windows_of_a_large_volume_are_read() -> None:
    volume = Watched(image((300, 300, 4)))
    net = tiny_network()
    settings = INFERENCE.model_copy(update={"window": (64, 64, 4), "overlap": 0.0})
    predict_classes(net, volume, VOXEL, settings, hierarchy=HIERARCHY)
    assert volume.largest <= 128 * 128


def test_one_window_is_the_networks_own_answer() -> None:
    net, volume = tiny_network(), image((16, 16, 8))
    found = predict_classes(net, volume, VOXEL, INFERENCE, hierarchy=HIERARCHY)
    from lib.volumes.contrast import intensity_window, normalize

    x = torch.from_numpy(normalize(volume, intensity_window(volume)))[None, None]
    with torch.inference_mode():
        expected = net(x)["semantic"][0].argmax(0) + 1
    assert (found == expected.numpy()).mean() > 0.999  # ties apart


@pytest.mark.parametrize("dims", [2, 3])
def test_flat_images_and_two_dimensional_networks(dims: int) -> None:
    net = tiny_network(spatial_dims=dims)
    flat = predict_classes(net, image((40, 24, 1)), VOXEL, INFERENCE, hierarchy=HIERARCHY)
    assert flat.shape == (40, 24, 1)
    stack = predict_classes(net, image((20, 20, 3)), VOXEL, INFERENCE, hierarchy=HIERARCHY)
    assert stack.shape == (20, 20, 3) and stack.min() >= 1


def test_mirrored_views_make_the_answer_mirror_with_the_image() -> None:
    net, volume = tiny_network(), image((16, 16, 8))
    settings = INFERENCE.model_copy(update={"mirror": True})
    found = predict_classes(net, volume, VOXEL, settings, hierarchy=HIERARCHY)
    turned = predict_classes(net, volume[::-1].copy(), VOXEL, settings, hierarchy=HIERARCHY)
    assert (turned[::-1] == found).mean() > 0.99
    plain = predict_classes(net, volume, VOXEL, INFERENCE, hierarchy=HIERARCHY)
    other = predict_classes(net, volume[::-1].copy(), VOXEL, INFERENCE, hierarchy=HIERARCHY)
    assert (other[::-1] == plain).mean() < 0.99


def test_progress_and_a_given_output() -> None:
    net, out, steps = tiny_network(), np.zeros((40, 16, 8), np.uint8), []
    found = predict_classes(
        net,
        image((40, 16, 8)),
        VOXEL,
        INFERENCE,
        hierarchy=HIERARCHY,
        progress=lambda n, m: steps.append((n, m)),
        out=out,
    )
    assert len(steps) > 1
    assert found is out and steps == [(n, steps[-1][1]) for n in range(1, steps[-1][1] + 1)]
