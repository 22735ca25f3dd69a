"""The fragment graph: contacts, log odds and the cells that follow."""

import numpy as np
import pytest
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.multicut import GreedyAdditiveMulticut, MulticutObjective
from joining_cases import chain

from lib.labels.hierarchy import load_hierarchy
from lib.prediction import agglomeration
from lib.prediction.agglomeration import absorb, agglomerate, cannot_stand_alone, compact
from lib.prediction.boundary import boundary_histogram, boundary_map, boundary_scale
from lib.prediction.graph import (
    COUNT,
    LEAST,
    MEAN,
    MOST,
    SQUARES,
    FragmentGraph,
    contacts_of_block,
    merge_contacts,
    pooled,
    reach_of,
)
from lib.prediction.joining import PLAIN

ISOTROPIC = (10.0, 10.0, 10.0)


def test_contacts_by_hand() -> None:
    fragments = np.array([1, 1, 2, 2, 0, 3], np.uint32).reshape(6, 1, 1)
    affinities = np.zeros((2, 6, 1, 1), np.float16)
    affinities[0, :, 0, 0] = [1.0, -0.5, 1.0, 0.0, 0.0, 0.0]
    affinities[1, :, 0, 0] = [0.5, 0.25, 0.0, 0.0, 0.0, 0.0]
    offsets = ((1, 0, 0), (2, 0, 0))
    whole = ((0, 6), (0, 1), (0, 1))
    found = contacts_of_block(fragments, affinities, offsets, ISOTROPIC, whole)
    graph = merge_contacts([found], np.zeros((4, 2), np.int64))
    assert graph.edges.tolist() == [[1, 2]]  # 3 touches nothing but background
    assert graph.stats[0, 0].tolist() == [1, 0.25, 0, 0.25, 0.25]
    near = graph.stats[0, 2]  # pairs (0, 2) and (1, 3): 0.75 and 0.625
    assert near[[COUNT, MEAN, LEAST, MOST]].tolist() == [2, 0.6875, 0.625, 0.75]
    assert near[SQUARES] == pytest.approx(2 * 0.0625**2)
    assert graph.stats[0, 1, COUNT] == graph.stats[0, 3, COUNT] == 0
    assert graph.contact.tolist() == [1.0] and graph.mean_affinity().tolist() == [0.25]


def test_reaches_go_by_nm() -> None:
    sections = (4.0, 4.0, 40.0)
    assert [reach_of(o, sections) for o in ((1, 0, 0), (0, 0, 1), (0, 3, 0), (9, 0, 0))] == [
        0,
        1,
        2,
        3,
    ]
    assert reach_of((0, 0, 2), sections) == 3


def test_the_boundary_map_by_hand() -> None:
    affinities = np.array([1.0, -1.0, 0.0, 0.0], np.float16).reshape(1, 4, 1, 1)
    foreground = np.array([True, True, True, False]).reshape(4, 1, 1)
    found = boundary_map(affinities, ((1, 0, 0),), foreground, ISOTROPIC)
    assert found.ravel().tolist() == [0.0, 1.0, 1.0, 1.0]
    scale = boundary_scale([boundary_histogram(found, foreground)])
    assert scale.strong == 1.0 and 0.0 < scale.inside < 1.0


def test_across_thick_sections_nothing_is_a_boundary() -> None:
    affinities = np.full((1, 2, 2, 2), -1.0, np.float16)
    foreground = np.ones((2, 2, 2), np.bool_)
    assert not boundary_map(affinities, ((0, 0, 1),), foreground, (4.0, 4.0, 40.0)).any()
    assert boundary_map(affinities, ((0, 0, 1),), foreground, ISOTROPIC).all()


def test_cells_follow_from_the_contacts_and_the_slider() -> None:
    graph = chain([0.95, 0.2, 0.75, 0.6])
    logits = PLAIN.logits(graph)
    assert agglomerate(graph, logits).tolist() == [0, 1, 1, 2, 2, 3]
    assert agglomerate(graph, logits, -1.0).max() > agglomerate(graph, logits).max()
    assert agglomerate(graph, logits, 1.0).max() < agglomerate(graph, logits).max()


@pytest.mark.parametrize("together", [1, 20, 10**6])
def test_what_cannot_be_joined_is_decided_apart_as_in_one(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agglomeration, "TOGETHER", together)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        pairs = np.unique(np.sort(rng.integers(1, 61, (150, 2)), 1), axis=0)
        edges = pairs[pairs[:, 0] < pairs[:, 1]]
        stats = np.zeros((len(edges), 4, 5))
        stats[:, 0, COUNT] = rng.integers(1, 30, len(edges))
        graph = FragmentGraph(edges, stats, np.ones((61, 13), np.int64))
        logits = rng.normal(-0.8, 2.0, len(edges))
        whole = UndirectedGraph.from_unique_edges(61, edges.astype(np.uint64))
        costs = logits * np.sqrt(graph.contact)
        in_one = GreedyAdditiveMulticut().optimize(MulticutObjective(whole, costs))
        found = agglomerate(graph, logits)
        assert 5 < found.max() < 55
        assert found.tolist() == compact(np.asarray(in_one)).tolist()


def test_many_contacts_outvote_one() -> None:
    """Three fragments around a corner: the long boundary wins against the hole beside it."""
    edges = np.array([[1, 2], [1, 3], [2, 3]])
    stats = np.zeros((3, 4, 5))
    stats[:, 0, COUNT], stats[:, 0, MEAN] = [4, 400, 400], [0.9, 0.3, 0.95]
    graph = FragmentGraph(edges, stats, np.full((4, 13), 9, np.int64))
    assert agglomerate(graph, PLAIN.logits(graph)).tolist() == [0, 1, 2, 2]


def test_small_cells_join_the_neighbour_that_speaks_most_for_them() -> None:
    graph = chain([0.3, 0.5])
    cells = np.array([0, 1, 2, 3])
    small = np.array([False, False, True, False])
    assert absorb(graph, PLAIN.logits(graph), cells, small).tolist() == [0, 1, 2, 2]
    alone, one = chain([]), np.array([0, 1])
    assert absorb(alone, PLAIN.logits(alone), one, one > 0).tolist() == [0, 1]


def test_organelles_and_crumbs_cannot_stand_alone() -> None:
    hierarchy = load_hierarchy()
    graph = chain([0.5, 0.5])
    graph.votes[2] = 0
    graph.votes[2, hierarchy.class_names.index("nucleus") + 1] = 100
    graph.votes[3, 4] = 7
    cells = np.array([0, 1, 2, 3])
    found = cannot_stand_alone(graph, cells, hierarchy, 8)
    assert found[1:].tolist() == [False, True, True]


def test_compact_numbers_by_first_fragment() -> None:
    assert compact(np.array([7, 5, 5, 2, 5, 9])).tolist() == [0, 1, 1, 2, 1, 3]


def test_clusters_pool_what_their_fragments_know() -> None:
    """Fragments 1, 2 | 3, 4: two contacts between the clusters become one, two vanish."""
    edges = np.array([[1, 2], [1, 3], [2, 4], [3, 4]])
    stats = np.zeros((4, 4, 5))
    stats[1, 0] = [4, 0.25, 0.3, 0.1, 0.5]
    stats[2, 0] = [12, 0.75, 0.2, 0.0, 0.9]
    stats[2, 1] = [2, 0.5, 0.1, 0.4, 0.6]
    votes = np.arange(10).reshape(5, 2)
    graph, between, index = FragmentGraph(edges, stats, votes).contracted(np.array([0, 1, 1, 2, 2]))
    assert graph.edges.tolist() == [[1, 2]] and index.tolist() == [0, 0]
    assert between.tolist() == [False, True, True, False]
    assert graph.votes.tolist() == [[0, 1], [6, 8], [14, 16]]
    # mean (4 * 0.25 + 12 * 0.75) / 16; squares about it: 0.3 + 0.2 + 4 * 0.375^2 + 12 * 0.125^2
    np.testing.assert_allclose(graph.stats[0, 0], [16, 0.625, 1.25, 0.0, 0.9])
    np.testing.assert_allclose(graph.stats[0, 1], [2, 0.5, 0.1, 0.4, 0.6])
    assert not graph.stats[0, 2:].any()


def test_pooling_is_what_all_values_together_give() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.uniform(0, 1, n) for n in (1, 7, 30)]
    stats = np.array([[[len(p), p.mean(), p.var() * len(p), p.min(), p.max()]] for p in parts])
    whole = np.concatenate(parts)
    out = np.zeros((1, 1, 5))
    pooled(stats, np.zeros(3, np.int64), out)
    found = out[0, 0]
    wanted = [38, whole.mean(), whole.var() * 38, whole.min(), whole.max()]
    np.testing.assert_allclose(found, wanted)
