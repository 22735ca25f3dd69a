"""Affinities of pairs of voxels."""

import numpy as np
import pytest
import torch

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import hierarchy_from_dict, load_hierarchy
from lib.networks.pair_logits import MARGIN, STEEPNESS, pair_logits
from lib.prediction.affinities import (
    embedding_affinities,
    kind_probabilities,
    kinds_apart,
    mirrored_correction,
    pair_affinities,
    said_by_both,
)
from lib.targets.cells import affinity_offsets, pair_ends, pair_targets


def test_affinities_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    e = rng.normal(size=(2, 3, 4, 3, 5))
    offsets = [(1, 0, 0), (0, 2, 0), (0, 0, 3), (0, 3, 0)]
    found = embedding_affinities(torch.from_numpy(e), offsets, 2.0).numpy()
    for b, a, *v in np.ndindex(*found.shape):
        w = [i + o for i, o in zip(v, offsets[a], strict=True)]
        expected = 0.0
        if all(i < n for i, n in zip(w, e.shape[2:], strict=True)):
            distance = np.linalg.norm(e[(b, slice(None), *v)] - e[(b, slice(None), *w)])
            expected = float(np.clip(1 - distance / 2.0, -1, 1))
        assert found[(b, a, *v)] == pytest.approx(expected, abs=1e-12)


def test_affinities_do_not_depend_on_the_frame_of_the_embedding() -> None:
    torch.manual_seed(0)
    e = torch.randn(1, 4, 5, 5, 5, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    turned = torch.einsum("ij,bjxyz->bixyz", turn, e) + 3.0
    offsets = [(1, 0, 0), (0, 0, 2)]
    torch.testing.assert_close(
        embedding_affinities(turned, offsets, 1.5), embedding_affinities(e, offsets, 1.5)
    )


def test_kinds_are_groups_and_the_classes_outside_them() -> None:
    some = hierarchy_from_dict({"classes": ["a", "b", "c", "d"], "groups": {"g": ["a", "c"]}})
    p = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 4, 1, 1, 1)
    torch.testing.assert_close(kind_probabilities(p, some).flatten(), torch.tensor([0.4, 0.2, 0.4]))


def test_different_kinds_push_apart_and_vague_or_equal_ones_do_not() -> None:
    hierarchy = load_hierarchy()
    axon, dendrite, myelin = (
        hierarchy.class_names.index(n) for n in ("axon", "dendrite", "myelin")
    )
    p = torch.zeros(1, 12, 4, 1, 1)
    p[0, axon, 0], p[0, dendrite, 1], p[0, myelin, 2] = 1, 1, 1
    p[0, axon, 3], p[0, myelin, 3] = 0.5, 0.5
    alike, offsets = torch.ones(1, 1, 4, 1, 1), [(1, 0, 0)]
    alike[..., -1, :, :] = 0.0  # has no partner
    settings = InferenceSettings(class_weight=2.0, sheath_weight=0.0)
    found = kinds_apart(alike.clone(), p, offsets, hierarchy, settings).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0, 1 - 2 * (1 - 0.5**0.5), 0.0]))
    none = InferenceSettings(class_weight=0, sheath_weight=0)
    plain = kinds_apart(alike.clone(), p, offsets, hierarchy, none)
    assert plain.flatten().tolist() == [1.0, 1.0, 1.0, 0.0]
    # a dendrite and myelin are two objects; axon and dendrite may be one
    sheath = InferenceSettings(class_weight=0, sheath_weight=1.0)
    p[0, :, 0], p[0, axon, 0] = 0, 1
    p[0, :, 2], p[0, myelin, 2] = 0, 1
    found = kinds_apart(alike.clone(), p, offsets, hierarchy, sheath).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.5**0.5, 0.0]))


def test_what_the_affinity_head_says_corrects_the_embedding() -> None:
    torch.manual_seed(1)
    voxel, shape = (10.0, 10.0, 10.0), (12, 6, 5)
    correction, embedding = torch.randn(1, 9, *shape), torch.randn(1, 3, *shape)
    offsets = [(1, 0, 0), (5, 0, 0), (0, 3, 0)]  # the head does not know the second
    found = pair_affinities(embedding, offsets, 2.0, correction, voxel)[0]
    usual = pair_affinities(embedding, offsets, 2.0)[0]
    assert torch.equal(found[1], usual[1])
    every = pair_logits(correction, embedding, torch.tensor([voxel]))[0]
    for channel, offset in ((0, offsets[0]), (2, offsets[2])):
        said, _ = pair_ends(every[affinity_offsets(voxel).index(offset)], offset)
        torch.testing.assert_close(pair_ends(found[channel], offset)[0], 2 * said.sigmoid() - 1)
    assert (found[0, -1] == 0).all() and (found[2, :, -3:] == 0).all()


def test_a_boundary_head_is_heard_where_the_network_is_not_sure_that_there_is_none() -> None:
    network = torch.tensor([1.0, 0.8, 0.4, 0.0, -1.0, 0.8])
    boundary = torch.tensor([-1.0, -1.0, -1.0, -0.6, 1.0, 1.0])
    # apart by the network 0, 0.1, 0.3, 0.5, 1, 0.1; by the head 1, 1, 1, 0.8, 0, 0
    wanted = [0.0, 0.3, 0.9, 0.8, 1.0, 0.1]
    torch.testing.assert_close(said_by_both(network, boundary), 1 - 2 * torch.tensor(wanted))


def test_logits_of_pairs_fall_with_the_distance_and_the_head_adds_to_them() -> None:
    embedding = torch.zeros(1, 2, 3, 1, 1, dtype=torch.float64)
    embedding[0, 0, 2] = 3.0
    correction = torch.zeros(1, 9, 3, 1, 1, dtype=torch.float64)
    correction[0, 0, 1] = 5.0
    found = pair_logits(correction, embedding, torch.tensor([[10.0, 10.0, 10.0]]))
    near = found[0, 0, :, 0, 0].tolist()
    assert near == pytest.approx([STEEPNESS, STEEPNESS * (1 - 3 / MARGIN) + 5, 0.0], abs=5e-3)
    assert (found[0, 1:] == 0).all(), "no partner inside: the correction alone"
    flat = pair_logits(correction[..., 0], embedding[..., 0], torch.tensor([[10.0, 10.0]]))
    assert torch.equal(flat, found[..., 0])


def test_affinities_of_a_mirrored_image_speak_of_the_same_pairs() -> None:
    rng = np.random.default_rng(2)
    ids = torch.from_numpy(rng.integers(1, 4, (1, 9, 12, 4)))
    hierarchy, voxel = load_hierarchy(), torch.tensor([[10.0, 10.0, 40.0]])
    sets = torch.full_like(ids, hierarchy.unknown, dtype=torch.int32)
    here = pair_targets(ids, sets, voxel, hierarchy).float()
    for axes in ((2,), (3,), (2, 3)):
        turned = [axis - 1 for axis in axes]
        seen = pair_targets(ids.flip(turned), sets, voxel, hierarchy).float().flip(axes)
        back = mirrored_correction(seen, axes, voxel[0].tolist())
        for channel, offset in enumerate(affinity_offsets(voxel[0].tolist())):
            inside, _ = pair_ends(here[:, channel], offset)
            assert torch.equal(pair_ends(back[:, channel], offset)[0], inside)
