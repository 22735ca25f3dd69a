"""The class map at the level of objects, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lib.configs.settings import InferenceSettings, LossSettings, ModelSettings
from lib.labels.hierarchy import LabelHierarchy, load_hierarchy
from lib.networks.model import build_network
from lib.networks.study_heads import CLASSES, StudyHeads
from lib.prediction import object_classes
from lib.prediction.classes import FINE_VALUE, GROUP_VALUE
from lib.prediction.object_classes import classes_of_objects, name_cells
from lib.prediction.predictor import Predictor

HIERARCHY = load_hierarchy()
SETTINGS = InferenceSettings(min_object_voxels=3)
NEURON = HIERARCHY.group_names.index("neuron_part") + GROUP_VALUE


def value(name: str) -> int:
    return HIERARCHY.class_names.index(name) + FINE_VALUE


AXON, GLIA, MYELIN = value("axon"), value("glia"), value("myelin")
MITO, NUCLEUS, SPACE = value("mitochondria"), value("nucleus"), value("extracellular space")


def found(
    fine: list[int], cells: list[int], learned: set[str] | None = None,
    hierarchy: LabelHierarchy = HIERARCHY, settings: InferenceSettings = SETTINGS,
) -> list[int]:  # fmt: skip
    def row(values: list[int]) -> NDArray[np.int64]:
        return np.array(values).reshape(-1, 1, 1)

    classes, ids = row(fine).astype(np.uint8), row(cells).astype(np.uint32)
    values = classes_of_objects(classes, ids, hierarchy, settings, learned)
    assert values.dtype == np.uint8
    return [int(v) for v in values.ravel()]


def test_a_cell_is_what_most_of_it_is_and_the_rest_keeps_its_class() -> None:
    assert found([AXON, AXON, GLIA, SPACE, GLIA], [7, 7, 7, 0, 9]) == [
        AXON,
        AXON,
        AXON,
        SPACE,
        GLIA,
    ]


def test_organelles_stay_in_their_cell_and_do_not_vote() -> None:
    fine = [MITO, MITO, MITO, MITO, AXON, AXON, GLIA]
    assert found(fine, [1] * 7) == [MITO] * 4 + [AXON] * 3
    assert found([MITO, MITO, AXON, AXON, AXON], [1] * 5) == [AXON] * 5  # a crumb


def test_what_spreads_over_cells_is_no_organelle() -> None:
    fine = [NUCLEUS] * 6 + [AXON, GLIA, GLIA]
    cells = [1, 1, 2, 2, 3, 3, 1, 2, 3]
    assert found(fine, cells) == [AXON, AXON, GLIA, GLIA, GLIA, GLIA, AXON, GLIA, GLIA]


def test_a_cell_of_organelle_alone_is_one() -> None:
    assert found([NUCLEUS] * 4, [1] * 4) == [NUCLEUS] * 4


def test_sheaths_stay_as_they_were_seen_whatever_cell_they_were_given_to() -> None:
    fine = [AXON, AXON, MYELIN, MYELIN, MYELIN, GLIA]
    assert found(fine, [1, 1, 1, 1, 1, 1]) == [AXON, AXON, MYELIN, MYELIN, MYELIN, AXON]


def test_doubt_and_what_was_never_learned_give_the_group() -> None:
    soma, dendrite = value("soma"), value("dendrite")
    thirds = [AXON, soma, dendrite, AXON, soma, dendrite, GLIA]
    assert found(thirds, [1] * 7) == [NEURON] * 7  # 2 of 7 axon, 6 of 7 of the neuron
    assert found([AXON] * 4, [1] * 4, {"glia"}) == [NEURON] * 4
    assert found([AXON, SPACE], [1, 0], {"axon"})[1] > GROUP_VALUE
    flat = LabelHierarchy(HIERARCHY.classes[:4])
    assert found([1, 1, 2, 3], [1] * 4, {"nothing"}, flat) == [1] * 4


@pytest.mark.parametrize("axons", [8, 9])
def test_a_class_is_told_where_it_is_clear_among_those_of_its_group(axons: int) -> None:
    dendrite = value("dendrite")
    votes = [AXON] * axons + [dendrite] * (10 - axons)
    told = AXON if axons >= 9 else NEURON
    assert found(votes, [1] * 10) == [told] * 10
    assert found([*votes, GLIA, GLIA], [1] * 12) == [told] * 12, "other groups do not count"


def test_a_point_names_its_cell_and_leaves_what_lies_in_it() -> None:
    values = np.array([NEURON, NEURON, MITO, MYELIN, GLIA, GLIA, NEURON]).reshape(-1, 1, 1)
    cells = np.array([1, 1, 1, 1, 2, 2, 0], np.uint32).reshape(-1, 1, 1)

    def named(*points: tuple[int, int]) -> list[int]:
        out = values.astype(np.uint8)
        at = np.array([(x, 0, 0) for x, _ in points], np.int64)
        name_cells(out, cells, at, np.array([v for _, v in points], np.uint8), HIERARCHY)
        return [int(v) for v in out.ravel()]

    as_it_was = values.ravel().tolist()
    assert named((0, AXON)) == [AXON, AXON, MITO, MYELIN, GLIA, GLIA, NEURON]
    assert named((0, AXON), (1, GLIA)) == as_it_was  # a cell of two classes: not told
    assert named((2, MITO)) == as_it_was and named((6, AXON)) == as_it_was
    assert named((2, MITO), (1, AXON), (4, AXON))[:6] == [AXON, AXON, MITO, MYELIN, AXON, AXON]


def test_ids_of_any_height_and_slabs_of_any_size_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(2)
    fine = rng.integers(1, 13, (9, 8, 7)).astype(np.uint8)
    cells = rng.integers(0, 6, fine.shape).astype(np.uint32)
    whole = classes_of_objects(fine, cells, HIERARCHY, SETTINGS)
    high = np.where(cells > 0, cells + np.uint32(4_000_000_000), 0).astype(np.uint32)
    monkeypatch.setattr(object_classes, "SLAB_VOXELS", 150)
    assert (classes_of_objects(fine, high, HIERARCHY, SETTINGS) == whole).all()
    assert (high >= cells).all() and high.max() > 4_000_000_000, "the map given is not changed"


def test_every_voxel_of_any_map_has_one_of_the_values_there_are() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        fine = rng.integers(1, 13, (9, 8, 5)).astype(np.uint8)
        cells = rng.integers(0, 6, fine.shape).astype(np.uint32)
        learned = set(rng.choice(HIERARCHY.class_names, 5, replace=False))
        values = classes_of_objects(fine, cells, HIERARCHY, SETTINGS, learned)
        told = {HIERARCHY.class_names[v - FINE_VALUE] for v in np.unique(values) if v < GROUP_VALUE}
        assert told <= learned and set(np.unique(values[values > 12])) <= set(range(101, 106))
        outside = cells == 0
        plain = classes_of_objects(fine, np.zeros_like(cells), HIERARCHY, SETTINGS)
        assert (plain == fine).all() and values[outside].shape == fine[outside].shape


def test_what_a_study_has_learned_counts_as_learned() -> None:
    torch.manual_seed(0)
    net = build_network(ModelSettings(feature_size=8, head_size=8), LossSettings(), HIERARCHY)
    predictor = Predictor(net.eval(), HIERARCHY, SETTINGS)
    assert predictor.classes_learned is None
    net.classes_learned = ("myelin",)
    assert net.fitted["classes_learned"] == ["myelin"]
    assert predictor.classes_learned == {"myelin"}
    heads = StudyHeads(8, {CLASSES: HIERARCHY.num_classes}, 4)
    heads.used[:] = False
    heads.used[HIERARCHY.class_names.index("soma")] = True
    net.task_heads.study = heads
    assert predictor.classes_learned == {"myelin", "soma"}
    other = build_network(ModelSettings(feature_size=8, head_size=8), LossSettings(), HIERARCHY)
    other.take_fitted({"classes_learned": ["soma"]})
    assert other.classes_learned == ("soma",)
    other.take_fitted({})
    assert other.classes_learned is None


def test_cells_that_are_given_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = build_network(ModelSettings(feature_size=8, head_size=8), LossSettings(), HIERARCHY)
    predictor = Predictor(net.eval(), HIERARCHY, SETTINGS)
    image = np.random.default_rng(0).integers(0, 255, (24, 20, 6)).astype(np.uint8)
    size = (10.0, 10.0, 10.0)
    cells = np.ones(image.shape, np.uint32)
    monkeypatch.setattr(Predictor, "objects", None)
    whole = predictor.object_classes(image, size, cells=cells)
    fine = predictor.classes(image, size, "fine")
    assert (whole == classes_of_objects(fine, cells, HIERARCHY, SETTINGS)).all()
    box = ((2, 20), (3, 17), (1, 5))
    part = predictor.object_classes(image, size, box=box, cells=cells[2:20, 3:17, 1:5])
    assert part.shape == (18, 14, 4)
