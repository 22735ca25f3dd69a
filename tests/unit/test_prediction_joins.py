"""What is known of contacts and what is said of them: by hand, and as limits and files have it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joining_cases import chain

from lib.labels.hierarchy import load_hierarchy
from lib.prediction.affinities import (
    HEARD,
    boundary_affinities,
    embedding_affinities,
    kind_probabilities,
    said_by_both,
    sheath_and_rest,
)
from lib.prediction.graph import COUNT, LEAST, MEAN, MOST, SQUARES, FragmentGraph
from lib.prediction.join_fitting import PURE, KnownJoins, clustered, owners
from lib.prediction.joining import (
    FEATURES,
    LARGEST_LOGIT,
    PLAIN,
    PLAIN_MIDDLE,
    PLAIN_SLOPE,
    JoinModel,
    Perceptron,
    join_features,
)

HIERARCHY = load_hierarchy()


def triangle() -> FragmentGraph:
    """Fragments of 100, 10 and 50 voxels that all touch; one contact has pairs across sections."""
    stats = np.zeros((3, 4, 5))
    stats[:, 0] = [[4, 0.5, 0.36, 0.2, 0.8], [9, 0.9, 0.0, 0.9, 0.9], [1, 0.1, 0.0, 0.1, 0.1]]
    stats[0, 1] = [12, 0.75, 0.0, 0.75, 0.75]
    votes = np.zeros((4, 13), np.int64)
    votes[1, 4], votes[2, 4], votes[3, [4, 5]] = 100, 10, (25, 25)
    return FragmentGraph(np.array([[1, 2], [1, 3], [2, 3]]), stats, votes)


def test_features_of_a_contact_by_hand() -> None:
    found = join_features(triangle())
    assert found.shape == (3, FEATURES) and found.dtype == np.float32
    first = found[0]
    # in plane: mean, spread, least, most, log of the number, whether none
    assert first[:6] == pytest.approx([0.5, 0.3, 0.2, 0.8, math.log(5), 0.0])
    assert first[6:12] == pytest.approx([0.75, 0.0, 0.75, 0.75, math.log(13), 0.0])
    assert first[12:18] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.0, 1.0]), "no pairs say nothing"
    # the smaller and the larger fragment, and how alike their classes are
    assert first[24:27] == pytest.approx([math.log(11), math.log(101), 1.0])
    assert found[1, 26] == pytest.approx(math.sqrt(0.5))
    # 16 pairs of this contact; the smaller touches 17 pairs, the larger 25
    assert first[27:30] == pytest.approx([16 / 17, 16 / 25, math.log(17)])
    surface = [2 / 3 * math.log(11), 2 / 3 * math.log(101)]
    assert first[30:] == pytest.approx([math.log(18) - surface[0], math.log(26) - surface[1]])


def test_the_plain_model_goes_by_the_mean_of_next_neighbours() -> None:
    graph = triangle()
    mean = (4 * 0.5 + 12 * 0.75) / 16
    assert graph.mean_affinity() == pytest.approx([mean, 0.9, 0.1])
    assert graph.contact.tolist() == [16.0, 9.0, 1.0]
    expected = PLAIN_SLOPE * (mean - PLAIN_MIDDLE)
    assert PLAIN.logits(graph)[0] == pytest.approx(expected)


def test_log_odds_are_calibrated_and_stay_within_their_limit() -> None:
    model = JoinModel(slope=2.0, offset=-1.0)
    raw = np.array([-100.0, -1.0, 0.0, 2.0, 100.0])
    assert model.calibrated(raw).tolist() == [-LARGEST_LOGIT, -3.0, -1.0, 3.0, LARGEST_LOGIT]
    weight = np.zeros((1, FEATURES), np.float32)
    steep = Perceptron(((weight, np.array([99.0], np.float32)),), weight[0], weight[0] + 1)
    assert steep(np.zeros((2, FEATURES), np.float32)).tolist() == [LARGEST_LOGIT] * 2


def test_a_graph_without_contacts_has_no_log_odds() -> None:
    graph = chain([])
    assert PLAIN.logits(graph).shape == (0,) and join_features(graph).shape == (0, FEATURES)
    zero = np.zeros((1, FEATURES), np.float32)
    one = Perceptron(((zero, zero[0, :1]),), zero[0], zero[0] + 1)
    assert JoinModel(one, one).logits(graph).shape == (0,)


@pytest.mark.parametrize(("share", "owner"), [(0.69, 0), (0.71, 5)])
def test_a_fragment_is_of_the_object_that_holds_enough_of_what_is_known(
    share: float, owner: int
) -> None:
    assert 0.69 < PURE < 0.71
    count = round(share * 100)
    labels = np.array([5] * count + [6] * (100 - count) + [-1] * 300).reshape(-1, 1, 1)
    fragments = np.ones(labels.shape, np.uint32)
    assert owners(2, fragments, labels).tolist() == [0, owner, 0]


def test_what_is_known_to_be_no_object_counts_against_one() -> None:
    labels = np.array([5, 5, 0, 0]).reshape(-1, 1, 1)
    assert owners(1, np.ones(labels.shape, np.uint32), labels).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("truth", "told"), [((1, 1), 1), ((0, 0), 0), ((1, 0), -1), ((1, -1), 1), ((-1, -1), -1)]
)
def test_contacts_of_clusters_are_what_enough_of_their_pairs_are(
    truth: tuple[int, int], told: int
) -> None:
    edges = np.array([[1, 3], [2, 3]])
    stats = np.zeros((2, 4, 5))
    stats[:, 0, COUNT] = 10
    graph = FragmentGraph(edges, stats, np.ones((4, 13), np.int64))
    found = clustered(KnownJoins(graph, np.array(truth, np.int8)), np.array([0, 1, 1, 2]))
    assert found.graph.edges.tolist() == [[1, 2]] and found.together.tolist() == [told]


# Affinities -----------------------------------------------------------------------------------


def test_the_surest_boundary_between_two_voxels_counts() -> None:
    odds = torch.tensor([-9.0, 2.0, -9.0, -1.0, -9.0]).view(1, 1, 5, 1, 1)
    found = boundary_affinities(odds, [(1, 0, 0), (3, 0, 0), (0, 1, 0), (9, 0, 0)])
    sure = (1 - 2 * torch.sigmoid(odds)).flatten().tolist()
    assert found[0, 0].flatten()[:4].tolist() == pytest.approx([sure[1], sure[1], sure[3], sure[3]])
    assert found[0, 1].flatten().tolist() == pytest.approx([sure[1], sure[1], 0, 0, 0])
    assert not found[0, 2:].any(), "no partner lies inside"


@settings(max_examples=30)
@given(st.floats(-1, 1), st.floats(-1, 1))
def test_two_answers_are_never_surer_that_a_pair_is_one(network: float, boundary: float) -> None:
    found = float(said_by_both(torch.tensor(network), torch.tensor(boundary)))
    assert found <= network + 1e-6 and found >= min(network, boundary) - 1e-6
    if network < 1 - 2 / HEARD:
        assert found == pytest.approx(min(network, boundary), abs=1e-5), "heard in full"
    assert float(said_by_both(torch.tensor(1.0), torch.tensor(boundary))) == 1.0


def test_distances_of_embeddings_are_affinities_up_to_their_margin() -> None:
    embedding = torch.tensor([0.0, 1.0, 4.0]).view(1, 1, 3, 1, 1)
    found = embedding_affinities(embedding, [(1, 0, 0), (2, 0, 0), (0, 0, 1)], 2.0)
    assert found[0, 0].flatten().tolist() == [0.5, -0.5, 0.0]
    assert found[0, 1].flatten().tolist() == [-1.0, 0.0, 0.0] and not found[0, 2].any()


def test_kinds_are_probabilities_of_groups_that_add_up_to_one() -> None:
    torch.manual_seed(0)
    classes = torch.randn((1, HIERARCHY.num_classes, 2, 2, 1)).softmax(1)
    kinds = kind_probabilities(classes, HIERARCHY)
    assert kinds.shape == (1, HIERARCHY.num_groups, 2, 2, 1)
    assert torch.allclose(kinds.sum(1), torch.ones((1, 2, 2, 1)))
    for k, (_, members) in enumerate(HIERARCHY.groups):
        assert torch.allclose(kinds[:, k], classes[:, list(members)].sum(1))
    two = kind_probabilities(classes, sheath_and_rest(HIERARCHY))
    sheath = [HIERARCHY.class_names.index(n) for n in ("myelin", "myelin inner tongue")]
    assert two.shape[1] == 2 and bool((two[:, 0] >= classes[:, sheath].sum(1) - 1e-6).all())


def test_columns_of_statistics_are_in_the_order_that_readers_expect() -> None:
    assert (COUNT, MEAN, SQUARES, LEAST, MOST) == (0, 1, 2, 3, 4)
