"""Heads: what clicks say by hand, pairs against a loop, answers for some heads alone, faults."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
from engine_cases import HIERARCHY, tiny_settings

from lib.networks.digests import (
    digest_of,
    digest_path,
    place_weights,
    read_checked,
    recorded_digest,
)
from lib.networks.heads import Heads, head_sizes
from lib.networks.mask_head import LENGTH_NM, NO_POINT, MaskHead
from lib.networks.model import NeuropilNet, build_network
from lib.networks.pair_logits import MARGIN, SMALLEST, STEEPNESS, offset_logits, pair_logits
from lib.networks.trial import fault_of
from lib.prompts.points import NEGATIVE, POSITIVE, PointPrompts
from lib.targets.cells import PAIR_CHANNELS, affinity_offsets

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


# The mask head --------------------------------------------------------------------------------


def decided(
    positive: list[float], negative: list[float], space: float = 0.0, margin: float = 1.0
) -> float:
    """The logit of one voxel at some distances from points of both signs."""
    head = MaskHead(2, margin)
    apart = torch.tensor([*positive, *negative]).unsqueeze(1)
    labels = torch.tensor([POSITIVE] * len(positive) + [NEGATIVE] * len(negative))
    with torch.no_grad():
        out = head.decide(torch.zeros((1, 16)), apart, torch.full_like(apart, space), labels)
    assert out.shape == (1,)
    return float(out)


def test_at_the_start_the_nearest_positive_point_within_the_margin_decides() -> None:
    """3 (margin - near) + 2 clamp(far - near, -margin, margin)."""
    assert decided([0.25, 4.0], [0.5]) == pytest.approx(3 * 0.75 + 2 * 0.25)
    assert decided([0.25], [9.0]) == pytest.approx(3 * 0.75 + 2), "no more than the margin"
    assert decided([2.0], [0.5]) == pytest.approx(-3 - 2)
    assert decided([1.5], []) == pytest.approx(-1.5 + 2), "no negative point is a far one"
    assert decided([0.5], [0.5]) == pytest.approx(1.5)


def test_points_too_far_are_all_alike() -> None:
    assert decided([NO_POINT + 5], []) == pytest.approx(decided([NO_POINT + 50], []))


def test_space_counts_by_its_weight_in_nm() -> None:
    """joint = apart + e^-1 log(1 + space): what evidence 2 and 3 hold."""
    head = MaskHead(2, 1.0)
    apart, space = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [0.0]])
    with torch.no_grad():
        near, joint = head._nearest(apart, space, 0)
    assert near.item() == 1.0
    assert joint.item() == pytest.approx(min(1 + math.log(4) / math.e, 2.0))
    nowhere = head._nearest(apart[:0], space[:0], 1)
    assert [v.item() for v in nowhere] == [NO_POINT, NO_POINT]


def test_a_volume_is_answered_as_its_voxels_are() -> None:
    """Two samples with other points and other voxel sizes; padding is no point."""
    torch.manual_seed(0)
    head = MaskHead(4, 1.0)
    torch.nn.init.normal_(head.out.weight)
    hidden, embedding = torch.randn((2, 4, 3, 4, 2)), torch.randn((2, 3, 3, 4, 2))
    coords = torch.tensor([[[0, 1, 1], [2, 3, 0], [1, 1, 1]], [[2, 0, 0], [0, 0, 1], [0, 0, 0]]])
    labels = torch.tensor([[1, 0, 1], [1, -1, -1]])
    sizes = torch.tensor([[10.0, 10.0, 40.0], [5.0, 5.0, 5.0]])
    prompts = PointPrompts(coords, labels, torch.zeros_like(labels), labels > 0, sizes)
    with torch.no_grad():
        found = head(hidden, embedding, prompts)
    assert found.shape == (2, 1, 3, 4, 2) and found.dtype == torch.float32
    for sample, voxel in ((0, (1, 2, 1)), (1, (2, 3, 0))):
        own = [n for n in range(3) if labels[sample, n] >= 0]
        apart, space = [], []
        for n in own:
            at = tuple(coords[sample, n].tolist())
            one, other = (
                embedding[(sample, slice(None), *voxel)],
                embedding[(sample, slice(None), *at)],
            )
            apart.append((one - other).norm())
            step = (torch.tensor(voxel) - torch.tensor(at)) * sizes[sample] / LENGTH_NM
            space.append(step.norm())
        context = head.context(hidden[(sample, slice(None), *voxel)])[None]
        with torch.no_grad():
            alone = head.decide(
                context, torch.stack(apart)[:, None], torch.stack(space)[:, None],
                labels[sample, own],
            )  # fmt: skip
        assert found[(sample, 0, *voxel)].item() == pytest.approx(alone.item(), abs=1e-4)


# Pairs ----------------------------------------------------------------------------------------


def test_pairs_are_logits_of_a_distance_and_a_correction() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[10.0, 10.0, 40.0], [10.0, 10.0, 10.0]])
    correction = torch.randn((2, PAIR_CHANNELS, 5, 4, 3))
    embedding = torch.randn((2, 2, 5, 4, 3))
    found = pair_logits(correction, embedding, sizes)
    assert found.shape == correction.shape
    for b in range(2):
        for channel, offset in enumerate(affinity_offsets(sizes[b].tolist())):
            for at in ((0, 0, 0), (4, 1, 2), (2, 3, 1)):
                other = tuple(a + o for a, o in zip(at, offset, strict=True))
                expected = float(correction[(b, channel, *at)])
                if all(o < n for o, n in zip(other, (5, 4, 3), strict=True)):
                    apart = embedding[(b, slice(None), *at)] - embedding[(b, slice(None), *other)]
                    distance = math.sqrt(float(apart.square().sum()) + SMALLEST)
                    expected += STEEPNESS * (1 - distance / MARGIN)
                assert float(found[(b, channel, *at)]) == pytest.approx(expected, abs=1e-4)


def test_a_partner_beyond_the_volume_leaves_the_correction() -> None:
    correction = torch.randn((2, 2, 1))
    assert torch.equal(offset_logits(correction, torch.randn((3, 2, 2, 1)), (0, 0, 1)), correction)
    assert torch.equal(offset_logits(correction, torch.randn((3, 2, 2, 1)), (9, 0, 0)), correction)


def test_pairs_of_a_section_are_those_of_a_volume_of_one() -> None:
    torch.manual_seed(1)
    correction, embedding = torch.randn((1, PAIR_CHANNELS, 6, 5)), torch.randn((1, 2, 6, 5))
    sizes = torch.tensor([[8.0, 8.0]])
    flat = pair_logits(correction, embedding, sizes)
    deep = pair_logits(correction[..., None], embedding[..., None], torch.tensor([[8.0, 8.0, 8.0]]))
    assert torch.allclose(flat, deep[..., 0])


# Heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_some_heads_answer_as_all_do(dims: int) -> None:
    torch.manual_seed(0)
    heads = Heads(4, {"semantic": 3, "coarse": 2, "none": 0, "instance": 2}, dims)
    assert "none" not in heads.layers, "a head without channels is none"
    features = torch.randn((2, 4, *(5, 4, 3)[:dims]))
    everything = heads(features)
    assert set(everything) == {"semantic", "coarse", "instance", "hidden"}
    hidden = heads.shared(features)
    assert torch.allclose(everything["hidden"], hidden, atol=1e-5)
    for name, layer in heads.layers.items():
        assert torch.allclose(everything[name], layer(hidden), atol=1e-5)
        alone = heads(features, (name,))
        assert set(alone) == {name, "hidden"}
        assert torch.allclose(alone[name], everything[name], atol=1e-6)
    assert set(heads(features, ())) == {"hidden"}
    assert set(heads(features, ("unknown",))) == {"hidden"}


def test_heads_are_as_large_as_what_they_speak_of() -> None:
    settings = tiny_settings(loss__weight_geometry=1.0, loss__weight_affinity=1.0)
    sizes = head_sizes(settings.model, settings.loss, HIERARCHY)
    assert sizes == {
        "semantic": 12, "coarse": 5, "instance": 3, "geometry": 3 + 9 + 4, "affinity": 9
    }  # fmt: skip
    flat = settings.model.model_copy(update={"spatial_dims": 2})
    assert head_sizes(flat, settings.loss, HIERARCHY)["geometry"] == 2 + 4 + 4
    without = settings.loss.model_copy(update={"weight_geometry": 0.0, "weight_affinity": 0.0})
    sizes = head_sizes(settings.model, without, HIERARCHY)
    assert sizes["geometry"] == sizes["affinity"] == 0


def tiny_net() -> NeuropilNet:
    settings = tiny_settings()
    torch.manual_seed(0)
    return build_network(settings.model, settings.loss, HIERARCHY)


def test_a_useless_network_is_told_by_the_tensor_that_is_at_fault() -> None:
    net = tiny_net()
    with torch.no_grad():
        for number, (_, parameter) in enumerate(net.named_parameters()):
            if number in (2, 3):
                parameter[(0,) * parameter.ndim] = math.inf
    name = [n for n, _ in net.named_parameters()][2]
    assert fault_of(net) == f"{name} holds numbers that are not finite (2 of its tensors do)"


def test_trying_a_network_changes_none_of_its_weights() -> None:
    net = tiny_net()
    before = {n: v.clone() for n, v in net.state_dict().items()}
    assert fault_of(net) == ""
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())


# Digests --------------------------------------------------------------------------------------


def test_weights_and_their_digest_are_written_as_sha256sum_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "w.pt"
    place_weights(path, CONTENT)
    assert digest_path(path).read_text() == f"{DIGEST}  w.pt\n"
    assert read_checked(path) == CONTENT and digest_of(path) == recorded_digest(path) == DIGEST


def test_a_digest_is_read_whatever_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(CONTENT)
    assert recorded_digest(path) is None and digest_of(path) == DIGEST
    for text in (DIGEST.upper(), f"{DIGEST} *w.pt\r\n", f"{DIGEST}\n"):
        digest_path(path).write_text(text)
        assert recorded_digest(path) == DIGEST and read_checked(path) == CONTENT


@pytest.mark.parametrize("text", ["", "none", DIGEST[:-1], DIGEST + "0", f"w.pt {DIGEST}"])
def test_what_is_no_digest_is_told_with_the_command_that_makes_one(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(CONTENT)
    digest_path(path).write_text(text)
    for read in (recorded_digest, digest_of, read_checked):
        with pytest.raises(ValueError, match=r"w\.pt\.sha256: expected 64 .*sha256sum w\.pt >"):
            read(path)


def test_other_content_is_refused_with_both_digests_and_the_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    place_weights(path, CONTENT, "0" * 64)
    with pytest.raises(ValueError, match=rf"found sha256 {DIGEST}, expected 0+ .*--restore"):
        read_checked(path)


def test_a_pointer_in_place_of_weights_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 11350464\n")
    with pytest.raises(ValueError, match=r"weights .*w\.pt: .*"):
        read_checked(path)
    path.unlink()
    for read in (read_checked, digest_of):
        with pytest.raises(FileNotFoundError):
            read(path)
