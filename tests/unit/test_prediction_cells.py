"""From fragments to cells: what is given away, what cells are called, parts of a map of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joining_cases import chain
from numpy.typing import NDArray

from lib.labels.hierarchy import load_hierarchy
from lib.prediction.agglomeration import (
    SLIDER,
    absorb,
    agglomerate,
    cannot_stand_alone,
    cell_votes,
    compact,
    organelle_classes,
)
from lib.prediction.classes import FINE_VALUE
from lib.prediction.graph import COUNT, MEAN, FragmentGraph
from lib.prediction.joining import PLAIN, JoinModel
from lib.prediction.objects import Fragments, Objects
from lib.prediction.organelles import find_organelles
from lib.volumes.boxes import Box, box_slices

HIERARCHY = load_hierarchy()
AXON, DENDRITE, MITO, NUCLEUS = (
    HIERARCHY.class_names.index(n) + FINE_VALUE
    for n in ("axon", "dendrite", "mitochondria", "nucleus")
)


@st.composite
def graphs(draw: st.DrawFn) -> FragmentGraph:
    """Any few fragments, and contacts between some of them."""
    count = draw(st.integers(1, 9))
    pairs = [(a, b) for a in range(1, count + 1) for b in range(a + 1, count + 1)]
    chosen = sorted(draw(st.sets(st.sampled_from(pairs), max_size=14))) if pairs else []
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    stats = np.zeros((len(chosen), 4, 5))
    stats[:, 0, COUNT] = rng.integers(1, 50, len(chosen))
    stats[:, 0, MEAN] = rng.random(len(chosen))
    votes = np.zeros((count + 1, 13), np.int64)
    votes[1:, AXON] = rng.integers(1, 60, count)
    return FragmentGraph(np.array(chosen, np.int64).reshape(-1, 2), stats, votes)


def without_gaps(cells: NDArray[np.int64]) -> bool:
    return cells[0] == 0 and np.unique(cells).tolist() == list(range(int(cells.max()) + 1))


@settings(max_examples=50)
@given(graphs(), st.floats(-1, 1))
def test_cells_have_no_gaps_and_the_slider_of_all_merges_all_that_touch(
    graph: FragmentGraph, slider: float
) -> None:
    logits = np.clip(PLAIN.logits(graph), -SLIDER + 0.1, SLIDER - 0.1)
    for place in (-1.0, slider, 1.0):
        assert without_gaps(agglomerate(graph, logits, place))
    alone = agglomerate(graph, logits, -1.0)
    assert alone.tolist() == list(range(graph.count + 1)), "every contact speaks against it"
    together = agglomerate(graph, logits, 1.0)
    assert (together[graph.edges[:, 0]] == together[graph.edges[:, 1]]).all()


def test_the_slider_adds_three_log_odds_at_its_ends() -> None:
    graph = chain([0.5])
    joined = ((-2.9, 1.0), (3.1, -1.0), (-1.4, 0.5))
    apart = ((-3.1, 1.0), (2.9, -1.0), (-1.6, 0.5))
    for logit, place in (*joined, *apart):
        found = agglomerate(graph, np.array([logit]), place)
        assert (found[1] == found[2]) == ((logit, place) in joined)


def test_what_a_contact_weighs_grows_with_the_root_of_its_pairs() -> None:
    """A triangle: 3 from one contact of 9 pairs, against 1 + 1.5 from contacts of one."""
    edges = np.array([[1, 2], [1, 3], [2, 3]])
    stats = np.zeros((3, 4, 5))
    stats[:, 0, COUNT] = [9, 1, 1]
    graph = FragmentGraph(edges, stats, np.ones((4, 13), np.int64))
    assert agglomerate(graph, np.array([-1.0, 1.4, 1.5])).tolist() == [0, 1, 2, 2]
    assert agglomerate(graph, np.array([-0.2, 1.4, 1.5])).tolist() == [0, 1, 1, 1]


@settings(max_examples=40)
@given(graphs(), st.integers(1, 60))
def test_crumbs_go_where_they_touch_and_others_are_never_merged(
    graph: FragmentGraph, crumb: int
) -> None:
    logits = PLAIN.logits(graph)
    cells = agglomerate(graph, logits)
    count = int(cells.max()) + 1
    small = np.bincount(cells, graph.sizes, count) < crumb
    before = small.copy()
    found = absorb(graph, logits, cells, small)
    assert without_gaps(found) and np.array_equal(small, before)
    for cell in range(1, count):
        assert len(set(found[cells == cell].tolist())) == 1, "cells are never cut"
    kept = {c: int(found[cells == c][0]) for c in range(1, count)}
    large = [c for c in range(1, count) if not small[c]]
    assert len({kept[c] for c in large}) == len(large)
    for one, other in cells[graph.edges].tolist():
        if one == other:
            continue
        for cell in (c for c in (one, other) if small[c]):
            assert list(kept.values()).count(kept[cell]) > 1, "a crumb that touches is given away"


def test_an_organelle_does_not_swallow_a_cell_that_is_smaller() -> None:
    graph = chain([0.9])
    graph.votes[1, AXON], graph.votes[2, AXON] = 40, 50
    small = np.array([False, False, True])
    assert absorb(graph, PLAIN.logits(graph), np.arange(3), small).tolist() == [0, 1, 2]
    graph.votes[1, AXON] = 60
    assert absorb(graph, PLAIN.logits(graph), np.arange(3), small).tolist() == [0, 1, 1]


def test_a_row_of_crumbs_is_given_to_the_one_that_can_stand() -> None:
    graph = chain([0.2, 0.6, 0.7, 0.9])
    graph.votes[1:, AXON - 1] = 0
    graph.votes[1:, AXON] = [100, 5, 4, 3, 200]
    small = np.array([False, False, True, True, True, False])
    assert absorb(graph, PLAIN.logits(graph), np.arange(6), small).tolist() == [0, 1, 2, 2, 2, 2]
    none = np.zeros(6, bool)
    assert absorb(graph, PLAIN.logits(graph), np.arange(6), none).tolist() == list(range(6))


def test_crumbs_that_touch_only_each_other_become_one() -> None:
    graph = chain([0.5])
    found = absorb(graph, PLAIN.logits(graph), np.array([0, 1, 2]), np.array([True, True, True]))
    assert found.tolist() == [0, 1, 1]


def test_what_half_of_a_cell_says_is_not_most_of_it() -> None:
    graph = chain([0.5])
    graph.votes[1:] = 0
    graph.votes[1, [AXON, MITO]] = 50, 50
    graph.votes[2, [AXON, MITO]] = 49, 50
    found = cannot_stand_alone(graph, np.array([0, 1, 2]), HIERARCHY, 99)
    assert found[1:].tolist() == [False, True], "as large as a crumb may not be is large enough"
    assert cannot_stand_alone(graph, np.array([0, 1, 2]), HIERARCHY, 100)[1:].tolist() == [
        False,
        True,
    ]
    together = cannot_stand_alone(graph, np.array([0, 1, 1]), HIERARCHY, 0)
    assert together[1:].tolist() == [True], "100 of 199 are organelle"


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_compact_keeps_the_partition_and_numbers_by_first_fragment(labels: list[int]) -> None:
    given_labels = np.array([0, *labels])
    found = compact(given_labels)
    assert without_gaps(found)
    order = list(dict.fromkeys(labels))
    assert found[1:].tolist() == [order.index(label) + 1 for label in labels]


def test_votes_of_cells_are_those_of_their_fragments() -> None:
    graph = chain([0.5, 0.5])
    graph.votes[:] = np.arange(4 * 13).reshape(4, 13)
    votes = cell_votes(graph, np.array([0, 1, 2, 1]))
    assert np.array_equal(votes[1], graph.votes[1] + graph.votes[3])
    assert np.array_equal(votes[2], graph.votes[2]) and len(votes) == 3


# Objects ---------------------------------------------------------------------------------------


def test_a_cell_is_called_what_it_is_beside_its_organelles() -> None:
    graph = chain([0.0, 0.0])
    graph.votes[:] = 0
    graph.votes[1, [AXON, DENDRITE, MITO]] = 30, 25, 45
    graph.votes[2, [DENDRITE, AXON]] = 60, 50
    graph.votes[3, MITO] = 70
    graph.votes[0, AXON] = 33
    ids = np.array([0, 1, 2, 3], np.uint32).reshape(4, 1, 1)
    found = Fragments(ids, graph).objects(JoinModel(offset=-50.0), HIERARCHY, 0)
    # what is organelle alone was given to the cell beside it, where it does not vote
    assert found.of_fragments.tolist() == [0, 1, 2, 2]
    assert found.classes.tolist() == [0, AXON, DENDRITE]
    assert found.sizes.tolist() == [33, 100, 180]
    assert np.array_equal(found.ids, found.of_fragments.astype(np.uint32)[ids])


def objects(ids: NDArray[np.uint32], of_fragments: list[int]) -> Objects:
    count = int(ids.max(initial=0))
    classes = np.array([0, *(10 + i for i in range(count))], np.uint8)
    return Objects(ids, classes, np.bincount(ids.ravel(), minlength=count + 1),
                   np.array(of_fragments))  # fmt: skip


def test_the_largest_share_tells_that_all_were_merged() -> None:
    row = np.array([0, 0, 1, 1, 1, 2], np.uint32).reshape(6, 1, 1)
    assert objects(row, [0]).largest_share == pytest.approx(0.75)
    assert objects(np.zeros((2, 2, 2), np.uint32), [0]).largest_share == 0.0


@settings(max_examples=40)
@given(seed=st.integers(0, 9999), most=st.integers(0, 5))
def test_a_part_has_the_objects_that_lie_in_it(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, most + 1, (5, 4, 3)).astype(np.uint32)
    used = np.unique(np.append(0, ids))
    ids = np.searchsorted(used, ids).astype(np.uint32)
    count = int(ids.max())
    fragments = [0, *rng.integers(0, count + 1, 6).tolist()]
    whole = objects(ids, fragments)
    box: Box = ((1, 3), (0, 2), (1, 3))
    part = whole.within(box)
    cut = ids[box_slices(box)]
    names = {int(o): int(n) for o, n in zip(cut.ravel(), part.ids.ravel(), strict=True)}
    assert sorted(n for n in names.values() if n) == list(range(1, part.count + 1))
    assert names.get(0, 0) == 0 and part.ids.dtype == np.uint32 and part.ids.flags.c_contiguous
    for old, new in names.items():
        assert part.sizes[new] == (cut == old).sum()
        assert part.classes[new] == whole.classes[old]
    assert part.of_fragments.tolist() == [names.get(f, 0) for f in fragments]


# Organelles ------------------------------------------------------------------------------------


def test_pieces_touch_by_faces_and_are_of_one_class() -> None:
    classes = np.full((4, 3, 1), AXON, np.uint8)
    classes[0, 0], classes[1, 1] = MITO, MITO  # by an edge only
    classes[2, 1] = NUCLEUS
    found = find_organelles(classes, np.ones(classes.shape, np.uint32), HIERARCHY, 1)
    assert found.count == 3 and sorted(found.classes[1:].tolist()) == sorted([MITO, MITO, NUCLEUS])
    assert find_organelles(classes, np.ones(classes.shape, np.uint32), HIERARCHY, 2).count == 0


def test_of_two_cells_that_share_an_organelle_the_first_one_has_it() -> None:
    classes = np.full((4, 1, 1), MITO, np.uint8)
    cells = np.array([7, 7, 3, 3], np.uint32).reshape(4, 1, 1)
    found = find_organelles(classes, cells, HIERARCHY, 1)
    assert found.cells.tolist() == [0, 3] and found.shares.tolist() == [0.0, 0.5]
    nowhere = find_organelles(classes, np.array([0, 0, 0, 3], np.uint32).reshape(4, 1, 1),
                              HIERARCHY, 1)  # fmt: skip
    assert nowhere.cells.tolist() == [0, 0] and nowhere.shares[1] == 0.75


def test_ids_of_any_height_are_cells() -> None:
    classes = np.full((3, 1, 1), MITO, np.uint8)
    high = 2**32 - 2
    cells = np.array([high, high, 1], np.uint32).reshape(3, 1, 1)
    found = find_organelles(classes, cells, HIERARCHY, 1)
    assert found.cells.tolist() == [0, high] and found.sizes.tolist() == [0, 3]
    assert found.shares[1] == pytest.approx(2 / 3)


def test_organelles_are_the_classes_that_lie_inside_others() -> None:
    names = [HIERARCHY.class_names[c] for c in organelle_classes(HIERARCHY)]
    assert names == ["nucleus", "mitochondria", "fat globule"]
