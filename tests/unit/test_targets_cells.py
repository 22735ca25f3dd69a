"""Pairs of voxels and the cells that organelles lie in, against plain loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from lib.labels.hierarchy import load_hierarchy
from lib.targets.cells import (
    APART,
    PAIR_CHANNELS,
    TOGETHER,
    UNKNOWN,
    affinity_offsets,
    cell_ids,
    pair_ends,
    pair_targets,
)
from lib.targets.objects import index_objects
from lib.targets.pairs import NEAREST, pair_offsets

H = load_hierarchy()
AXON, DENDRITE, MITO, MYELIN, SPACE = (
    H.set_named(n) for n in ("axon", "dendrite", "mitochondria", "myelin", "extracellular space")
)
SETS = [AXON, DENDRITE, MITO, MYELIN, SPACE, H.set_named("organelle"), AXON | MITO, H.unknown]
SHAPES = st.tuples(*[st.integers(1, 4)] * 3)


def fine(class_set: int) -> int:
    """The class of a set of one."""
    return class_set.bit_length() - 1


def told(
    cells: np.ndarray, sets: np.ndarray, size=(10.0, 10.0, 30.0), **more: Tensor
) -> np.ndarray:
    """`pair_targets` of one sample, (PAIR_CHANNELS, X, Y, Z)."""
    found = pair_targets(
        torch.tensor(cells)[None], torch.tensor(sets)[None], torch.tensor([size]), H, **more
    )
    assert found.dtype == torch.int8
    return found[0].numpy()


@pytest.mark.parametrize(
    ("size", "offsets"),
    [
        ((10, 10, 10), [1, 1, 1, 3, 3, 3, 9, 9, 9]),
        ((10, 10, 30), [1, 1, 1, 3, 3, 1, 9, 9, 3]),
        ((9.2, 9.2, 50), [1, 1, 1, 3, 3, 1, 9, 9, 2]),
        ((40, 8, 8), [1, 1, 1, 1, 3, 3, 2, 9, 9]),
        ((10, 20), [1, 1, 1, 3, 2, 2, 9, 4, 4]),
    ],
)
def test_partners_lie_equally_far_in_nm(size, offsets) -> None:
    found = affinity_offsets(size)
    assert len(found) == PAIR_CHANNELS == 9
    assert found == tuple(
        tuple(n if a == i % 3 else 0 for a in range(3)) for i, n in enumerate(offsets)
    )


@settings(max_examples=50, deadline=None)
@given(values=arrays(np.int64, SHAPES), offset=st.tuples(*[st.integers(0, 5)] * 3))
def test_both_ends_of_a_pair_are_its_offset_apart(values, offset) -> None:
    one, other = pair_ends(torch.tensor(values), offset)
    places = [(p, tuple(np.add(p, offset))) for p in np.ndindex(values.shape)]
    inside = [(p, q) for p, q in places if (np.array(q) < values.shape).all()]
    expected = [(values[p], values[q]) for p, q in inside]
    pairs = list(zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
    assert pairs == expected


def pair_by_hand(a: int, b: int, sets_a: int, sets_b: int) -> int:
    """What the docstring of `pair_targets` says of one pair."""
    if a >= 0 and b >= 0:
        return TOGETHER if a == b > 0 else APART
    inner = H.inside_set
    one = H.unknown if not sets_a & ~inner else sets_a
    other = H.unknown if not sets_b & ~inner else sets_b
    return UNKNOWN if one & other else APART


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=SHAPES)
def test_pairs_are_what_a_plain_loop_says(data, shape) -> None:
    cells = data.draw(arrays(np.int64, shape, elements=st.integers(-1, 2)))
    sets = data.draw(arrays(np.int32, shape, elements=st.sampled_from(SETS)))
    found = told(cells, sets)
    for channel, offset in enumerate(affinity_offsets((10.0, 10.0, 30.0))):
        for p in np.ndindex(shape):
            q = tuple(np.add(p, offset))
            if any(b >= n for b, n in zip(q, shape, strict=True)):
                assert found[channel][p] == UNKNOWN, "the partner lies outside"
            else:
                expected = pair_by_hand(cells[p], cells[q], sets[p], sets[q])
                assert found[channel][p] == expected, (channel, p)


def test_ids_that_hold_within_sections_say_nothing_across_them() -> None:
    cells, sets = np.ones((12, 12, 12), np.int64), np.full((12, 12, 12), AXON, np.int32)
    both = pair_targets(
        torch.tensor(np.stack([cells, cells])), torch.tensor(np.stack([sets, sets])),
        torch.tensor([[10.0, 10, 10], [10, 10, 10]]), H, torch.tensor([True, False]),
    )  # fmt: skip
    for channel in range(PAIR_CHANNELS):
        known = (both[:, channel] != UNKNOWN).flatten(1).any(1).tolist()
        assert known == [channel % 3 != 2, True]


def test_each_sample_has_its_own_voxel_size() -> None:
    cells = torch.ones((2, 12, 12, 12), dtype=torch.int64)
    sets = torch.full((2, 12, 12, 12), AXON, dtype=torch.int32)
    found = pair_targets(cells, sets, torch.tensor([[10.0, 10, 10], [10, 10, 90]]), H)
    known = [(found[b, 8] == TOGETHER).sum().item() for b in range(2)]
    assert known == [12 * 12 * 3, 12 * 12 * 11]


def test_images_have_the_pairs_of_their_plane() -> None:
    cells = torch.tensor([[[1, 1, 0], [2, 2, -1]]])
    sets = torch.full((1, 2, 3), H.unknown, dtype=torch.int32)
    found = pair_targets(cells, sets, torch.tensor([[10.0, 10.0]]), H)
    assert found.shape == (1, PAIR_CHANNELS, 2, 3)
    assert found[0, 0].tolist() == [[APART, APART, UNKNOWN], [UNKNOWN] * 3]
    assert found[0, 1].tolist() == [[TOGETHER, APART, UNKNOWN], [TOGETHER, UNKNOWN, UNKNOWN]]
    assert (found[0, 2] == UNKNOWN).all(), "an image has no partner across"


def cells_of(ids: np.ndarray, classes: dict[int, int], sets: np.ndarray | None = None) -> list:
    """`cell_ids` of one sample, whose objects have these class sets, by the ids given."""
    instance = torch.tensor(ids)[None]
    known = sets if sets is not None else np.full(ids.shape, H.unknown, np.int32)
    objects = index_objects(instance)
    order = sorted(classes)
    assert order == [i for i in np.unique(ids).tolist() if i > 0]
    object_class = torch.tensor([fine(classes[i]) if classes[i] else -1 for i in order])
    found = cell_ids(instance, objects, object_class, torch.tensor(known)[None], H)[0]
    return np.array([0, *order, -1])[found].tolist()


@pytest.mark.parametrize(("side", "cell"), [(5, 5), (2, 2)])
def test_an_organelle_is_of_the_cell_that_most_of_its_faces_touch(side: int, cell: int) -> None:
    """Of its six faces one cell has four, above or below and at a side; ids do not matter."""
    below = 2 if side == 5 else 5
    ids = np.array([[side] * 4, [below, 9, 9, side], [below, below, side, side]])
    found = cells_of(ids, {2: AXON, 5: DENDRITE, 9: MITO})
    assert found == np.where(ids == 9, cell, ids).tolist()


def test_an_organelle_without_a_cell_is_unknown() -> None:
    ids = np.array([[9, 9, 0, 4], [9, 8, 0, 4]])
    assert cells_of(ids, {4: AXON, 8: MITO, 9: MITO}) == [[-1, -1, 0, 4], [-1, -1, 0, 4]]


def test_objects_of_unknown_class_are_cells() -> None:
    ids = np.array([[3, 9, 3]])
    assert cells_of(ids, {3: 0, 9: MITO}) == [[3, 3, 3]]


def test_unknown_ids_that_can_be_no_object_have_none() -> None:
    ids = np.array([[-1, -1, -1, -7, 6]])
    sets = np.array([[SPACE, AXON, H.unknown, SPACE, AXON]], np.int32)
    assert cells_of(ids, {6: AXON}, sets) == [[0, -1, -1, 0, 6]]
    assert cells_of(ids, {6: MITO}, sets) == [[0, -1, -1, 0, -1]]


def test_samples_do_not_lend_each_other_cells() -> None:
    instance = torch.tensor([[[9, 2]], [[9, 3]]])
    objects = index_objects(instance)
    classes = torch.tensor([fine(AXON), fine(MITO), fine(DENDRITE), fine(MITO)])
    sets = torch.full(instance.shape, H.unknown, dtype=torch.int32)
    found = cell_ids(instance, objects, classes, sets, H)
    assert found.tolist() == [[[1, 1]], [[3, 3]]]


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(*[st.sampled_from([4.0, 8.0, 10.0, 30.0, 50.0])] * 3),
    reach=st.lists(st.integers(1, 12), max_size=3),
    shape=st.tuples(*[st.sampled_from([1, 2, 7, 30])] * 3),
)
def test_offsets_are_distinct_fit_the_window_and_keep_their_length(size, reach, shape) -> None:
    offsets = pair_offsets(size, reach, shape)
    near = [o for o, n in zip(NEAREST, shape, strict=True) if n > 1]
    assert list(offsets[: len(near)]) == near and len(set(offsets)) == len(offsets)
    far = set(offsets[len(near) :])
    expected = set()
    for distance, axis in product(reach, range(3)):
        steps = round(distance * min(size) / size[axis])
        if 1 < steps <= shape[axis] / 2:
            expected.add(tuple(steps if a == axis else 0 for a in range(3)))
    assert far == expected
