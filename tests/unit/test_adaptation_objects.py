"""Objects learn at once: the grouping is calibrated to marked objects where that helps."""

from pathlib import Path

import numpy as np
import pytest
from adaptation_cases import HIERARCHY, VOXEL, published, striped

from lib.adaptation.learner import StudyLearner
from lib.adaptation.objects import LEAST_OBJECTS, Annotated, annotated, learn_objects
from lib.adaptation.store import load_heads
from lib.configs.settings import AdaptationSettings
from lib.prediction.graph import REACHES, FragmentGraph
from lib.prediction.joining import JoinModel
from lib.volumes.study import Study

SIDE, HALF = 8, 4
"""So many cells along each of two axes, each of HALF x HALF voxels, two fragments a cell."""


def case(inner: float, outer: float, noise: float = 0.0, side: int = SIDE) -> Annotated:
    """Cells of two fragments; affinity `inner` inside a cell, `outer` between cells."""
    shape = (side * HALF, side * HALF, 1)
    x, y, _ = np.indices(shape)
    ids = (x // HALF * side + y // HALF + 1).astype(np.int64)
    fragments = (2 * ids - (x % HALF < HALF // 2)).astype(np.uint32)
    pairs = set()
    for axis in (0, 1):
        one = np.moveaxis(fragments, axis, 0)
        pairs |= {tuple(sorted(p)) for p in zip(one[:-1].ravel(), one[1:].ravel(), strict=True)}
    edges = np.array(sorted((a, b) for a, b in pairs if a != b), np.int64)
    same = (edges[:, 0] + 1) // 2 == (edges[:, 1] + 1) // 2
    stats = np.zeros((len(edges), len(REACHES), 5))
    draw = np.random.default_rng(0).normal(0, noise, len(edges))
    stats[:, 0, 0], stats[:, 0, 1] = HALF, np.where(same, inner, outer) + draw
    votes = np.zeros((2 * side**2 + 1, HIERARCHY.num_classes + 1), np.int64)
    votes[1:, 1] = HALF * HALF // 2
    sets = np.full(shape, HIERARCHY.unknown, np.int32)
    return annotated(FragmentGraph(edges, stats, votes), fragments, ids, sets, HIERARCHY)


def test_a_grouping_that_merges_everything_is_calibrated() -> None:
    """All affinities are high here; what tells cells apart lies above the usual threshold."""
    volume = case(inner=0.95, outer=0.85)
    assert volume.error(JoinModel(), [0, 1, 2, 3])[0] > 0.5
    found = learn_objects([volume], JoinModel())
    assert found.used and found.objects == SIDE**2
    assert found.before > 0.5 and found.after == pytest.approx(0.0, abs=1e-9)
    assert volume.error(found.on(JoinModel()), [0, 1, 2, 3])[0] == pytest.approx(0.0, abs=1e-9)
    assert "in use" in found.sentence


def test_a_grouping_that_is_right_stays() -> None:
    found = learn_objects([case(inner=0.9, outer=0.3)], JoinModel())
    assert not found.used and found.before == pytest.approx(0.0, abs=1e-9)
    assert found.on(JoinModel()) == JoinModel()


def test_affinities_that_say_nothing_are_not_learned_from() -> None:
    found = learn_objects([case(inner=0.3, outer=0.3, noise=0.1)], JoinModel())
    assert not found.used and found.on(JoinModel()) == JoinModel()


def test_few_objects_are_too_few() -> None:
    volume = case(inner=0.95, outer=0.85, side=2)
    found = learn_objects([volume], JoinModel())
    assert not found.used and str(LEAST_OBJECTS) in found.reason
    assert learn_objects([], JoinModel()).sentence == ""


def test_held_back_objects_do_not_teach() -> None:
    volume = case(inner=0.95, outer=0.85)
    for part in range(4):
        held = {o for o, p in volume.part.items() if p == part}
        known = volume.joins(part).together >= 0
        assert held and known.any()
        ends = volume.owner[volume.graph.edges[known]]
        assert not np.isin(ends, list(held)).any()
    assert len(set(volume.part.values())) == 4


def test_marked_objects_of_a_study_are_learned_or_refused_in_words(tmp_path: Path) -> None:
    image, sets = striped()
    image, sets = image[:48, :32], sets[:48, :32]
    ids = np.broadcast_to((np.arange(48) // 4 + 1)[:, None, None], image.shape).astype(np.int64)
    study = Study(tmp_path, HIERARCHY)
    study.add_item("stripes", image, VOXEL, sets, ids, true_instances=True)
    settings = AdaptationSettings(steps=20, width=8, most_rows=1000)
    stored = StudyLearner(study, settings).learn(published())
    assert "objects" in stored.learned.sentence
    assert (stored.joining is not None) == ("marked objects, in use" in stored.learned.sentence)
    kept = load_heads(tmp_path)
    assert kept is not None and kept.joining == stored.joining
    assert kept.learned == stored.learned
