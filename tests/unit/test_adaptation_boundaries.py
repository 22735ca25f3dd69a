"""What marks say of boundaries: against a plain loop, at the rims, in thick and thin sections."""

from __future__ import annotations

import numpy as np
import pytest
from adaptation_cases import HIERARCHY
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lib.adaptation.annotated import PARTS, _moved, _parts, annotated, longer_axes, middles
from lib.adaptation.boundaries import (
    BETWEEN,
    INSIDE,
    UNKNOWN,
    boundary_targets,
    goes_on,
)
from lib.prediction.boundary import has_thick_sections
from lib.prediction.graph import REACHES, FragmentGraph

CUBES, SLABS = (10.0, 10.0, 10.0), (10.0, 10.0, 50.0)


def around(
    ids: NDArray[np.int64], at: tuple[int, ...], reach: tuple[int, int, int]
) -> NDArray[np.int64]:
    """The ids within a reach of a voxel, those outside the volume left out."""
    x, y, z = (slice(max(0, v - r), v + r + 1) for v, r in zip(at, reach, strict=True))
    return ids[x, y, z].ravel()


def by_loops(
    ids: NDArray[np.int64], unlabelled: NDArray[np.bool_], voxel_size_nm: tuple[float, ...]
) -> NDArray[np.int8]:
    """`boundary_targets`, voxel by voxel."""
    across = not has_thick_sections(voxel_size_nm) and goes_on(ids)
    wide = [max(1, round(3.0 * min(voxel_size_nm) / v)) for v in voxel_size_nm]
    x, y, z = wide[0], wide[1], wide[2] if across else 0
    out = np.full(ids.shape, UNKNOWN, np.int8)
    for at in np.ndindex(ids.shape):
        far = set(around(ids, at, (x, y, z)).tolist())
        objects = {i for i in far if i > 0}
        if ids[at] > 0:
            near = set(around(ids, at, (1, 1, int(across))).tolist())
            if len({i for i in near if i > 0}) > 1:
                out[at] = BETWEEN
            elif near == {ids[at]}:
                out[at] = INSIDE
        elif (unlabelled[at] and len(objects) > 1) or (ids[at] == 0 and objects):
            out[at] = BETWEEN
    return out


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)),
    sizes=st.sampled_from([CUBES, SLABS, (5.0, 10.0, 10.0), (10.0, 30.0, 10.0)]),
    seed=st.integers(0, 9999),
)
def test_targets_are_those_of_a_plain_loop(
    shape: tuple[int, int, int], sizes: tuple[float, float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.choice([-1, 0, 1, 2, 2**40], [-(-n // 2) for n in shape])
    ids = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)[: shape[0], : shape[1], : shape[2]]
    unlabelled = (ids < 0) & (rng.random(shape) < 0.7)
    found = boundary_targets(ids, unlabelled, sizes)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, by_loops(ids, unlabelled, sizes))


def test_ground_that_is_no_object_ends_one() -> None:
    ids = np.full((9, 9, 1), -1, np.int64)
    ids[:4] = 5
    ids[4:] = 0
    found = boundary_targets(ids, ids < 0, SLABS)
    assert (found[4:7] == BETWEEN).all(), "within three voxels of the object"
    assert (found[7:] == UNKNOWN).all(), "what is far from any"
    assert (found[3] == UNKNOWN).all() and (found[:3] == INSIDE).all()


def test_one_voxel_and_nothing_at_all() -> None:
    for value, expected in ((3, INSIDE), (0, UNKNOWN), (-1, UNKNOWN)):
        ids = np.full((1, 1, 1), value, np.int64)
        assert boundary_targets(ids, ids < 0, CUBES).item() == expected


def test_an_object_goes_on_where_the_next_section_has_it_in_the_same_place() -> None:
    ids = np.zeros((4, 4, 3), np.int64)
    ids[:2, :, 0], ids[2:, :, 1] = 1, 1
    assert not goes_on(ids), "it is elsewhere in the next section"
    ids[0, 0, 2] = 7
    ids[0, 0, 1] = 7
    assert goes_on(ids)
    assert not goes_on(np.full((2, 2, 3), -1)), "unknown goes on, which says nothing"
    assert not goes_on(np.zeros((2, 2, 3))) and not goes_on(np.ones((2, 2, 1)))


def blobs() -> NDArray[np.int64]:
    """Objects 1 to 4 in the corners of a long volume."""
    ids = np.full((20, 10, 2), -1, np.int64)
    ids[1:4, 1:4], ids[1:4, 6:9], ids[16:19, 1:4], ids[16:19, 6:9] = 1, 2, 3, 4
    return ids


def test_middles_are_the_means_of_voxels() -> None:
    ids, middle = middles(blobs())
    assert ids.tolist() == [1, 2, 3, 4]
    assert middle.tolist() == [[2, 2, 0.5], [2, 7, 0.5], [17, 2, 0.5], [17, 7, 0.5]]
    assert longer_axes(middle).tolist() == [0, 1]
    assert longer_axes(middle[:, [2, 1, 0]]).tolist() == [2, 1]
    none = middles(np.full((2, 2, 2), -1, np.int64))
    assert len(none[0]) == 0 and none[1].shape == (0, 3)


def test_quarters_are_halves_along_both_axes() -> None:
    parts = _parts(blobs())
    assert len(set(parts.values())) == PARTS and set(parts) == {1, 2, 3, 4}
    assert parts[1] == 0 and parts[4] == 3
    assert _parts(np.zeros((3, 3, 3), np.int64)) == {}


def test_marks_moved_elsewhere_stay_as_many_and_share_no_number_around_the_edge() -> None:
    ids = np.zeros((8, 8, 2), np.int64)
    ids[:, :4], ids[:, 4:] = 1, 2
    moved = list(_moved(ids, 1))
    assert len(moved) == 3
    for found, several in zip(moved, (4, 3, 6), strict=True):
        assert (found > 0).sum() == ids.size
        assert len(np.unique(found)) == several, "what comes in again is another object"
    assert ids.max() == 2, "the marks themselves stay"


def test_moved_marks_of_sections_keep_their_sections() -> None:
    """A number tells its section: number % depth."""
    cells = np.stack([np.full((8, 8), 1 * 3 + z) for z in range(3)], -1)
    for found in _moved(cells, 3):
        assert (found % 3 == np.arange(3)).all()
        assert found.max() > cells.max()


def volume(sectionwise: bool = False) -> tuple[NDArray[np.int64], object]:
    """Two objects whose fragments are themselves."""
    ids = blobs()
    fragments = np.where(ids > 0, ids, 0).astype(np.uint32)
    votes = np.zeros((5, HIERARCHY.num_classes + 1), np.int64)
    graph = FragmentGraph(np.zeros((0, 2), np.int64), np.zeros((0, len(REACHES), 5)), votes)
    sets = np.full(ids.shape, HIERARCHY.unknown, np.int32)
    return ids, annotated(graph, fragments, ids, sets, HIERARCHY, sectionwise)


@pytest.mark.parametrize("sectionwise", [False, True])
def test_errors_are_of_each_quarter_of_the_others_and_of_all(sectionwise: bool) -> None:
    _, made = volume(sectionwise)
    right = made.errors(np.arange(5))  # type: ignore[attr-defined]
    assert right.shape == (2 * PARTS + 1, 2) and right[:, 0] == pytest.approx(0.0)
    assert right[:PARTS, 1].tolist() == [18.0] * 4, "voxels of a quarter"
    assert right[PARTS : 2 * PARTS, 1].tolist() == [54.0] * 4 and right[-1, 1] == 72.0
    merged = made.errors(np.array([0, 1, 1, 3, 4]))  # type: ignore[attr-defined]
    wrong = merged[:PARTS, 0] > 0.1
    parts = made.part  # type: ignore[attr-defined]
    if not sectionwise:
        assert wrong[[parts[1], parts[2]]].all() and not wrong[[parts[3], parts[4]]].any()
    assert merged[-1, 0] > 0.1


def test_marks_elsewhere_are_worse_than_where_they_are() -> None:
    _, made = volume()
    own = np.arange(5)
    assert made.chance(own) > made.errors(own)[-1, 0] + 0.1  # type: ignore[attr-defined]


def test_organelles_and_what_is_no_object_are_no_cells() -> None:
    ids, _ = volume()
    ids = np.where(ids < 0, 0, ids)
    sets = np.full(ids.shape, HIERARCHY.unknown, np.int32)
    sets[ids == 2] = HIERARCHY.set_named("mitochondria")
    fragments = np.zeros(ids.shape, np.uint32)
    votes = np.zeros((1, HIERARCHY.num_classes + 1), np.int64)
    graph = FragmentGraph(np.zeros((0, 2), np.int64), np.zeros((0, len(REACHES), 5)), votes)
    made = annotated(graph, fragments, ids, sets, HIERARCHY)
    assert set(made.part) == {1, 3, 4}
