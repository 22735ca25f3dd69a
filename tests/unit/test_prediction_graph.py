"""The fragment graph: contacts, log odds and the cells that follow."""

import numpy as np
import pytest

from lib.labels.hierarchy import load_hierarchy
from lib.prediction.agglomeration import absorb, agglomerate, cannot_stand_alone, compact
from lib.prediction.boundary import boundary_histogram, boundary_map, boundary_scale
from lib.prediction.fragment_store import fragments_file, load_fragments, save_fragments
from lib.prediction.graph import (
    COUNT,
    LEAST,
    MEAN,
    MOST,
    SQUARES,
    FragmentGraph,
    contacts_of_block,
    merge_contacts,
    reach_of,
)
from lib.prediction.joining import (
    FEATURES,
    PLAIN,
    JoinModel,
    KnownJoins,
    calibrated,
    fit_joining,
    join_features,
    known_joins,
    owners,
)
from lib.prediction.objects import Fragments

ISOTROPIC = (10.0, 10.0, 10.0)


def chain(means: list[float], pairs: int = 10, sizes: int = 100) -> FragmentGraph:
    """Fragments in a row; the contacts' mean affinities."""
    count = len(means) + 1
    edges = np.stack([np.arange(1, count), np.arange(2, count + 1)], 1)
    stats = np.zeros((len(means), 4, 5))
    stats[:, 0, COUNT] = pairs
    for column in (MEAN, LEAST, MOST):
        stats[:, 0, column] = means
    votes = np.zeros((count + 1, 13), np.int64)
    votes[1:, 4] = sizes
    return FragmentGraph(edges, stats, votes)


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


def test_owners_and_known_joins() -> None:
    fragments = np.array([1, 1, 1, 2, 2, 3, 3, 4]).reshape(8, 1, 1).astype(np.uint32)
    labels = np.array([5, 5, 6, 6, 6, 6, -1, -1]).reshape(8, 1, 1)
    assert owners(4, fragments, labels).tolist() == [0, 0, 6, 6, 0]  # 1 is mixed, 4 unknown
    graph = chain([0.5, 0.5, 0.5])
    assert known_joins(graph, fragments, labels).together.tolist() == [-1, 1, -1]


def test_classes_that_rule_each_other_out_are_two_cells() -> None:
    fragments = np.array([1, 1, 2, 2, 3, 3]).reshape(6, 1, 1).astype(np.uint32)
    labels = np.full((6, 1, 1), -1)
    sets = np.array([2, 2, 4, 4, 6, 6], np.int32).reshape(6, 1, 1)
    graph = chain([0.9, 0.9])
    assert known_joins(graph, fragments, labels, sets).together.tolist() == [0, -1]


def test_fitting_finds_what_separates_and_survives_a_file(tmp_path) -> None:
    rng = np.random.default_rng(0)
    means = rng.uniform(0, 1, 400)
    graph = chain(means.tolist())
    known = KnownJoins(graph, (means > 0.4).astype(np.int8))
    model = fit_joining([known], steps=300, batch=128)
    sure = np.abs(means - 0.4) > 0.1
    assert ((model.logits(graph) > 0) == (means > 0.4))[sure].all()
    again = JoinModel.from_dict(model.to_dict())
    np.testing.assert_allclose(again.logits(graph), model.logits(graph), rtol=1e-6)
    path = fragments_file(tmp_path, "item")
    assert load_fragments(path) is None
    save_fragments(path, Fragments(np.ones((2, 2, 2), np.uint32), graph), "weights 1")
    kept = load_fragments(path, "weights 1")
    assert kept is not None and kept.ids.all() and kept.ids.dtype == np.uint32
    np.testing.assert_allclose(join_features(kept.graph), join_features(graph), rtol=1e-6)
    assert load_fragments(path, "weights 2") is None and load_fragments(path) is not None
    path.write_bytes(b"torn")
    assert load_fragments(path) is None


def test_a_study_shifts_the_threshold_and_no_contact_leaves_it() -> None:
    rng = np.random.default_rng(1)
    means = rng.uniform(0, 1, 300)
    graph = chain(means.tolist())
    known = KnownJoins(graph, (means > 0.3).astype(np.int8))  # PLAIN believes in 0.7
    model = calibrated(PLAIN, [known])
    wrong_before = ((PLAIN.logits(graph) > 0) != (means > 0.3)).mean()
    wrong_after = ((model.logits(graph) > 0) != (means > 0.3)).mean()
    assert wrong_before > 0.3 and wrong_after < 0.06
    nothing = KnownJoins(graph, np.full(300, -1, np.int8))
    assert calibrated(PLAIN, [nothing]) == PLAIN


def test_nothing_to_fit_to_is_told() -> None:
    graph = chain([0.5])
    with pytest.raises(ValueError, match="no contact of two fragments"):
        fit_joining([KnownJoins(graph, np.array([-1], np.int8))])


def test_another_versions_features_are_refused() -> None:
    one = [np.zeros((1, FEATURES + 1)).tolist(), [0.0]]
    with pytest.raises(ValueError, match=f"{FEATURES + 1} features of a contact"):
        JoinModel.from_dict({"layers": [one], "shift": [0], "scale": [1], "slope": 1, "offset": 0})
