"""Objects learn at once: boundaries and joins come from marked objects where that helps."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptation_cases import HIERARCHY, VOXEL, published, striped

from lib.adaptation.annotated import Annotated, annotated
from lib.adaptation.background import one_core
from lib.adaptation.boundaries import BETWEEN, INSIDE, UNKNOWN, boundary_targets, fit_boundary
from lib.adaptation.learner import StudyLearner
from lib.adaptation.marks import boundary_rows, marks_of
from lib.adaptation.objects import (
    LEAST_GAIN,
    LEAST_OBJECTS,
    POOR,
    Arm,
    LearnedObjects,
    learn_objects,
)
from lib.configs.settings import AdaptationSettings
from lib.metrics.object_scores import Contingency, adapted_rand_error
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import BOUNDARY
from lib.prediction.agglomeration import agglomerate
from lib.prediction.evidence import Evidence, collect_ways
from lib.prediction.graph import REACHES, FragmentGraph
from lib.prediction.joining import JoinModel
from lib.prediction.learned import load_heads
from lib.prediction.ways import Way
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


def learned(*volumes: Annotated) -> LearnedObjects:
    arms = [Arm("" if n == 0 else "the marks", [v]) for n, v in enumerate(volumes)]
    return learn_objects(arms, JoinModel(), HIERARCHY, 0)


def error(volume: Annotated, joining: JoinModel) -> float:
    cells = agglomerate(volume.graph, joining.logits(volume.graph))
    return float(volume.errors(cells)[-1, 0])


def test_a_grouping_that_merges_everything_is_calibrated() -> None:
    """All affinities are high here; what tells cells apart lies above the usual threshold."""
    volume = case(inner=0.95, outer=0.85)
    assert error(volume, JoinModel()) > 0.5
    found = learned(volume)
    assert found.used and found.objects == SIDE**2
    assert found.before > 0.5 and found.after == pytest.approx(0.0, abs=1e-9)
    assert error(volume, found.joining.on(JoinModel())) == pytest.approx(0.0, abs=1e-9)
    assert "in use" in found.sentence


def test_a_grouping_that_is_right_stays() -> None:
    found = learned(case(inner=0.9, outer=0.3))
    assert not found.used and found.before == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_marks_at_random_are_not_learned_from_though_pieces_fit_them_better(seed: int) -> None:
    """All is one cell at first; where marks say nothing of the image, any pieces are better."""
    volume = case(inner=0.85, outer=0.85)
    draw = np.random.default_rng(seed)
    shape = (SIDE * HALF, SIDE * HALF, 1)
    middle = draw.random((int(draw.integers(30, 60)), 2)) * shape[0]
    places = np.stack(np.indices(shape[:2]), -1)
    apart = ((places[:, :, None] - middle) ** 2).sum(-1)
    ids = apart.argmin(-1)[..., None].astype(np.int64) + 1
    x, y, _ = np.indices(shape)
    own = x // HALF * SIDE + y // HALF + 1
    fragments = (2 * own - (x % HALF < HALF // 2)).astype(np.uint32)
    sets = np.full(shape, HIERARCHY.unknown, np.int32)
    found = learned(annotated(volume.graph, fragments, ids, sets, HIERARCHY))
    assert found.after < found.before - LEAST_GAIN
    assert not found.used and "as they fit any" in found.reason


def test_affinities_that_say_nothing_are_not_learned_from() -> None:
    assert not learned(case(inner=0.3, outer=0.3, noise=0.1)).used


def test_boundaries_of_another_kind_are_used_where_they_are_better() -> None:
    blind, seeing = case(inner=0.3, outer=0.3, noise=0.1), case(inner=0.9, outer=0.3)
    found = learned(blind, seeing)
    assert found.used and found.arm == 1 and "boundaries from the marks" in found.sentence
    assert learned(seeing, blind).arm == 0
    assert learned(seeing, seeing).arm == 0, "the simpler one, where both are as good"


def test_a_network_that_is_nearly_right_keeps_its_boundaries() -> None:
    """Marks see little of a merge: a head fitted to them takes no good one's place."""
    fair, seeing = case(inner=0.9, outer=0.3, noise=0.22), case(inner=0.9, outer=0.3)
    before = error(fair, JoinModel())
    assert LEAST_GAIN < before < POOR, "worth learning, and not poor"
    assert error(seeing, JoinModel()) == pytest.approx(0.0, abs=1e-9)
    arms = [Arm("", [fair]), Arm("the marks", [seeing], learned=True)]
    assert learn_objects(arms, JoinModel(), HIERARCHY, 0).arm == 0
    arms = [Arm("", [fair]), Arm("classes", [seeing])]
    assert learn_objects(arms, JoinModel(), HIERARCHY, 0).arm == 1
    poor = case(inner=0.3, outer=0.3, noise=0.1)
    arms = [Arm("", [poor]), Arm("the marks", [seeing], learned=True)]
    assert learn_objects(arms, JoinModel(), HIERARCHY, 0).arm == 1


def test_corrections_of_a_network_that_is_nearly_right_change_nothing() -> None:
    """And of a poor one they are learned from like any marks."""
    fair, seeing = case(inner=0.9, outer=0.3, noise=0.22), case(inner=0.9, outer=0.3)
    arms = [Arm("", [fair]), Arm("classes", [seeing])]
    assert learn_objects(arms, JoinModel(), HIERARCHY, 0).used
    found = learn_objects(arms, JoinModel(), HIERARCHY, 0, corrections=True)
    assert not found.used and "beside what was corrected" in found.sentence
    arms = [Arm("", [case(inner=0.3, outer=0.3, noise=0.1)]), Arm("classes", [seeing])]
    assert learn_objects(arms, JoinModel(), HIERARCHY, 0, corrections=True).used


def test_few_objects_are_too_few() -> None:
    found = learned(case(inner=0.95, outer=0.85, side=2))
    assert not found.used and str(LEAST_OBJECTS) in found.reason
    assert learn_objects([], JoinModel(), HIERARCHY, 0).sentence == ""


def test_the_error_of_all_objects_is_the_adapted_rand_error_and_parts_see_all_merges() -> None:
    volume = case(inner=0.9, outer=0.3)
    cells = np.random.default_rng(0).integers(1, 40, volume.graph.count + 1)
    pairs = np.stack([volume.table.truth, cells[volume.table.guess]], 1)
    keys, index = np.unique(pairs, axis=0, return_inverse=True)
    joint = np.bincount(index.ravel(), volume.table.counts).astype(np.int64)
    found = volume.errors(cells)
    assert found[-1, 0] == pytest.approx(
        adapted_rand_error(Contingency(keys[:, 0], keys[:, 1], joint))
    )
    merged = volume.errors(np.minimum(np.arange(volume.graph.count + 1), 1))
    assert (merged[:4, 0] > 0.9).all(), "a quarter's objects are merged with all others"


def test_what_joins_across_sections_is_not_asked_of_single_sections() -> None:
    """One cell through two sections, marked under another name in each."""
    ids = np.zeros((8, 8, 2), np.int64)
    ids[:4, :, 0], ids[4:, :, 0], ids[:4, :, 1], ids[4:, :, 1] = 1, 2, 3, 4
    fragments = ids.astype(np.uint32)
    votes = np.full((5, HIERARCHY.num_classes + 1), 4, np.int64)
    graph = FragmentGraph(np.array([[1, 3], [2, 4]]), np.zeros((2, len(REACHES), 5)), votes)
    sets = np.full(ids.shape, HIERARCHY.unknown, np.int32)
    joined = np.array([0, 1, 2, 1, 2])

    def worst(sectionwise: bool) -> float:
        volume = annotated(graph, fragments, ids, sets, HIERARCHY, sectionwise)
        return float(volume.errors(joined)[-1, 0])

    assert worst(sectionwise=True) == pytest.approx(0.0, abs=1e-9)
    assert worst(sectionwise=False) > 0.3


def test_marks_say_where_objects_end() -> None:
    ids = np.full((24, 9, 3), -1, np.int64)
    ids[2:9], ids[11:16], ids[16:22] = 1, 2, 3
    unlabelled = ids < 0
    found = boundary_targets(ids, unlabelled, (10.0, 10.0, 50.0))
    assert (found[9:11] == BETWEEN).all(), "nobody labelled what lies between two objects"
    assert (found[15:17] == BETWEEN).all(), "the rims of two that touch"
    assert (found[4:8] == INSIDE).all() and (found[18:21] == INSIDE).all()
    assert (found[:2] == UNKNOWN).all() and (found[22:] == UNKNOWN).all(), "one object is no two"
    assert (found[2] == UNKNOWN).all(), "an outer rim says nothing"
    organelle = unlabelled.copy()
    organelle[9:11] = False
    assert (boundary_targets(ids, organelle, (10.0, 10.0, 50.0))[9:11] == UNKNOWN).all()
    alone = np.where(ids == 1, 1, -1)
    assert not (boundary_targets(alone, alone < 0, (10.0, 10.0, 50.0)) == BETWEEN).any()


def test_one_marked_section_of_a_volume_of_cubes_teaches_within_it() -> None:
    ids = np.full((24, 9, 5), -1, np.int64)
    ids[2:9, :, 2], ids[11:20, :, 2] = 1, 2
    found = boundary_targets(ids, ids < 0, (10.0, 10.0, 10.0))
    assert (found[9:11, :, 2] == BETWEEN).all() and (found[4:8, :, 2] == INSIDE).all()
    assert (found[..., [0, 1, 3, 4]] == UNKNOWN).all()
    through = np.repeat(ids[..., 2:3], 5, axis=2)
    assert (boundary_targets(through, through < 0, (10.0, 10.0, 10.0))[4:8] == INSIDE).all()


def test_a_boundary_head_learns_what_its_rows_say() -> None:
    features = torch.randn((400, 4), generator=torch.Generator().manual_seed(0))
    between = features[:, 1] > 0
    flipped = torch.arange(400) < 200
    heads = fit_boundary(
        features, torch.where(flipped, ~between, between), [flipped, ~flipped], steps=150, width=8
    )
    for head, sign in zip(heads, (-1, 1), strict=True):
        said = head(features, {}, (BOUNDARY,))[BOUNDARY][:, 0]
        assert ((sign * said > 0) == between).float().mean() > 0.9
        assert head(features, {}) == {}, "given only where it is asked for"


def test_marked_objects_of_a_study_are_learned_or_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[Way] = []

    def spied(net: NeuropilNet, asked: list[Way], *more: Any, **named: Any) -> list[Evidence]:
        ways.extend(asked)
        return collect_ways(net, asked, *more, **named)

    monkeypatch.setattr("lib.adaptation.grouping.collect_ways", spied)
    image, sets = striped()
    image, sets = image[:48, :32], sets[:48, :32]
    ids = np.broadcast_to((np.arange(48) // 4 + 1)[:, None, None], image.shape).astype(np.int64)
    study = Study(tmp_path, HIERARCHY)
    study.add_item("stripes", image, VOXEL, sets, ids, true_instances=True)
    settings = AdaptationSettings(steps=20, width=8, most_rows=1000)
    stored = StudyLearner(study, settings).learn(published())
    fitted = [way for way in ways if way.boundary is not None]
    assert len(fitted) == 3, "of either half of the marks, and of all"
    assert all(way.alone for way in fitted), "the network knew too little of the tissue"
    assert "objects" in stored.learned.sentence
    in_use = re.search(
        r"marked objects(, boundaries from [\w ]+)?, in use", stored.learned.sentence
    )
    assert (stored.joining is not None) == (in_use is not None)
    kept = load_heads(tmp_path)
    assert kept is not None and kept.joining == stored.joining
    assert kept.fragments == stored.fragments
    assert kept.learned == stored.learned


def test_marks_in_a_corner_are_learned_within_their_box(tmp_path: Path) -> None:
    image, sets = (np.tile(values, (4, 3, 2)) for values in striped())
    ids = np.full(image.shape, -1, np.int64)
    ids[8:40, 4:20, 2:5] = (np.arange(32) // 4 + 1)[:, None, None]
    study = Study(tmp_path, HIERARCHY)
    sets = np.where(ids > 0, sets, HIERARCHY.unknown).astype(np.int32)
    study.add_item("stripes", image, VOXEL, sets, ids, true_instances=True)
    (item,) = study.items()
    (marks,) = marks_of([item], published(), ids.size // 4, lambda item: None)
    assert marks.box == ((0, 64), (0, 44), (0, 7))
    where = tuple(slice(*span) for span in marks.box)
    np.testing.assert_array_equal(marks.ids, ids[where])
    np.testing.assert_array_equal(marks.sets, sets[where])
    assert marks_of([item], published(), marks.ids.size - 1, lambda item: None) == []
    features, between, side = boundary_rows(marks, published())
    assert len(features) == len(between) == len(side) > 0
    assert set(side.tolist()) <= set((np.arange(64) - marks.middle).tolist())


def test_one_core_is_for_one_thread_alone() -> None:
    before, seen = torch.get_num_threads(), []
    with one_core():
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before and seen == [before]
