"""Objects of a batch as lists, and what is painted from them, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.labels.hierarchy import FineClass, LabelHierarchy, flat_hierarchy, load_hierarchy
from lib.targets.direction import centroid_direction, centroids, unit_vectors, voxel_coordinates
from lib.targets.objects import PIECE, index_objects
from lib.targets.semantic import (
    majority_classes,
    object_classes,
    paint_objects,
    resolve_class_sets,
)
from lib.targets.weights import edge_mask, pull_weights

H = load_hierarchy()
IDS = st.sampled_from([-2, -1, 0, 1, 2, 3, 900, 2**40, 2**62])
SHAPES = st.one_of(
    st.tuples(st.integers(1, 3), *[st.integers(1, 4)] * 3),
    st.tuples(st.integers(1, 3), *[st.integers(1, 4)] * 2),
)
BATCHES = SHAPES.flatmap(lambda shape: arrays(np.int64, shape, elements=IDS))


def listed(ids: np.ndarray) -> list[tuple[int, int]]:
    """(sample, id) of the objects of a batch in their order."""
    return [(b, i) for b in range(len(ids)) for i in np.unique(ids[b]).tolist() if i > 0]


@settings(max_examples=80, deadline=None)
@given(ids=BATCHES)
def test_objects_are_numbered_by_sample_and_id(ids) -> None:
    found = index_objects(torch.tensor(ids))
    expected = listed(ids)
    assert found.count == len(expected)
    assert found.sample.tolist() == [b for b, _ in expected]
    labels = np.zeros_like(ids)
    for number, (b, i) in enumerate(expected, 1):
        labels[b][ids[b] == i] = number
    assert (found.labels.numpy() == labels).all()
    assert found.voxels.tolist() == [(labels == k).sum() for k in range(1, len(expected) + 1)]
    assert sorted(found.order.tolist()) == np.flatnonzero(labels).tolist()
    assert (np.diff(labels.ravel()[found.order.numpy()]) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(ids=BATCHES, seed=st.integers(0, 100))
def test_sums_are_those_of_each_objects_rows(ids, seed) -> None:
    rows = np.random.default_rng(seed).integers(-50, 50, (ids.size, 2)).astype(np.float32)
    found = index_objects(torch.tensor(ids))
    sums = found.sum(torch.tensor(rows, requires_grad=True))
    assert sums.dtype == torch.float64 and sums.shape == (found.count, 2)
    assert not sums.requires_grad
    flat = found.labels.numpy().ravel()
    expected = [rows[flat == k].sum(0) for k in range(1, found.count + 1)]
    assert (sums.numpy() == np.array(expected).reshape(-1, 2)).all()


@pytest.mark.parametrize("voxels", [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_pieces_cover_each_object_once(voxels: int) -> None:
    ids = torch.ones((1, voxels + 5), dtype=torch.int64)
    ids[0, voxels:] = 2
    found = index_objects(ids)
    whole = -(-voxels // PIECE)
    assert found.first_piece.tolist() == [0, whole]
    assert found.starts.tolist() == [PIECE * n for n in range(whole)] + [voxels]
    assert found.sum(torch.ones((voxels + 5, 1))).flatten().tolist() == [voxels, 5]


@settings(max_examples=50, deadline=None)
@given(ids=BATCHES)
def test_centroids_are_the_means_of_the_voxels(ids) -> None:
    found = index_objects(torch.tensor(ids))
    middles = centroids(found).numpy()
    labels = found.labels.numpy()
    for k in range(found.count):
        assert middles[k] == pytest.approx(np.argwhere(labels == k + 1)[:, 1:].mean(0))
    sizes = torch.rand((len(ids), ids.ndim - 1), generator=torch.Generator().manual_seed(0)) + 1
    toward = centroid_direction(found, sizes).numpy()
    assert toward.shape == (len(ids), ids.ndim - 1, *ids.shape[1:])
    for place in np.ndindex(ids.shape):
        b, where = place[0], place[1:]
        vector = toward[(b, slice(None), *where)]
        label = labels[place]
        offset = (middles[label - 1] - where) * sizes[b].numpy() if label else np.zeros(len(where))
        length = np.linalg.norm(offset)
        expected = offset / length if length > 1e-6 else offset * 0
        assert vector == pytest.approx(expected, abs=1e-5)


def test_coordinates_run_along_their_axes() -> None:
    a, b = voxel_coordinates(torch.Size((5, 2, 3)), torch.device("cpu"))
    assert a.shape == (1, 2, 1) and a.flatten().tolist() == [0, 1]
    assert b.shape == (1, 1, 3) and b.flatten().tolist() == [0, 1, 2]


def test_unit_vectors_are_of_length_one_in_nm_and_zero_outside() -> None:
    offset = torch.tensor([[[[3.0, 0.0, 3.0]], [[1.0, 0.0, 1.0]]]])  # (1, 2, 1, 3)
    labels = torch.tensor([[[1, 1, 0]]])
    found = unit_vectors(offset, labels, torch.tensor([[4.0, 5.0]]))
    assert found[0, :, 0, 0].tolist() == pytest.approx([12 / 13, 5 / 13])
    assert found[0, :, 0, 1].tolist() == [0, 0] == found[0, :, 0, 2].tolist()


@settings(max_examples=60, deadline=None)
@given(
    ids=SHAPES.flatmap(lambda s: arrays(np.int64, s, elements=st.integers(-1, 3))),
    weight=st.sampled_from([1.0, 2.0, 5.0]),
)
def test_edges_are_what_a_plain_loop_finds(ids, weight) -> None:
    found = edge_mask(torch.tensor(ids)).numpy()
    expected = np.zeros(ids.shape, bool)
    for place in np.ndindex(ids.shape):
        near = ids[(place[0], *(slice(max(0, p - 1), p + 2) for p in place[1:]))]
        expected[place] = ids[place] >= 0 and bool(((near >= 0) & (near != ids[place])).any())
    assert (found == expected).all()
    weights = pull_weights(torch.tensor(ids), None, weight, 1.0).numpy()
    assert (weights == np.where(ids > 0, np.where(expected, weight, 1.0), 0.0)).all()


def test_the_deepest_voxel_weighs_most_and_both_weights_multiply() -> None:
    ids = torch.tensor([[0, 4, 4, 4]])
    depth = torch.tensor([[0.0, 0.25, 1.0, 0.5]])
    assert pull_weights(ids, depth, 1.0, 3.0).tolist() == [[0.0, 1.5, 3.0, 2.0]]
    assert pull_weights(ids, depth, 2.0, 3.0).tolist() == [[0.0, 3.0, 3.0, 2.0]]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=SHAPES)
def test_an_object_has_the_class_of_most_of_its_known_voxels(data, shape) -> None:
    ids = data.draw(arrays(np.int64, shape, elements=st.integers(-1, 3)))
    fine = data.draw(arrays(np.int64, shape, elements=st.integers(-1, 3)))
    objects = index_objects(torch.tensor(ids))
    found = object_classes(torch.tensor(fine), objects, 4)
    labels = objects.labels.numpy()
    for k, best in enumerate(found.tolist(), 1):
        votes = np.bincount(fine[(labels == k) & (fine >= 0)], minlength=4)
        assert best == (int(votes.argmax()) if votes.any() else -1)
    painted = paint_objects(found, objects.labels, empty=-5).numpy()
    assert (painted == np.array([-5, *found.tolist()])[labels]).all()


def test_no_objects_have_no_classes() -> None:
    nothing = torch.zeros((1, 2, 2), dtype=torch.int64)
    assert majority_classes(nothing, nothing, 0, 4).shape == (0,)
    assert paint_objects(torch.zeros(0), nothing).tolist() == [[[-1, -1], [-1, -1]]]


@pytest.mark.parametrize(
    ("hierarchy", "traced", "empty"),
    [
        (H, H.object_set, H.unknown),
        (flat_hierarchy(2), 0b10, 0b01),
        (flat_hierarchy(3), 0b110, 0b111),
        (LabelHierarchy(flat_hierarchy(2).classes, (("both", (0, 1)),)), 0b10, 0b11),
    ],
    ids=["groups", "foreground", "three classes", "two classes in a group"],
)
def test_ids_say_something_where_the_class_is_unknown(hierarchy, traced, empty) -> None:
    unknown = hierarchy.unknown
    sets = torch.tensor([[unknown, unknown, unknown, 1, 1, 1]], dtype=torch.int32)
    ids = torch.tensor([[7, 0, -1, 7, 0, -1]])
    found = resolve_class_sets(sets, ids, hierarchy)
    assert found.tolist() == [[traced, empty, unknown, 1, 1, 1]] and found.dtype == torch.int32


def test_where_every_class_is_an_object_no_object_is_unknown() -> None:
    both = LabelHierarchy(tuple(FineClass(n, True, (0, 0, 0)) for n in "ab"))
    sets = torch.full((1, 2), 3, dtype=torch.int32)
    assert resolve_class_sets(sets, torch.tensor([[5, 0]]), both).tolist() == [[3, 3]]
