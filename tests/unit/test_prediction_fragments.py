"""Fragments and the boundary map they are cut by: partition, places, thin pieces, sections."""

from __future__ import annotations

import itertools

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from lib.prediction.boundary import (
    BINS,
    THICK,
    BoundaryScale,
    boundary_histogram,
    boundary_map,
    boundary_scale,
    has_thick_sections,
    pair_slices,
)
from lib.prediction.fragments import _seed_the_rest, fragments_of_block
from lib.targets.pairs import NEAREST, Offset

CUBES, SECTIONS = (10.0, 10.0, 10.0), (10.0, 10.0, 40.0)
SCALE = BoundaryScale(1.0, 0.5)
SHAPES = st.tuples(*[st.integers(1, 7).map(lambda n: 2 * n)] * 2, st.integers(1, 4))


def affinities_of(labels: NDArray[np.int64]) -> NDArray[np.float16]:
    """(3, X, Y, Z) 1 within an object and -1 between two, of next neighbours."""
    out = np.zeros((3, *labels.shape), np.float16)
    for channel, offset in enumerate(NEAREST):
        here, there = pair_slices(offset, labels.shape)
        out[channel][here] = np.where(labels[here] == labels[there], 1.0, -1.0)
    return out


def random_labels(shape: tuple[int, int, int], seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 4, [-(-n // 4) for n in shape])
    wide = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    return wide[: shape[0], : shape[1], : shape[2]]


def test_next_neighbours_are_one_step_along_each_axis() -> None:
    assert sorted(NEAREST) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]


@settings(max_examples=25)
@given(shape=SHAPES, seed=st.integers(0, 999), voxel=st.sampled_from([CUBES, SECTIONS]))
def test_fragments_part_the_foreground_and_each_is_known_by_a_voxel_of_its_own(
    shape: tuple[int, int, int], seed: int, voxel: tuple[float, float, float]
) -> None:
    labels = random_labels(shape, seed)
    foreground = np.random.default_rng(seed).random(shape) < 0.9
    found, places = fragments_of_block(affinities_of(labels), NEAREST, foreground, voxel, SCALE)
    assert found.dtype == np.uint32 and places.dtype == np.int64
    assert ((found > 0) == foreground).all()
    count = int(found.max())
    assert np.unique(found[foreground]).tolist() == list(range(1, count + 1))
    assert len(places) == count + 1 and places[0] == -1
    assert found.ravel()[places[1:]].tolist() == list(range(1, count + 1))
    for number in range(1, count + 1):
        pieces = cc3d.connected_components((found == number).astype(np.uint8), connectivity=26)
        assert pieces.max() == 1, "a fragment is of one piece"


def test_two_objects_with_a_boundary_between_are_two_fragments() -> None:
    labels = np.ones((24, 12, 12), np.int64)
    labels[12:] = 2
    whole = np.ones(labels.shape, bool)
    found, _ = fragments_of_block(affinities_of(labels), NEAREST, whole, CUBES, SCALE)
    assert found.max() == 2
    assert (found[:11] == found[0, 0, 0]).all() and (found[13:] == found[-1, 0, 0]).all()


@pytest.mark.parametrize("depth", [1, 3])
def test_thick_sections_are_cut_one_by_one(depth: int) -> None:
    whole = np.ones((16, 16, depth), bool)
    together = np.ones((3, 16, 16, depth), np.float16)
    found, places = fragments_of_block(together, NEAREST, whole, SECTIONS, SCALE)
    for z in range(depth):
        assert len(np.unique(found[..., z])) == 1
    assert found.max() == depth
    assert [int(p) % depth for p in places[1:]] == list(range(depth))


def test_no_foreground_has_no_fragments() -> None:
    nothing = np.zeros((4, 4, 2), bool)
    for voxel in (CUBES, SECTIONS):
        empty = np.zeros((3, 4, 4, 2), np.float16)
        found, places = fragments_of_block(empty, NEAREST, nothing, voxel, SCALE)
        assert not found.any() and places.tolist() == [-1]


def test_a_thin_piece_that_is_all_boundary_is_a_fragment() -> None:
    foreground = np.zeros((20, 20, 1), bool)
    foreground[3, 2:18] = True
    foreground[10:18, 5:15] = True
    affinities = np.ones((3, 20, 20, 1), np.float16)
    found, _ = fragments_of_block(affinities, NEAREST, foreground, CUBES, SCALE)
    assert len(np.unique(found[3, 2:18])) == 1 and found[3, 2, 0] not in found[10:18, 5:15]


def test_bare_pieces_get_seeds_of_their_own_numbers() -> None:
    foreground = np.zeros((7, 1), bool)
    foreground[[0, 1, 3, 5, 6]] = True
    seeds = np.zeros((7, 1), np.uint32)
    seeds[0] = 4
    found = _seed_the_rest(seeds.copy(), foreground).ravel()
    assert found[0] == 4 and found[1] == 0, "a piece with a seed keeps it alone"
    assert found[3] > 4 and found[5] == found[6] > 4 and found[3] != found[5]
    assert found[2] == found[4] == 0


# The boundary map -----------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    seed=st.integers(0, 999),
    voxel=st.sampled_from([CUBES, SECTIONS]),
)
def test_the_map_is_the_surest_boundary_to_any_neighbour(
    shape: tuple[int, int, int], seed: int, voxel: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(seed)
    offsets: tuple[Offset, ...] = (*NEAREST, (2, 0, 0))
    affinities = rng.uniform(-1, 1, (4, *shape)).astype(np.float16)
    foreground = rng.random(shape) < 0.7
    found = boundary_map(affinities, offsets, foreground, voxel)
    for at in np.ndindex(shape):
        values = [0.0]
        for (channel, offset), sign in itertools.product(enumerate(NEAREST), (1, -1)):
            other = tuple(a + sign * o for a, o in zip(at, offset, strict=True))
            inside = all(0 <= o < n for o, n in zip(other, shape, strict=True))
            if not inside or (offset[2] and voxel == SECTIONS):
                continue
            start = at if sign > 0 else other
            apart = (1 - float(affinities[(channel, *start)])) / 2
            values.append(apart if foreground[at] and foreground[other] else 1.0)
        assert found[at] == pytest.approx(max(values), abs=1e-6)


def test_sections_are_thick_from_two_and_a_half_pixels_on() -> None:
    assert has_thick_sections((10.0, 12.0, 10.0 * THICK))
    assert not has_thick_sections((10.0, 12.0, 10.0 * THICK - 0.1))
    assert not has_thick_sections((40.0, 40.0, 10.0))


def test_histograms_of_blocks_add_up_to_that_of_the_volume() -> None:
    rng = np.random.default_rng(0)
    boundary = rng.random((8, 6, 4)).astype(np.float32)
    foreground = rng.random(boundary.shape) < 0.5
    parts = [boundary_histogram(boundary[s], foreground[s]) for s in (slice(0, 3), slice(3, 8))]
    whole = boundary_histogram(boundary, foreground)
    assert (parts[0] + parts[1]).tolist() == whole.tolist()
    assert whole.sum() == foreground.sum() and len(whole) == BINS
    assert boundary_scale(parts) == boundary_scale([whole])
    ends = boundary_histogram(np.array([0.0, 1.0], np.float32), np.array([True, True]))
    assert ends[0] == ends[-1] == 1


def test_the_scale_is_the_strongest_hundredth_and_otsus_threshold() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.1, 0.03, 9000), rng.normal(0.5, 0.05, 1000)]).clip(0, 1)
    counts, edges = np.histogram(values, BINS, (0.0, 1.0))
    scale = boundary_scale([counts])
    strongest = np.quantile(values, 0.99)
    assert scale.strong == pytest.approx(strongest, abs=1.5 / BINS)
    cut = np.minimum(values, scale.strong)
    threshold = threshold_otsu(cut, nbins=round(scale.strong * BINS))
    # between the two kinds Otsu's variance is flat: its middle is as good as its first value
    assert scale.inside * scale.strong == pytest.approx(threshold, abs=0.08)
    assert 0.2 < scale.inside * scale.strong < 0.4
    assert edges[-1] == 1.0


def test_a_map_of_one_value_or_of_nothing_has_a_scale_too() -> None:
    assert boundary_scale([np.zeros(BINS, np.int64)]) == BoundaryScale(1.0, 0.5)
    one = np.zeros(BINS, np.int64)
    one[0] = 100
    assert boundary_scale([one]) == BoundaryScale(1 / BINS, 0.5)


def test_values_that_keep_apart_are_parted_in_the_middle() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[[10, 200]] = 500, 500
    scale = boundary_scale([counts])
    assert scale.strong == pytest.approx(201 / BINS)
    assert scale.inside * scale.strong == pytest.approx((10 + 200 + 1) / 2 / BINS, abs=1 / BINS)
