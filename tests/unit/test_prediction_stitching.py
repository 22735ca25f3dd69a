"""Blocks and the matching of their objects."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from lib.prediction.cutting import UnionFind, cut_blocks, same_objects
from lib.volumes.boxes import box_slices, intersect


@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    block=st.tuples(*[st.integers(9, 30)] * 3),
    overlap=st.tuples(*[st.integers(1, 4)] * 3),
)
@example((1, 34, 1), (9, 14, 9), (1, 4, 1))  # three blocks, the inner one the largest
def test_cores_partition_the_volume_and_outers_overlap(shape, block, overlap) -> None:
    blocks = cut_blocks(shape, block, overlap)
    seen = np.zeros(shape, int)
    by_index = {b.index: b for b in blocks}
    for b in blocks:
        seen[box_slices(b.core)] += 1
        for (lo, hi), (a, z), n, size in zip(b.core, b.outer, shape, block, strict=True):
            assert max(a, 0) == a <= lo < hi <= z <= n and z - a <= size
        for before in b.previous():
            shared = intersect(by_index[before].outer, b.outer)
            assert shared is not None
            axis = next(i for i in range(3) if before[i] != b.index[i])
            assert shared[axis][1] - shared[axis][0] >= min(overlap[axis], 1)
    assert (seen == 1).all()


def test_agreement_joins_and_a_touch_does_not() -> None:
    one = np.array([1] * 10 + [2] * 10)
    other = np.array([5] * 9 + [6] * 11)  # 6 touches 1 with one voxel
    assert same_objects(one, other) == [(1, 5), (2, 6)]


def test_a_merged_object_is_joined_with_its_best_partner_only() -> None:
    one = np.array([1] * 12 + [2] * 8)
    other = np.array([5] * 20)  # the other block merged both
    assert same_objects(one, other) == [(1, 5)]


def test_an_object_cut_off_in_one_block_is_still_joined() -> None:
    one = np.array([1] * 20)
    other = np.array([0] * 12 + [5] * 8)  # IoU 0.4, but mutual best and all of the smaller
    assert same_objects(one, other) == [(1, 5)]


def test_background_joins_nothing() -> None:
    assert same_objects(np.zeros(9, int), np.ones(9, int)) == []
    assert same_objects(np.zeros(0, int), np.zeros(0, int)) == []


@given(joins=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=20))
def test_union_find_gives_connected_sets(joins: list[tuple[int, int]]) -> None:
    sets = {i: {i} for i in range(13)}
    found = UnionFind()
    assert found.grow(12) == 0
    for a, b in joins:
        found.join(a, b)
        union = sets[a] | sets[b]
        for i in union:
            sets[i] = union
    assert found.roots().tolist() == [min(sets[i]) for i in range(13)]
