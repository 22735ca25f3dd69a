"""Which fragments belong together: what a contact tells, and models fitted to known contacts."""

import numpy as np
import pytest
from joining_cases import chain

from lib.configs.settings import LossSettings, ModelSettings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import build_network
from lib.prediction.agglomeration import agglomerate
from lib.prediction.fragment_store import fragments_file, load_fragments, save_fragments
from lib.prediction.graph import COUNT, MEAN, FragmentGraph
from lib.prediction.join_fitting import (
    KnownJoins,
    Layers,
    averaged,
    clustered,
    fit_joining,
    known_joins,
    owners,
)
from lib.prediction.joining import (
    FEATURES,
    LARGEST_LOGIT,
    PLAIN,
    WITHIN,
    JoinModel,
    Perceptron,
    clusters,
    join_features,
    joining_of,
)
from lib.prediction.objects import Fragments


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


def test_several_networks_in_one_give_the_mean_of_what_they_say() -> None:
    rng = np.random.default_rng(0)

    def member() -> Layers:
        sizes = [(7, 5), (6, 7), (1, 6)]
        return tuple(
            (
                rng.normal(size=s, scale=0.4).astype(np.float32),
                rng.normal(size=s[0]).astype(np.float32),
            )
            for s in sizes
        )

    members = [member() for _ in range(3)]
    features, still = rng.normal(size=(20, 5)).astype(np.float32), np.zeros(5, np.float32)
    one = still + 1
    apart = [Perceptron(m, still, one)(features) for m in members]
    assert all(np.abs(a).max() < LARGEST_LOGIT for a in apart), "the clip comes after the mean"
    found = Perceptron(averaged(members), still, one)(features)
    np.testing.assert_allclose(found, np.mean(apart, 0), rtol=1e-4, atol=1e-5)


def test_a_data_set_says_the_root_of_what_it_knows() -> None:
    # one contact of set a against four of set b that say the contrary
    a, b = (KnownJoins(chain([0.5]), np.array([together], np.int8)) for together in (1, 0))
    by_groups = fit_joining([a, b, b, b, b], 200, groups=["a", "b", "b", "b", "b"])
    alike = fit_joining([a, b, b, b, b], 200)  # of one set
    features = join_features(a.graph)
    assert by_groups.first is not None and alike.first is not None
    assert by_groups.first(features)[0] == pytest.approx(np.log(1 / 2), abs=0.1)
    assert alike.first(features)[0] == pytest.approx(np.log(1 / 4), abs=0.1)


def test_nothing_to_fit_to_is_told() -> None:
    graph = chain([0.5])
    with pytest.raises(ValueError, match="no contact of two fragments"):
        fit_joining([KnownJoins(graph, np.array([-1], np.int8))])


def test_a_model_of_another_versions_features_is_told_and_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = [np.zeros((1, FEATURES + 1)).tolist(), [0.0]]
    told = {"layers": [one], "shift": [0], "scale": [1], "slope": 1, "offset": 0}
    with pytest.raises(ValueError, match=f"{FEATURES + 1} features of a contact"):
        JoinModel.from_dict(told)
    net = build_network(ModelSettings(), LossSettings(), load_hierarchy())
    assert joining_of(net) == PLAIN and not caplog.records
    net.joining = told
    assert joining_of(net) == PLAIN
    assert "fit it again with benchmarks/fit_joining.py" in caplog.text


def test_a_file_from_before_the_second_look_has_the_first_alone() -> None:
    layers = [[np.full((1, FEATURES), 0.5).tolist(), [0.25]]]
    told = {"layers": layers, "shift": [0.0] * FEATURES, "scale": [1.0] * FEATURES}
    model = JoinModel.from_dict({**told, "slope": 1.0, "offset": -0.5})
    assert model.first is not None and model.second is None and model.offset == -0.5


def test_how_much_of_a_fragment_touches_by_hand() -> None:
    """Fragment 2 of 7 voxels lies between 1 and 3, and touches 1 three times as much."""
    graph = chain([0.5, 0.5])
    graph.stats[:, 0, COUNT] = [30, 10]
    graph.votes[2] = 0
    graph.votes[2, 4] = 7
    share, of_larger, pairs, small, large = join_features(graph)[0, -5:]
    assert share == pytest.approx(0.75) and of_larger == pytest.approx(1.0)
    assert pairs == pytest.approx(np.log(31))
    assert small == pytest.approx(np.log(41) - 2 / 3 * np.log(8))
    assert large == pytest.approx(np.log(31) - 2 / 3 * np.log(101))


def constant(value: float) -> Perceptron:
    """Says the same of every contact."""
    zero = np.zeros(FEATURES, np.float32)
    layer = (np.zeros((1, FEATURES), np.float32), np.array([value], np.float32))
    return Perceptron((layer,), zero, zero + 1)


def by_mean(slope: float) -> Perceptron:
    """Log odds slope * (mean affinity in plane - 0.5)."""
    weight = np.zeros((1, FEATURES), np.float32)
    weight[0, 0] = slope
    zero = np.zeros(FEATURES, np.float32)
    return Perceptron(((weight, np.array([-slope / 2], np.float32)),), zero, zero + 1)


def test_the_second_look_decides_between_clusters_and_not_within() -> None:
    graph = chain([0.95, 0.6, 0.95])
    first = by_mean(10.0)  # 4.5, 1.0, 4.5; with caution the middle one is left open
    assert clusters(graph, first(join_features(graph))).tolist() == [0, 1, 1, 2, 2]
    apart = JoinModel(first, constant(-2.0)).raw(graph)
    assert apart.tolist() == pytest.approx([4.5, -2.0, 4.5])
    together = JoinModel(first, constant(3.0)).raw(graph)
    assert together.tolist() == pytest.approx([4.5, 3.0, 4.5])
    assert JoinModel(first).raw(graph).tolist() == pytest.approx([4.5, 1.0, 4.5])


def test_what_clusters_are_made_of_is_not_parted_by_one_contact() -> None:
    """A triangle that two contacts hold together and one speaks against, and a fourth."""
    edges = np.array([[1, 2], [1, 3], [2, 3], [3, 4]])
    stats = np.zeros((4, 4, 5))
    stats[:, 0, COUNT], stats[:, 0, MEAN] = 100, [0.95, 0.45, 0.95, 0.1]
    graph = FragmentGraph(edges, stats, np.full((5, 13), 9, np.int64))
    logits = JoinModel(by_mean(10.0), constant(-1.0)).logits(graph)
    assert logits.tolist() == pytest.approx([4.5, WITHIN, 4.5, -1.0])
    assert agglomerate(graph, logits).tolist() == [0, 1, 1, 1, 2]


def test_contacts_of_clusters_are_known_where_their_fragments_agree() -> None:
    edges = np.array([[1, 2], [1, 3], [2, 4], [3, 4]])
    stats = np.zeros((4, 4, 5))
    stats[:, 0, COUNT] = [5, 8, 2, 5]
    graph = FragmentGraph(edges, stats, np.full((5, 13), 9, np.int64))
    halves = np.array([0, 1, 1, 2, 2])

    def told(*together: int) -> list[int]:
        return clustered(KnownJoins(graph, np.array(together, np.int8)), halves).together.tolist()

    assert told(1, 0, 0, 1) == [0] and told(1, 1, 0, 1) == [1]  # 8 of 10 pairs are enough
    assert told(1, -1, 0, 1) == [0] and told(1, -1, -1, 1) == [-1]


def test_the_second_look_learns_what_the_first_cannot_see() -> None:
    """Many weak contacts of two large bodies: each says little, all together are the truth."""
    rng = np.random.default_rng(5)
    known = []
    for number in range(12):
        size, apart = 12, number % 2 == 0
        rows = [(i, i + 1) for i in range(1, size)] + [
            (size + i, size + i + 1) for i in range(1, size)
        ]
        across = [(i, size + i) for i in range(1, size + 1)]
        edges = np.array(sorted(rows + across))
        crossing = edges[:, 1] - edges[:, 0] == size
        means = np.where(crossing, (0.42 if apart else 0.58), 0.95)
        means = np.clip(means + np.where(crossing, rng.normal(0, 0.25, len(edges)), 0), 0, 1)
        stats = np.zeros((len(edges), 4, 5))
        stats[:, 0, COUNT], stats[:, 0, MEAN] = 20, means
        graph = FragmentGraph(edges, stats, np.full((2 * size + 1, 13), 9, np.int64))
        known.append(KnownJoins(graph, np.where(crossing & apart, 0, 1).astype(np.int8)))
    model = fit_joining(known, steps=400, batch=128)
    assert model.second is not None
    alone = JoinModel(model.first)
    wrong = [
        np.mean([((m.raw(k.graph) > 0) != (k.together == 1)).mean() for k in known])
        for m in (alone, model)
    ]
    assert wrong[1] < 0.5 * wrong[0]
