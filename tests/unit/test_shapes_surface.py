"""Surfaces of objects: what no placing, turning or scaling of a map may change, and flat walls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.shapes.surface import surface_areas

SIZE = (4.0, 5.0, 40.0)
MAPS = arrays(np.uint32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3))


def padded(ids: np.ndarray) -> np.ndarray:
    """With a rim of nothing, so that every object has its whole surface."""
    return np.pad(ids, 1)


@settings(max_examples=40, deadline=None)
@given(ids=MAPS, axes=st.permutations((0, 1, 2)))
def test_a_turned_map_has_the_same_surfaces(ids, axes) -> None:
    turned = surface_areas(ids.transpose(axes), [SIZE[a] for a in axes])
    assert turned == pytest.approx(surface_areas(ids, SIZE))


@settings(max_examples=40, deadline=None)
@given(ids=MAPS, flipped=st.tuples(*[st.booleans()] * 3))
def test_a_mirrored_map_has_the_same_surfaces(ids, flipped) -> None:
    mirrored = ids[tuple(slice(None, None, -1) if f else slice(None) for f in flipped)]
    assert surface_areas(mirrored, SIZE) == pytest.approx(surface_areas(ids, SIZE))


@settings(max_examples=20, deadline=None)
@given(ids=MAPS)
def test_surfaces_grow_with_the_square_of_the_voxel(ids) -> None:
    larger = surface_areas(ids, [3 * s for s in SIZE])
    assert larger == pytest.approx(9 * surface_areas(ids, SIZE))


@settings(max_examples=20, deadline=None)
@given(ids=MAPS)
def test_ids_only_name_what_has_a_surface(ids) -> None:
    """An object's surface does not depend on what lies beyond it, nothing or another object."""
    whole = surface_areas(padded(ids), SIZE)
    assert len(whole) == ids.max(initial=0) + 1 and whole[0] == 0
    for value in range(1, len(whole)):
        alone = surface_areas(padded(ids == value).astype(np.uint32), SIZE)
        assert whole[value] == pytest.approx(alone[-1] if (ids == value).any() else 0)


def test_two_objects_share_the_wall_between_them() -> None:
    ids = np.ones((12, 12, 12), np.uint32)
    ids[:, :, 7:] = 2
    one, two = surface_areas(ids, (8.0, 8.0, 8.0))[1:]
    assert one == two
    assert 0.8 < one / (12 * 8) ** 2 < 1, "flat walls come out too small"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_wall_is_as_large_as_its_voxels_say(axis: int) -> None:
    """The two other lengths make its area, of which thick sections show two thirds or more."""
    ids = np.ones((30, 30, 30), np.uint32)
    ids[tuple(slice(15, None) if a == axis else slice(None) for a in range(3))] = 2
    a, b = (SIZE[n] * 30 for n in range(3) if n != axis)
    assert 2 / 3 < 1.01 * surface_areas(ids, SIZE)[1] / (a * b) < 0.9


def test_a_map_of_nothing_and_one_of_one_voxel() -> None:
    assert surface_areas(np.zeros((3, 2, 1), np.uint32), SIZE).tolist() == [0.0]
    assert surface_areas(np.zeros((0, 2, 1), np.uint32), SIZE).tolist() == [0.0]
    assert surface_areas(np.full((1, 1, 1), 2, np.uint32), SIZE).tolist() == [0.0, 0.0, 0.0]


def test_one_section_has_edges_and_no_lids() -> None:
    """What lies above and below the only section is not known."""
    ids = np.zeros((20, 20, 1), np.uint32)
    ids[5:15, 5:15] = 1
    edges = 4 * 10 * SIZE[0] * SIZE[2]
    found = surface_areas(ids, (SIZE[0], SIZE[0], SIZE[2]))[1]
    assert 0.2 * edges < found < edges


def test_arrays_of_any_order_and_type() -> None:
    ids = np.random.default_rng(0).integers(0, 4, (7, 5, 6))
    expected = surface_areas(np.ascontiguousarray(ids, np.uint32), SIZE)
    for dtype, order in itertools.product((np.uint8, np.uint16, np.uint32), "CF"):
        found = surface_areas(np.asarray(ids.astype(dtype), order=order), SIZE)
        assert found == pytest.approx(expected)
    wide = np.zeros((14, 10, 12), np.uint32)
    wide[::2, ::2, ::2] = ids
    assert surface_areas(wide[::2, ::2, ::2], SIZE) == pytest.approx(expected)
