"""Rows of a table of objects: cells, contacts, organelles and sheaths, on maps drawn by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from lib.labels.hierarchy import load_hierarchy
from lib.shapes.chosen import ItemObjects
from lib.shapes.measuring import contacts_of, measure

H = load_hierarchy()
AXON, DENDRITE, MYELIN, TONGUE, MITO, NUCLEUS = (
    H.class_names.index(n)
    for n in ("axon", "dendrite", "myelin", "myelin inner tongue", "mitochondria", "nucleus")
)
SIZE = (4.0, 5.0, 40.0)
FACES = (5 * 40, 4 * 40, 4 * 5)
"""nm^2 of a voxel's face across x, y and z."""


def objects(ids: NDArray[Any], classes: dict[int, int] | None = None, **more: Any) -> ItemObjects:
    """Objects of an item at the origin, without names unless some are given."""
    told = {"names": {}, "accepted": frozenset(), "origin_voxels": (0, 0, 0)}
    told |= {"voxel_size_nm": SIZE} | more
    return ItemObjects(np.asfortranarray(ids, np.uint32), classes=classes or {}, **told)


def rows(*args: Any, **more: Any) -> dict[int, dict[str, Any]]:
    """Rows of a table by their objects."""
    return {row["object"]: row for row in measure(objects(*args, **more), H)}


def boxes(**places: tuple[slice, slice, slice]) -> NDArray[np.uint32]:
    """A map of 12 x 12 x 8 voxels with boxes of the ids in it, later ones over earlier ones."""
    ids = np.zeros((12, 12, 8), np.uint32)
    for name, place in places.items():
        ids[place] = int(name[1:])
    return ids


ALL = slice(None)


@settings(max_examples=40, deadline=None)
@given(
    ids=arrays(np.uint32, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 3)),
)
def test_contacts_are_the_faces_that_a_plain_loop_counts(ids) -> None:
    expected: dict[int, dict[int, float]] = {}
    for axis, face in enumerate(FACES):
        moved = np.moveaxis(ids, axis, 0)
        for a, b in zip(moved[:-1].ravel().tolist(), moved[1:].ravel().tolist(), strict=True):
            for one, other in ((a, b), (b, a)):
                if a and b and a != b:
                    near = expected.setdefault(one, {})
                    near[other] = near.get(other, 0.0) + face
    found = contacts_of(np.asfortranarray(ids), SIZE)
    assert found.keys() == expected.keys()
    for one, near in expected.items():
        assert found[one] == pytest.approx(near)
        assert list(found[one].values()) == sorted(found[one].values(), reverse=True)


def test_objects_that_meet_at_an_edge_alone_do_not_touch() -> None:
    ids = np.zeros((2, 2, 2), np.uint32)
    ids[0, 0, 0], ids[1, 1, 0], ids[1, 0, 1] = 1, 2, 3
    assert contacts_of(ids, SIZE) == {}


def test_an_organelle_lies_in_the_cell_that_it_touches_most() -> None:
    ids = boxes(
        o1=(slice(0, 6), ALL, ALL), o2=(slice(6, 12), ALL, ALL),
        o3=(slice(2, 7), slice(4, 8), slice(2, 6)),
    )  # fmt: skip
    found = rows(ids, {1: DENDRITE, 2: AXON, 3: MITO})
    assert (found[1]["cell"], found[2]["cell"], found[3]["cell"]) == (1, 2, 1)
    assert (found[1]["mitochondria"], found[2]["mitochondria"]) == (1, 0)
    assert found[3]["mitochondria"] is None, "an organelle holds none"


def test_other_organelles_are_no_mitochondria() -> None:
    ids = boxes(
        o1=(ALL, ALL, ALL), o2=(slice(2, 4), slice(2, 4), slice(2, 4)),
        o3=(slice(6, 9), slice(2, 4), slice(2, 4)), o4=(slice(6, 9), slice(6, 9), ALL),
    )  # fmt: skip
    found = rows(ids, {1: DENDRITE, 2: NUCLEUS, 3: MITO, 4: MITO})
    assert found[1]["mitochondria"] == 2
    assert {found[i]["cell"] for i in (2, 3, 4)} == {1}


def test_organelles_in_a_row_are_of_the_cell_and_not_of_each_other() -> None:
    """A mitochondrion that touches its neighbour most is none the less of the cell."""
    ids = boxes(
        o2=(slice(2, 5), slice(2, 10), slice(1, 7)), o3=(slice(5, 8), slice(2, 10), slice(1, 7)),
        o1=(slice(4, 6), slice(10, 12), slice(0, 8)),
    )  # fmt: skip
    found = rows(ids, {1: AXON, 2: MITO, 3: MITO})
    assert found[2]["touches"].startswith("3:") and found[3]["touches"].startswith("2:")
    assert (found[2]["cell"], found[3]["cell"]) == (1, 1)


def test_an_organelle_that_touches_no_cell_has_none() -> None:
    found = rows(boxes(o5=(slice(3, 6), slice(3, 6), slice(3, 6))), {5: MITO})
    assert found[5]["cell"] is None and found[5]["mitochondria"] is None
    assert found[5]["contacts"] == 0 and found[5]["touches"] == "" and found[5]["contact_um2"] == 0


@pytest.mark.parametrize("classes", [{}, {7: AXON}], ids=["of unknown class", "an axon"])
def test_a_cell_that_touches_nothing_is_its_own(classes: dict[int, int]) -> None:
    row = rows(boxes(o7=(slice(3, 6), slice(3, 6), slice(3, 6))), classes)[7]
    assert row["cell"] == 7 and row["mitochondria"] == 0


def test_places_are_those_of_the_source() -> None:
    ids = boxes(o9=(slice(2, 5), slice(4, 8), slice(1, 7)))
    row = rows(ids, {}, origin_voxels=(100, 20, 3))[9]
    low = [row[f"low_{a}_nm"] for a in "xyz"]
    high = [row[f"high_{a}_nm"] for a in "xyz"]
    centre = [row[f"centre_{a}_nm"] for a in "xyz"]
    assert low == [102 * 4, 24 * 5, 4 * 40]
    assert high == [105 * 4, 28 * 5, 10 * 40]
    assert centre == pytest.approx([103.5 * 4, 26 * 5, 7 * 40])
    assert row["voxels"] == 3 * 4 * 6
    assert row["volume_um3"] == pytest.approx(72 * 4 * 5 * 40 / 1e9)
    row = rows(ids, {}, origin_voxels=(100, 20, 3), source_nm=(80.0, 0.0, -400.0))[9]
    assert [row[f"low_{a}_nm"] for a in "xyz"] == [102 * 4 + 80, 24 * 5, 4 * 40 - 400]
    assert row["centre_x_nm"] == pytest.approx(103.5 * 4 + 80)


def test_contacts_are_told_with_their_areas_the_largest_first() -> None:
    ids = boxes(
        o1=(slice(0, 6), ALL, ALL), o2=(slice(6, 12), ALL, ALL), o30=(slice(0, 2), ALL, slice(0, 1))
    )
    row = rows(ids)[1]
    large, small = 12 * 8 * 200, 2 * 12 * 20 + 12 * 200
    assert row["touches"] == f"2:{large / 1e6:.6g};30:{small / 1e6:.6g}"
    assert row["contacts"] == 2 and row["contact_um2"] == pytest.approx((large + small) / 1e6)


def test_names_and_acceptance_follow_the_ids() -> None:
    ids = boxes(o40=(slice(0, 3), ALL, ALL), o8=(slice(5, 8), ALL, ALL))
    found = rows(ids, {40: AXON}, names={40: "axon 40", 99: "gone"}, accepted=frozenset({8, 99}))
    assert list(found) == [8, 40]
    assert (found[40]["name"], found[40]["class"], found[40]["accepted"]) == (
        "axon 40",
        "axon",
        False,
    )
    assert (found[8]["name"], found[8]["class"], found[8]["accepted"]) == ("", "", True)


def test_some_objects_are_measured_with_all_of_their_neighbours() -> None:
    ids = boxes(o1=(slice(0, 6), ALL, ALL), o2=(slice(6, 12), ALL, ALL))
    every, (one,) = rows(ids, {1: AXON}), measure(objects(ids, {1: AXON}), H, only=[1, 77])
    assert one == every[1] and one["touches"].startswith("2:")


def test_a_map_without_objects_has_no_rows() -> None:
    assert measure(objects(np.zeros((4, 4, 2), np.uint32)), H) == []


def _cable(sheath: slice, tongue: bool = False) -> dict[int, dict[str, Any]]:
    """Rows of a square axon 1 along x in a dendrite 4, with a sheath 2 where it is said."""
    ids = np.full((60, 24, 24), 4, np.uint32)
    if tongue:
        ids[sheath, 4:20, 4:20] = 3
    ids[sheath, 6:18, 6:18] = 2
    ids[:, 9:15, 9:15] = 1
    classes = {1: AXON, 2: MYELIN, 3: TONGUE, 4: DENDRITE}
    return rows(ids, classes, voxel_size_nm=(10.0, 10.0, 10.0))


@pytest.mark.parametrize(("end", "sheathed"), [(60, True), (33, True), (27, False), (0, False)])
def test_an_axon_is_myelinated_when_half_of_what_it_touches_is_sheath(end, sheathed) -> None:
    row = _cable(slice(0, end))[1]
    assert row["diameter_nm"] == pytest.approx(60 * 2 / np.sqrt(np.pi), rel=0.02)
    assert (row["g_ratio"] is not None) is sheathed
    assert (row["myelin_nm"] is not None) is (row["fibre_diameter_nm"] is not None) is sheathed
    if end == 60:
        assert row["fibre_diameter_nm"] == pytest.approx(120 * 2 / np.sqrt(np.pi), rel=0.02)
        assert row["myelin_nm"] == pytest.approx(60 / np.sqrt(np.pi), rel=0.02)
        assert row["g_ratio"] == pytest.approx(0.5, rel=0.02)


def test_the_outer_parts_of_a_sheath_belong_to_the_fibre() -> None:
    """They need not touch the axon."""
    row = _cable(slice(0, 60), tongue=True)[1]
    assert row["fibre_diameter_nm"] == pytest.approx(160 * 2 / np.sqrt(np.pi), rel=0.02)
    assert row["g_ratio"] == pytest.approx(6 / 16, rel=0.02)


def test_only_axons_have_diameters_and_progress_counts_them() -> None:
    assert all(r["diameter_nm"] is None for i, r in _cable(slice(0, 60)).items() if i != 1)
    told: list[tuple[int, int]] = []
    ids = boxes(o1=(slice(0, 4), ALL, ALL), o2=(slice(4, 8), ALL, ALL), o3=(slice(8, 12), ALL, ALL))
    measure(objects(ids, {1: AXON, 2: DENDRITE, 3: AXON}), H, progress=lambda *d: told.append(d))
    assert told == [(1, 2), (2, 2)]
