"""The network: shapes, prompts, precision, published weights."""

from pathlib import Path

import pytest
import torch
from monai.networks.nets.vista3d import vista3d132

from lib.configs.settings import LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.backbones import build_backbone, load_vista3d_encoder, pad_to_multiple
from lib.networks.fine import FinePath
from lib.networks.model import NeuropilNet, build_network
from lib.networks.weights import NEW_PARTS
from lib.prompts.points import PointPrompts

HIERARCHY = load_hierarchy()


def make(
    prompt: float = 0.0, geometry: float = 1.0, affinity: float = 0.0, **model: object
) -> NeuropilNet:
    torch.manual_seed(0)
    settings = ModelSettings.model_validate({"feature_size": 8, **model})
    loss = LossSettings(weight_prompt=prompt, weight_geometry=geometry, weight_affinity=affinity)
    return build_network(settings, loss, HIERARCHY)


def click(shape: tuple[int, ...], batch: int = 1) -> PointPrompts:
    one = PointPrompts.from_clicks(
        [[s // 2 for s in shape]], [[0 for _ in shape]], class_id=3, spatial_dims=len(shape)
    )
    return PointPrompts(
        one.coords.repeat(batch, 1, 1),
        one.labels.repeat(batch, 1),
        one.class_ids.repeat(batch, 1),
        one.instance.repeat(batch, 1),
    )


def wake(net: NeuropilNet) -> None:
    """Opens the prompt encoder's gate, as training would."""
    torch.nn.init.normal_(net.prompt_encoder.gate)
    torch.nn.init.normal_(net.prompt_encoder.conv.weight)


@pytest.mark.parametrize("backbone", ["segresnet", "vista3d"])
@pytest.mark.parametrize("shape", [(19, 10, 3), (16, 1, 1), (7, 9)])
def test_any_size_in_the_same_size_out(backbone: str, shape: tuple[int, ...]) -> None:
    net = make(prompt=1.0, backbone=backbone, norm="instance")
    out = net(torch.rand(2, 1, *shape), click(shape, 2), semantic_ids=torch.zeros(2, *shape))
    channels = {k: v.shape[1] for k, v in out.items() if k != "semantic_ids"}
    assert channels == {"semantic": 12, "coarse": 5, "instance": 8, "geometry": 16, "mask": 1}
    assert all(v.shape[-len(shape) :] == shape and v.shape[0] == 2 for v in out.values())
    assert all(torch.isfinite(v).all() for v in out.values())


def test_two_dimensional_network_and_dropped_heads() -> None:
    net = make(spatial_dims=2)
    assert net(torch.rand(1, 1, 20, 13))["geometry"].shape == (1, 10, 20, 13)
    assert "geometry" not in make(geometry=0.0)(torch.rand(1, 1, 8, 8, 2))
    assert "mask" not in net(torch.rand(1, 1, 20, 13), click((20, 13)))
    with pytest.raises(ValueError, match=r"expected \(B, 1, X, Y\), found"):
        net(torch.rand(1, 3, 20, 13))


@pytest.mark.parametrize("shape", [(19, 10, 3), (16, 1, 1), (7, 9)])
def test_a_fine_path_and_an_affinity_head_start_without_a_change(shape: tuple[int, ...]) -> None:
    old, net = make(), make(affinity=1.0, fine_features=4)
    left = net.load_state_dict(old.state_dict(), strict=False)
    assert left.unexpected_keys == []
    assert all(key.startswith(NEW_PARTS) for key in left.missing_keys)
    image = torch.rand(2, 1, *shape)
    before, after = old(image), net(image)
    assert after.pop("affinity").shape == (2, 9, *shape)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_fine_path_sees_the_next_voxels_along_every_axis() -> None:
    fine = FinePath(4, 6, 3).double()
    torch.nn.init.normal_(fine.project.weight)
    image = torch.rand(1, 1, 11, 9, 9, dtype=torch.float64, requires_grad=True)
    for axis in (2, 3, 4):
        # through the convolutions alone: a group norm sees everything
        wide = fine.layers[3](fine.layers[0](torch.nn.functional.pad(image, [2] * 6, "replicate")))
        (seen,) = torch.autograd.grad(wide[0, :, 5, 4, 4].sum(), image)
        reach = seen[0, 0].abs().amax([a - 2 for a in (2, 3, 4) if a != axis]) > 0
        middle = image.shape[axis] // 2
        assert reach.nonzero().flatten().tolist() == list(range(middle - 2, middle + 3))
    assert fine(image).shape == (1, 6, 11, 9, 9)


def test_the_fine_path_is_a_small_part_of_the_arithmetic() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.rand(1, 1, 32, 32, 8)
    total = []
    for width in (0, 16):
        net = make(feature_size=16, head_size=32, fine_features=width)
        with FlopCounterMode(display=False) as counter:
            net.features(image)
        total.append(counter.get_total_flops())
    assert total[0] < total[1] < 1.1 * total[0] + 1e7


def test_padding_repeats_and_never_crops() -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(image, (2, 2))
    assert padded.tolist() == [[[[0, 1, 2, 2], [3, 4, 5, 5]]]]
    assert pad_to_multiple(image, (2, 1)) is image


@pytest.mark.parametrize("backbone", ["segresnet", "vista3d"])
def test_every_parameter_gets_a_gradient(backbone: str) -> None:
    net = make(prompt=1.0, backbone=backbone)
    wake(net)
    torch.nn.init.normal_(net.mask_head.out.weight)  # type: ignore[union-attr]
    shape = (16, 16, 4)
    image = torch.rand(1, 1, *shape)
    automatic, proofread = net(image), net(image, click(shape))
    total = sum(v.square().mean() for out in (automatic, proofread) for v in out.values())
    total.backward()  # type: ignore[union-attr]
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_without_points_bit_for_bit_automatic() -> None:
    net = make(prompt=1.0)
    wake(net)
    shape = (16, 16, 4)
    image = torch.rand(2, 1, *shape)
    automatic = net(image)
    for prompts in (PointPrompts.none(2), click(shape, 2).only(torch.tensor([True, False]))):
        out = net(image, prompts)
        assert all(torch.equal(out[k][1], automatic[k][1]) for k in automatic)
    assert not torch.equal(out["semantic"][0], automatic["semantic"][0])


def test_prompts_hardly_matter_at_the_start_and_after_ten_steps() -> None:
    net = make()
    shape = (32, 32, 4)
    image, prompts = torch.rand(1, 1, *shape), click(shape)
    target = torch.randn(1, 8, *shape)

    def difference() -> float:
        with torch.no_grad():
            a, p = net(image)["semantic"], net(image, prompts)["semantic"]
        return ((a - p).abs().mean() / a.std()).item()

    assert difference() < 1e-3
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in range(10):
        optimiser.zero_grad()
        out = net(image, prompts)
        (out["instance"] - target).square().mean().backward()
        optimiser.step()
    assert difference() < 0.1


def test_shared_features_give_the_gradients_of_two_passes() -> None:
    net = make(prompt=1.0).double()
    wake(net)
    shape = (16, 16, 2)
    image, prompts = torch.rand(1, 1, *shape, dtype=torch.float64), click(shape)

    def gradients(shared: bool) -> list[torch.Tensor]:
        features = net.features(image)
        automatic = net.heads(features) if shared else net(image)
        proofread = net.prompted(features, prompts) if shared else net(image, prompts)
        parts = [v.square().mean() for out in (automatic, proofread) for v in out.values()]
        return list(torch.autograd.grad(torch.stack(parts).sum(), list(net.parameters())))

    for one, two in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_heads_can_be_asked_for_alone() -> None:
    net = make()
    features = net.features(torch.rand(1, 1, 16, 16, 2))
    assert set(net.heads(features, only=("instance",))) == {"instance"}


def test_heads_are_a_small_part_of_the_arithmetic() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net = make(prompt=1.0, feature_size=16)
    image = torch.rand(1, 1, 32, 32, 8)
    with FlopCounterMode(display=False) as backbone:
        features = net.features(image)
    with FlopCounterMode(display=False) as heads:
        net.heads(features)
    assert heads.get_total_flops() < backbone.get_total_flops() / 4


def test_mask_head_starts_as_nearest_in_embedding() -> None:
    net = make(prompt=1.0)
    assert net.mask_head is not None
    shape = (8, 8, 2)
    embedding = torch.zeros((1, 8, *shape))
    embedding[:, 0, 4:] = 6.0  # two objects, far apart in embedding
    hidden = torch.rand(1, net.task_heads.hidden_channels, *shape)
    prompts = PointPrompts.from_clicks([[6, 1, 0]], [[1, 1, 1]])
    mask = net.mask_head(hidden, embedding, prompts)[0, 0] > 0
    assert mask[4:].all() and not mask[:4].any()


def published(path: Path, width: int = 8) -> Path:
    """A file in the layout of MONAI's VISTA3D; the published one has width 48."""
    torch.save(vista3d132(width, 1).state_dict(), path)
    return path


def test_published_vista3d_weights_fill_the_encoder(tmp_path: Path) -> None:
    path = published(tmp_path / "vista.pt")
    weights = torch.load(path, weights_only=True)
    settings = {"backbone": "vista3d", "feature_size": 8, "norm": "instance"}
    exact = ModelSettings.model_validate(settings | {"section_ratio": 1})
    backbone = build_backbone(exact.model_copy(update={"pretrained_encoder": str(path)}))
    own = backbone.network.state_dict()
    assert all(torch.equal(own[k], weights["image_encoder." + k]) for k in own if "head" not in k)
    # In plane only, the summed kernels answer an image that is the same in all sections alike.
    flat = build_backbone(ModelSettings.model_validate(settings))
    filled = load_vista3d_encoder(flat, path)
    assert any(k.startswith("encoder.layers.4") for k in filled)
    image = torch.rand(1, 1, 16, 16, 1).expand(-1, -1, -1, -1, 8)
    a = backbone.network.encoder.conv_init(image)[..., 3]
    b = flat.network.encoder.conv_init(image)[..., 3]
    torch.testing.assert_close(a, b)


def test_other_weights_are_refused_with_the_reason(tmp_path: Path) -> None:
    settings = ModelSettings(backbone="vista3d", feature_size=8, norm="instance")
    with pytest.raises(ValueError, match=r"needs model\.feature_size: 48"):
        load_vista3d_encoder(build_backbone(settings), published(tmp_path / "v.pt", 16))
    torch.save({"some.key": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"no key starts with image_encoder.*some\.key"):
        load_vista3d_encoder(build_backbone(settings), tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"broken\.pt"):
        load_vista3d_encoder(build_backbone(settings), tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"needs model\.backbone: vista3d"):
        load_vista3d_encoder(build_backbone(ModelSettings()), tmp_path / "v.pt")
