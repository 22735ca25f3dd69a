"""The proofreading queue: what would change most comes first, with a reason in words."""

from __future__ import annotations

import numpy as np
import pytest
from proofread_cases import current

from lib.labels.hierarchy import load_hierarchy
from lib.proofread.current import Placed
from lib.proofread.doubts import _pairs, doubts_of, region_around
from lib.proofread.joins import (
    contacts,
    ends_of_map,
    joins_of_fragments,
    joins_of_map,
    load_joins,
)
from lib.proofread.machine import MachineObjects

H = load_hierarchy()
AXON, GLIA = (H.class_names.index(n) + 1 for n in ("axon", "glia"))


def _row(*lengths: int) -> np.ndarray:
    """Fragments 1, 2, ... along x."""
    return np.repeat(np.arange(1, len(lengths) + 1), lengths)[:, None, None] * np.ones(
        (1, 6, 4), np.uint32
    )


def _fragments(logits, objects, *lengths: int):
    ids = np.asfortranarray(_row(*lengths).astype(np.uint32))
    edges = np.array([(n, n + 1) for n in range(1, len(lengths))])
    sizes = np.bincount(ids.ravel())
    owner = np.array([0, *objects])
    joins = joins_of_fragments(ids, owner, edges, np.array(logits, float), sizes)
    return owner[ids].astype(np.uint32), joins


def test_contacts_have_pairs_places_and_faces():
    ids = _row(4, 6).astype(np.uint32)
    ids[ids == 2] = 4_000_000_000
    pairs, places, faces, sides = contacts(ids)
    assert pairs.tolist() == [[1, 4_000_000_000]]
    assert places.tolist() == [[3, 2, 1]]
    assert faces.tolist() == [24]
    assert sides.tolist() == [[[3, 0, 0], [4, 0, 0]]]
    assert len(contacts(np.zeros((3, 3, 3), np.uint32))[0]) == 0


def test_a_cut_of_a_weak_join_changes_the_smaller_part():
    """Fragments 1-2-3 are object 1, 4-5 object 2."""
    _, joins = _fragments([3.0, -0.5, 0.2, 4.0], [1, 1, 1, 2, 2], 10, 5, 8, 6, 4)
    table = {
        (tuple(p), round(float(lo), 1)): int(c)
        for p, lo, c in zip(joins.pairs.tolist(), joins.logits, joins.changes, strict=True)
    }
    voxels = 24
    assert table == {
        ((1, 2), 0.2): 10 * voxels, ((1, 1), 3.0): 10 * voxels, ((1, 1), -0.5): 8 * voxels,
        ((2, 2), 4.0): 4 * voxels,
    }  # fmt: skip


def test_what_would_change_most_comes_first(tmp_path):
    ids, joins = _fragments([3.0, -0.5, -0.2, 4.0], [1, 1, 1, 2, 2], 10, 5, 8, 6, 4)
    objects = current(tmp_path, np.asfortranarray(ids))
    classes = np.array([0, AXON, AXON], np.uint8)
    first, second, *_ = doubts_of(objects, joins, classes, H)
    assert (first.kind, first.object, first.other) == ("merge", 1, 0)
    assert first.place[0] == 14
    assert "axon 1 may be two objects" in first.reason and "58%" in first.reason
    assert (second.kind, second.object, second.other) == ("split", 1, 2)
    assert "axon 1 and axon 2 may be one object" in second.reason


def test_the_places_of_the_object_that_is_worth_most_come_first(tmp_path):
    """One large doubt in object 2; object 1 has two that are smaller, and more together."""
    ids, joins = _fragments([-0.5, -0.4, 9.0, -0.9], [1, 1, 1, 2, 2], 6, 20, 7, 8, 9)
    objects = current(tmp_path, np.asfortranarray(ids))
    found = doubts_of(objects, joins, np.array([0, AXON, GLIA], np.uint8), H)
    inside = [(d.object, d.place[0]) for d in found if d.kind == "merge"]
    assert inside == [(1, 25), (1, 5), (2, 40)]
    assert found[0].score == found[1].score > found[-1].score
    objects.accept(objects.voxels(1), 1, "axon 1")
    assert {d.object for d in doubts_of(objects, joins, np.array([0, AXON, GLIA]), H)} == {2}


def test_pairs_of_voxels_decide_and_odds_count_less(tmp_path):
    """Object 2 is small and likely one with 1; 3 and 4 are large, and hardly one."""
    ids, joins = _fragments([-0.5, -9.0, -3.0], [1, 2, 3, 4], 6, 2, 20, 18)
    objects = current(tmp_path, np.asfortranarray(ids))
    found = doubts_of(objects, joins, np.zeros(5, np.uint8), H)
    assert [(d.object, d.other) for d in found] == [(3, 4), (2, 1)]
    voxels = 24 * np.array([0, 6, 2, 20, 18])
    odds = 1 / (1 + np.exp([9.0, 3.0]))
    pairs = [voxels[2] * voxels[3], voxels[3] * voxels[4]]
    assert found[0].score == pytest.approx((0.2 * odds**0.4 * pairs).sum(), rel=1e-6)
    assert "6%" in found[0].reason and "14%" in found[1].reason
    objects.merge([1, 2])
    assert doubts_of(objects, joins, np.zeros(5, np.uint8), H)[0].score > found[0].score


def test_accepted_and_corrected_ones_do_not_come_again(tmp_path):
    ids, joins = _fragments([3.0, -0.5, 0.2, 4.0], [1, 1, 1, 2, 2], 10, 5, 8, 6, 4)
    objects = current(tmp_path, np.asfortranarray(ids))
    classes = np.array([0, AXON, AXON], np.uint8)
    objects.merge([1, 2])
    kinds = {(d.kind, d.object) for d in doubts_of(objects, joins, classes, H)}
    assert ("split", 1) not in kinds, "joined already"
    objects.undo()
    objects.accept(objects.voxels(2), 2, "axon 2")
    left = doubts_of(objects, joins, classes, H)
    assert {(d.kind, d.object, d.other) for d in left} == {("merge", 1, 0)}
    part = Placed(ids[:15] == 1, ((0, 15), (0, 6), (0, 4)))
    objects.split(part, 1)
    left = doubts_of(objects, joins, classes, H)
    assert [d.place[0] for d in left] == [9], "what a person cut is cut, and the rest is asked"


def test_sizes_of_the_machines_objects_add_up_over_slabs(monkeypatch):
    monkeypatch.setattr("lib.proofread.machine.SLAB_BYTES", 6 * 4 * 12 * 3)
    machine = MachineObjects(np.asfortranarray(_row(4, 9, 2).astype(np.uint32) % 3), "one")
    ids, sizes = machine.sizes
    assert ids.tolist() == [1, 2]
    assert sizes.tolist() == [4 * 24, 9 * 24]
    assert machine.extent(2) == ((4, 13), (0, 6), (0, 4))


def test_ends_inside_the_volume(tmp_path):
    ids = np.zeros((60, 20, 20), np.uint32)
    ids[0:40, 5:10, 5:10] = 1  # ends at 39
    ids[0:60, 12:17, 12:17] = 2  # leaves the volume at both ends
    ids[45:55, 2:10, 2:10] = 3  # round
    joins = ends_of_map(ids, (8.0, 8.0, 8.0))
    assert joins.pairs.tolist() == [[1, 0]]
    assert joins.places[0][0] == 39
    objects = current(tmp_path, np.asfortranarray(ids))
    both = joins_of_map(ids).and_also(joins)
    (end,) = doubts_of(objects, both, np.array([0, AXON, AXON, AXON], np.uint8), H)
    assert (end.kind, end.object) == ("end", 1)
    assert end.reason == "axon 1 ends inside the volume (1,000 voxels)"
    assert doubts_of(objects, both, np.array([0, GLIA, GLIA, GLIA], np.uint8), H) == []


def test_a_map_alone_tells_by_classes_and_sizes(tmp_path):
    ids = np.asfortranarray(_row(10, 5, 8).astype(np.uint32))
    joins = joins_of_map(ids)
    joins.save(tmp_path / "joins.npz")
    again = load_joins(tmp_path / "joins.npz")
    np.testing.assert_array_equal(again.pairs, joins.pairs)
    objects = current(tmp_path, ids)
    found = doubts_of(objects, again, np.array([0, AXON, AXON, GLIA], np.uint8), H)
    assert [(d.object, d.other) for d in found] == [(2, 1), (2, 3)]
    assert found[0].score == found[1].score, "what the object is worth, with all its places"
    (tmp_path / "joins.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="run instances again"):
        load_joins(tmp_path / "joins.npz")


def test_regions_lie_inside():
    assert region_around((1, 50, 9), (100, 100, 10), (20, 20, 4)) == ((0, 20), (40, 60), (6, 10))
    assert region_around((5, 5, 0), (8, 8, 1), (20, 20, 4)) == ((0, 8), (0, 8), (0, 1))


def test_pairs_that_a_correction_puts_right_by_hand() -> None:
    sizes = np.array([[10.0, 4.0], [10.0, 10.0], [10.0, 10.0], [10.0, 10.0]])
    changes = np.array([99, 3, 8, 0])  # the third part cannot be the smaller one
    inner = np.array([False, True, True, False])
    ends = np.array([False, False, False, True])
    assert _pairs(sizes, changes, inner, ends).tolist() == [40.0, 3 * 7, 5 * 5, 100.0]
