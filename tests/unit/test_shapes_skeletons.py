"""Skeletons: where objects are cut along them, the areas of the cuts, and their files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from osteoid import Skeleton

from lib.shapes import skeletons
from lib.shapes.fibres import Fibre, fibre
from lib.shapes.skeletons import (
    DUST,
    MOST_SECTIONS,
    Station,
    cross_section,
    skeletons_of,
    stations,
    write_swc,
)


def line(points: np.ndarray, radius: float = 10.0, edges: np.ndarray | None = None) -> Skeleton:
    """A skeleton through points (N, 3) in nm, one after the other unless edges are given."""
    count = len(points)
    if edges is None:
        edges = np.stack([np.arange(count - 1), np.arange(1, count)], 1)
    radii = np.full(count, radius, np.float32)
    return Skeleton(np.asarray(points, np.float32), edges.astype(np.uint32), radii)


def straight(count: int, step: tuple[float, float, float]) -> np.ndarray:
    """Points from the origin, one step apart."""
    return np.arange(count)[:, None] * np.asarray(step)


def test_stations_lie_evenly_on_the_line_and_look_along_it() -> None:
    size = (4.0, 5.0, 40.0)
    found = stations(line(straight(101, (4.0, 0.0, 0.0))), size)
    assert 2 < len(found) <= MOST_SECTIONS
    places = [s.voxel[0] for s in found]
    assert places == sorted(places) and places[0] == 40 and places[-1] == 60, "160 nm off the ends"
    assert all(s.voxel[1:] == (0, 0) for s in found)
    gaps = np.diff(places)
    assert gaps.max() - gaps.min() <= 1
    for station in found:
        assert np.abs(station.direction) == pytest.approx([1, 0, 0])


def test_thick_objects_are_cut_further_from_their_ends() -> None:
    points = straight(101, (0.0, 0.0, 8.0))
    found = stations(line(points, radius=50.0), (8.0, 8.0, 8.0))
    depths = [s.voxel[2] for s in found]
    assert min(depths) == math.ceil(150 / 8) and max(depths) == math.floor((800 - 150) / 8)


def test_voxels_are_those_of_each_axis() -> None:
    size = np.array((4.0, 5.0, 40.0))
    points = 400 + straight(60, (4.0, 10.0, 40.0))
    for station in stations(line(points), tuple(size)):
        place = np.asarray(station.voxel) * size
        along = (place - 400) @ (4, 10, 40) / np.linalg.norm((4, 10, 40)) ** 2
        off = place - (400 + along * np.array((4, 10, 40)))
        assert (np.abs(off) <= size).all()
        direction = np.abs(station.direction)
        assert direction == pytest.approx(np.array((4, 10, 40)) / np.linalg.norm((4, 10, 40)))


def test_the_direction_is_that_of_the_way_and_not_of_its_zigzag() -> None:
    points = straight(200, (4.0, 0.0, 0.0))
    points[::2, 1] += 4.0
    for station in stations(line(points, radius=40.0), (4.0, 4.0, 4.0)):
        assert abs(station.direction[0]) > 0.99


def test_short_lines_are_not_cut() -> None:
    for count in (1, 2, 3, 30):
        points = straight(count, (4.0, 0.0, 0.0))
        edges = np.zeros((0, 2)) if count == 1 else None
        if count > 1:
            assert stations(line(points, edges=edges), (4.0, 5.0, 40.0)) == []


def test_the_longest_way_is_taken() -> None:
    """A twig of the trunk has no station on it."""
    trunk, twig = straight(100, (8.0, 0.0, 0.0)), straight(5, (0.0, 8.0, 0.0))[1:]
    points = np.concatenate([trunk, twig + trunk[50]])
    edges = [
        *zip(range(99), range(1, 100), strict=True),
        (50, 100),
        (100, 101),
        (101, 102),
        (102, 103),
    ]
    found = stations(line(points, edges=np.array(edges)), (8.0, 8.0, 8.0))
    assert len(found) == MOST_SECTIONS and all(s.voxel[1] == 0 for s in found)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cut_across_an_axis_is_the_product_of_the_others(axis: int) -> None:
    size = (4.0, 5.0, 40.0)
    mask = np.zeros((20, 20, 20), bool, order="F")
    mask[4:10, 5:13, 6:16] = True
    direction = tuple(float(a == axis) for a in range(3))
    sides = [n * s for a, (n, s) in enumerate(zip((6, 8, 10), size, strict=True)) if a != axis]
    found = cross_section(mask, Station((7, 8, 9), direction), size)
    assert found == pytest.approx(math.prod(sides), rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.9, 0.9))
@example(1e-30)
def test_a_slanting_cut_of_a_thick_slab_is_longer(tilt: float) -> None:
    """A plate along z, cut by planes that turn around z: its thickness by the cosine."""
    size = (10.0, 10.0, 10.0)
    mask = np.zeros((60, 30, 6), bool, order="F")
    mask[:, 12:18, 1:5] = True
    direction = (math.cos(tilt), math.sin(tilt), 0.0)
    found = cross_section(mask, Station((30, 15, 3), direction), size)
    assert found == pytest.approx(40 * 60 / math.cos(tilt), rel=0.01)


def test_a_cut_that_the_volume_ends_has_no_area() -> None:
    mask = np.zeros((20, 20, 10), bool, order="F")
    mask[:, 5:10, 2:6] = True
    assert cross_section(mask, Station((10, 7, 4), (1.0, 0.0, 0.0)), (8.0, 8.0, 8.0)) > 0
    mask[:, 5:10, :] = True
    assert cross_section(mask, Station((10, 7, 4), (1.0, 0.0, 0.0)), (8.0, 8.0, 8.0)) == 0.0


def test_an_axon_that_cannot_be_cut_has_no_diameter() -> None:
    ids = np.ones((30, 4, 4), np.uint32, order="F")
    found = fibre(ids, 1, [], [], line(straight(30, (20.0, 0, 0))), (20.0, 20.0, 20.0))
    assert math.isnan(found.diameter_nm) and math.isnan(found.g_ratio)


def test_organelles_are_of_the_axon_and_holes_of_the_sheath_are_filled() -> None:
    ids = np.zeros((40, 20, 20), np.uint32, order="F")
    ids[:, 4:16, 4:16] = 2
    ids[:, 7:13, 7:13] = 1
    ids[10:30, 8:12, 8:12] = 3
    points = straight(40, (10.0, 0, 0)) + np.array((0, 100, 100))
    size = (10.0, 10.0, 10.0)
    whole = fibre(ids, 1, [3], [2], line(points), size)
    assert whole.diameter_nm == pytest.approx(60 * 2 / math.sqrt(math.pi), rel=0.01)
    ids[12:28, 5:7, 5:7] = 0  # a hole in the sheath, closed all around
    assert fibre(ids, 1, [3], [2], line(points), size) == whole
    bare = fibre(ids, 1, [3], [], line(points), size)
    assert bare == Fibre(whole.diameter_nm, bare.fibre_diameter_nm, bare.myelin_nm, bare.g_ratio)
    assert math.isnan(bare.fibre_diameter_nm) and math.isnan(bare.g_ratio)


def test_small_objects_have_no_skeleton() -> None:
    ids = np.zeros((40, 20, 10), np.uint32)
    ids[:, 2:6, 2:6] = 1
    ids[0:3, 10:13, 2:6] = 2
    assert (ids == 2).sum() < DUST
    assert list(skeletons_of(ids, (8.0, 8.0, 8.0), [1, 2, 3])) == [1]
    assert skeletons_of(ids, (8.0, 8.0, 8.0), [2]) == {}


def test_a_skeleton_is_written_in_the_place_of_its_item(tmp_path: Path) -> None:
    own = line(straight(4, (10.0, 0.0, 0.0)), radius=5.0)
    write_swc(tmp_path / "a" / "3.swc", own, (100.0, 0.0, -40.0))
    rows = [r.split() for r in (tmp_path / "a" / "3.swc").read_text().splitlines()]
    nodes = [[float(v) for v in r[2:6]] for r in rows if r and r[0].isdigit()]
    assert sorted(nodes) == [[100.0 + 10 * i, 0.0, -40.0, 5.0] for i in range(4)]
    assert own.vertices[0].tolist() == [0.0, 0.0, 0.0], "the caller's own stays where it was"


def test_skeletons_are_merged_without_edges_between_them() -> None:
    """The stand-in for the library's function under NumPy 1."""
    one, two = line(straight(3, (1.0, 0, 0)), 2.0), line(straight(2, (0, 5.0, 0)) + 9, 7.0)
    merged = skeletons._simple_merge([one, Skeleton(), two])
    assert merged.vertices.tolist() == [*one.vertices.tolist(), *two.vertices.tolist()]
    assert merged.edges.tolist() == [[0, 1], [1, 2], [3, 4]]
    assert merged.radii.tolist() == [2.0] * 3 + [7.0] * 2
    assert skeletons._simple_merge([Skeleton()]).empty()


def test_the_library_is_left_as_it_was() -> None:
    before = Skeleton.__dict__["simple_merge"]
    with skeletons._WithNumpy1():
        pass
    assert Skeleton.__dict__["simple_merge"] is before
