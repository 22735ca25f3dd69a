"""Splits, patch shapes, strata, turns and warps: their bounds, and values by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import positions
from lib.data.appearance import FEWEST_SECTIONS, change_appearance
from lib.data.items import Patch
from lib.data.patch_shapes import LARGEST_STRETCH, network_patch, patch_shape
from lib.data.positions import Stratum, blocks_of
from lib.data.splits import GAP, VAL_BLOCK, ItemSplit, block_hash, split_item
from lib.data.warp import Turn, Warp, draw_turn, draw_warp
from lib.labels.hierarchy import IGNORE_INDEX
from lib.volumes.boxes import box_slices

SHAPES = st.tuples(st.integers(1, 500), st.integers(1, 500), st.integers(1, 160))
UNKNOWN = 4095


class Item:
    """What patch shapes ask of an item."""

    def __init__(self, shape: tuple[int, int, int], isotropic: bool) -> None:
        self.shape, self.isotropic = shape, isotropic


def patch(shape: tuple[int, int, int], seed: int = 0) -> Patch:
    """Random voxels, each with an id of its own."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.int64)
    sets = (ids % 7 + 1).astype(np.int32)
    image = rng.random(shape, np.float32)
    return Patch(image, sets, ids, (4.0, 5.0, 40.0), item="a", within_sections=True)


@settings(max_examples=100, deadline=None)
@given(shape=SHAPES, fraction=st.floats(0.05, 0.5), name=st.text(max_size=5))
def test_a_share_of_the_blocks_validates_and_blocks_cover_the_item(shape, fraction, name) -> None:
    found = split_item(name, shape, None, fraction)
    assert found == split_item(name, shape, None, fraction)
    if found.whole is not None:
        whole = tuple((0, n) for n in shape)
        assert found.val_boxes == ((whole,) if found.whole == "val" else ())
        return
    voxels = [int(np.prod([hi - lo for lo, hi in box])) for box in found.val_boxes]
    share = sum(voxels) / np.prod(shape)
    largest = max(voxels) / np.prod(shape)
    assert 0 < share < fraction + 1.5 * largest
    for box in found.val_boxes:
        for (lo, hi), n, block in zip(box, shape, VAL_BLOCK, strict=True):
            assert 0 <= lo < hi <= n and (hi - lo >= block // 2 - 1 or (lo, hi) == (0, n))


@pytest.mark.parametrize(
    ("length", "parts"),
    [(95, 1), (96, 2), (144, 3), (191, 3), (192, 4), (479, 4), (480, 5), (960, 10)],
)
def test_long_axes_are_cut_into_blocks_and_short_ones_into_few(length: int, parts: int) -> None:
    shape = (length, 1, 1)
    seen = {box[0] for n in range(60) for box in split_item(f"{n}", shape, None, 0.5).val_boxes}
    ends = sorted({lo for lo, _ in seen})
    assert len(ends) == parts if parts > 1 else seen == {(0, length)}
    if parts > 1:
        assert {hi for _, hi in seen} == {*ends[1:], length} and ends[0] == 0
        assert max(hi - lo for lo, hi in seen) - min(hi - lo for lo, hi in seen) <= 1


def test_small_items_validate_whole_with_the_chance_of_the_fraction() -> None:
    roles = Counter(split_item(f"item {n}", (40, 40, 10), None, 0.2).whole for n in range(1000))
    assert 150 < roles["val"] < 250 and roles["train"] + roles["val"] == 1000


def test_a_hash_depends_on_item_and_corner_and_fills_its_range() -> None:
    found = [block_hash(name, (x, 0, z)) for name in "ab" for x in range(20) for z in range(20)]
    assert len(set(found)) == 800 and 0 <= min(found) < 0.02 and 0.98 < max(found) < 1
    assert block_hash("a", (0, 0, 0)) == block_hash("a", (0, 0, 0))


def test_validation_blocks_and_their_gap_are_cut_out_of_a_box() -> None:
    split = ItemSplit((100, 100, 40), (((40, 60), (0, 50), (10, 20)),), None)
    box = ((30, 90), (20, 100), (15, 40))
    mask = split.validating(box)
    assert mask.shape == (60, 80, 25) and mask.sum() == 20 * 30 * 5
    assert mask[10:30, :30, :5].all()
    ((x, y, z),) = split.blocked(box)
    assert (x.start, x.stop) == (10 - GAP[0], 30 + GAP[0])
    assert (y.start, y.stop, z.start, z.stop) == (0, 30 + GAP[1], 0, 5 + GAP[2])
    assert split.blocked(((68, 100), (0, 100), (0, 40))) == [], "the gap ends before"
    assert len(split.blocked(((67, 100), (0, 100), (0, 40)))) == 1


@pytest.mark.parametrize(
    ("shape", "isotropic", "expected"),
    [
        ((500, 500, 100), False, (96, 96, 32)),
        ((500, 500, 8), False, (192, 192, 8)),
        ((500, 500, 1), False, (288, 288, 1)),
        ((60, 500, 1), False, (60, 288, 1)),
        ((500, 500, 500), True, (64, 64, 64)),
        ((500, 30, 500), True, (64, 30, 64)),
    ],
)
def test_patches_hold_about_as_many_voxels_whatever_the_item(shape, isotropic, expected) -> None:
    assert patch_shape(Item(shape, isotropic), (96, 96, 32)) == expected  # type: ignore[arg-type]


def test_a_network_of_two_axes_sees_single_sections_of_as_many_voxels() -> None:
    assert network_patch((96, 96, 32), 3) == (96, 96, 32)
    assert network_patch((96, 64, 4), 2) == (192, 128, 1)
    assert network_patch((96, 96, 400), 2) == (96 * LARGEST_STRETCH, 96 * LARGEST_STRETCH, 1)
    assert network_patch((3, 3, 1), 2) == (16, 16, 1)


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(1, 80)))
def test_blocks_cover_every_voxel_once(shape) -> None:
    seen = np.zeros(shape, np.uint8)
    for box in blocks_of(shape):
        assert all(hi - lo <= n for (lo, hi), n in zip(box, positions.BLOCK, strict=True))
        seen[box_slices(box)] += 1
    assert (seen == 1).all()


def test_a_stratum_draws_its_blocks_by_their_voxels() -> None:
    """Of a block with 3 in 4 voxels few are kept; they stand for the others."""
    kept = (np.array([[0, 0, 0]], np.int32), np.array([[9, 8, 7], [9, 8, 6]], np.int32))
    stratum = Stratum(400, np.array([100, 400]), kept)
    rng = np.random.default_rng(0)
    drawn = Counter(stratum.draw(rng) for _ in range(4000))
    assert set(drawn) == {(0, 0, 0), (9, 8, 7), (9, 8, 6)}
    assert 900 < drawn[0, 0, 0] < 1100 and 1350 < drawn[9, 8, 7] < 1650


@settings(max_examples=60, deadline=None)
@given(
    axes=st.permutations((0, 1, 2)),
    flips=st.tuples(*[st.booleans()] * 3),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_a_turned_patch_holds_each_voxel_once_with_all_that_is_known_of_it(
    axes, flips, shape
) -> None:
    turn = Turn(tuple(axes), flips)
    before = patch(turn.source_extent(shape))
    after = turn.apply(before)
    assert after.image.shape == shape and after.item == "a" and after.within_sections
    assert after.voxel_size_nm == tuple(before.voxel_size_nm[a] for a in axes)
    for place in np.ndindex(shape):
        source = [0, 0, 0]
        for i, axis in enumerate(axes):
            source[axis] = shape[i] - 1 - place[i] if flips[i] else place[i]
        at = tuple(source)
        assert after.instance[place] == before.instance[at]
        assert after.image[place] == before.image[at]
        assert after.class_sets[place] == before.class_sets[at]


def test_volumes_of_sections_turn_in_plane_alone() -> None:
    rng = np.random.default_rng(0)
    flat = {draw_turn((8, 8, 8), (99, 99, 99), False, rng).axes for _ in range(100)}
    cube = {draw_turn((8, 8, 8), (99, 99, 99), True, rng).axes for _ in range(200)}
    assert flat == {(0, 1, 2), (1, 0, 2)} and len(cube) == 6
    flips = {draw_turn((8, 8, 8), (99, 99, 99), False, rng).flips for _ in range(200)}
    assert len(flips) == 8
    assert draw_turn((8, 8, 8), (4, 4, 4), True, rng).axes == (0, 1, 2), "where none fits"
    tight = {draw_turn((8, 6, 4), (8, 8, 4), True, rng).axes for _ in range(100)}
    assert tight == {(0, 1, 2), (1, 0, 2)}
    assert {draw_turn((8, 6, 4), (8, 6, 4), True, rng).axes for _ in range(50)} == {(0, 1, 2)}


def _shift(by: tuple[float, float], shape: tuple[int, int, int], margin: int = 2) -> Warp:
    """A warp that only moves, of all sections but the first."""
    x, y = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape[:2]], indexing="ij")
    shifts = np.zeros((shape[2], 2), np.float32)
    shifts[1:] = by
    return Warp(margin, np.stack([x + margin, y + margin]), shifts, 2.0)


def test_a_warp_that_moves_by_whole_voxels_is_a_crop() -> None:
    before = patch((9, 10, 3))
    after = _shift((1.0, -2.0), (5, 6, 3)).apply(before, UNKNOWN)
    for name in ("image", "class_sets", "instance"):
        old, new = getattr(before, name), getattr(after, name)
        assert (new[..., 0] == old[2:7, 2:8, 0]).all()
        assert (new[..., 1:] == old[3:8, 0:6, 1:]).all()
    assert after.voxel_size_nm == (8.0, 10.0, 40.0), "the scale is of the plane alone"


def test_what_lies_beyond_is_unknown_and_its_image_the_edge() -> None:
    before = patch((9, 10, 2))
    after = _shift((4.0, 0.0), (5, 6, 2)).apply(before, UNKNOWN)
    assert (after.class_sets[:3, :, 1] == before.class_sets[6:9, 2:8, 1]).all()
    assert (after.class_sets[3:, :, 1] == UNKNOWN).all()
    assert (after.instance[3:, :, 1] == IGNORE_INDEX).all()
    assert (after.image[3:, :, 1] == before.image[8:9, 2:8, 1]).all()
    half = _shift((0.5, 0.0), (5, 6, 2)).apply(before, UNKNOWN)
    mean = (before.image[2:7, 2:8, 1] + before.image[3:8, 2:8, 1]) / 2
    assert half.image[..., 1] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("moves", [True, False])
def test_sections_are_shifted_where_they_are_cut(moves: bool) -> None:
    rng = np.random.default_rng(1)
    warps = [draw_warp((40, 30, 8), moves, rng) for _ in range(20)]
    assert all(w.shifts.any() == moves for w in warps)
    assert all(w.shifts.shape == (8, 2) and w.field.shape == (2, 40, 30) for w in warps)
    assert all(0.9 <= w.scale <= 1.1 and w.margin == 8 for w in warps)
    assert not draw_warp((40, 30, 1), True, rng).shifts.any(), "a section alone does not jump"
    middles = [w.field[:, 19:21, 14:16].mean((1, 2)) - (27.5, 22.5) for w in warps]
    assert np.abs(np.mean(middles, 0)).max() < 3, "warps turn about the middle"


def test_volumes_that_are_not_cut_lose_no_section() -> None:
    """Of a flat grey volume each section changes as the others do."""
    image = np.full((8, 8, 12), 0.5, np.float32)
    for cut in (False, True):
        spread = []
        for n in range(200):
            found = change_appearance(image, cut, np.random.default_rng(n), strength=0.0)
            sections = found.mean((0, 1))
            spread.append(np.abs(sections - np.median(sections)).max())
        assert (max(spread) > 0.3) == cut
    few = image[..., : FEWEST_SECTIONS - 1]
    found = [change_appearance(few, True, np.random.default_rng(n), 0.0) for n in range(200)]
    assert max(np.abs(f.mean((0, 1)) - 0.5).max() for f in found) < 0.1, "few sections are kept"
