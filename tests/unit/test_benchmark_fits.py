"""What is fitted to weights after their training: boundary head and joins, from training boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from engine_cases import HIERARCHY, add_cells

from benchmarks import fit_boundary, fit_classes, fit_joining
from benchmarks.training_boxes import (
    _spread,
    training_boxes,
    training_items,
)
from lib.adaptation.rehearsal import Reservoir, reservoir_path
from lib.configs.load import load_settings
from lib.configs.settings import LossSettings, ModelSettings, Settings
from lib.networks.digests import digest_of
from lib.networks.model import NeuropilNet, build_network
from lib.networks.study_heads import CLASSES
from lib.networks.weights import load_network, save_weights
from lib.prediction.filters import COUNT
from lib.prediction.predictor import load_predictor
from lib.prediction.ways import boundary_of
from lib.volumes.study import Study

PARTS = ("weight", "bias")


def weights(folder: Path) -> Path:
    torch.manual_seed(0)
    settings = Settings(
        model=ModelSettings(feature_size=8, head_size=8, embedding_size=2),
        loss=LossSettings(weight_geometry=0.0),
    )
    net = build_network(settings.model, settings.loss, HIERARCHY)
    path = folder / "weights.pt"
    save_weights(path, net.state_dict(), settings, HIERARCHY, {"step": 7})
    return path


def study(folder: Path) -> Path:
    made = Study(folder / "study", HIERARCHY)
    add_cells(made, "cells-train", (48, 40, 12), split="train")
    add_cells(made, "cells-val", (48, 40, 12), split="val")
    add_cells(made, "cells-more", (48, 40, 12))
    return made.root


def test_boxes_are_of_training_items_and_lie_in_them(tmp_path: Path) -> None:
    predictor = load_predictor(weights(tmp_path), load_settings(None), "cpu")
    items = training_items([study(tmp_path)], predictor, 1)
    assert len(items) == 1 and items[0].record.split != "val"
    boxes = list(training_boxes(items, predictor, (20, 20, 6), 3))
    assert len(boxes) == 3 and {b.group for b in boxes} == {"cells"}
    for box in boxes:
        assert box.image.shape == box.ids.shape == box.sets.shape == (20, 20, 6)
        assert (box.ids > 0).any()


def test_a_boundary_head_and_joins_are_fitted_and_stay_in_the_file(tmp_path: Path) -> None:
    path, root = weights(tmp_path), study(tmp_path)
    before = load_network(path)[0].state_dict()
    said = ["--weights", str(path), "--steps", "60"]
    assert fit_boundary.main([str(root), *said, "--changed", "1", "--width", "8"]) == 0
    assert fit_joining.main([str(root), *said]) == 0
    net, _, _, meta = load_network(path)
    assert meta["step"] == 7 and net.joining is not None
    head = boundary_of(net)
    assert head is not None and head.beside == COUNT
    for name, values in net.state_dict().items():
        assert torch.equal(values, before[name])
    found = load_predictor(path, load_settings(None), "cpu").objects(
        np.zeros((30, 30, 6), np.uint8), (10.0, 10.0, 40.0)
    )
    assert found.ids.shape == (30, 30, 6)


def test_every_data_set_and_kind_has_as_many_rows() -> None:
    rows = {
        ("a", fit_boundary.INSIDE): [torch.zeros(5, 2), torch.zeros(0, 2)],
        ("a", fit_boundary.BETWEEN): [torch.ones(3, 2)],
        ("b", fit_boundary.INSIDE): [torch.full((900, 2), 2.0)],
        ("b", fit_boundary.BETWEEN): [torch.zeros(0, 2)],
    }
    features, between = fit_boundary.balanced(rows)
    assert len(features) == len(between) == 3 * fit_boundary.OF_A_GROUP
    assert (features[between] == 1).all()
    assert (features[:, 0] == 2).sum() == fit_boundary.OF_A_GROUP


def test_spans_lie_side_by_side_and_their_gaps_are_alike() -> None:
    assert _spread(520, 256) == [(3, 259), (261, 517)]  # gaps of 2.67
    assert _spread(40, 48) == [(0, 40)]
    assert _spread(100, 100) == [(0, 100)]


def test_class_heads_learn_what_new_labels_say_and_keep_what_was_known(tmp_path: Path) -> None:
    path = weights(tmp_path)
    net, _, _, _ = load_network(path)
    axon, dendrite, glia, mito = (
        HIERARCHY.class_names.index(n) for n in ("axon", "dendrite", "glia", "mitochondria")
    )
    torch.manual_seed(1)
    features = 3.0 * torch.randn(4000, net.feature_channels + COUNT)
    neurite = features[:, 0] > 0
    sets = torch.where(neurite, (1 << axon) | (1 << dendrite) | (1 << mito), 1 << glia).int()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    old = of_rows(net, features)
    fit_classes.fit_classes(net, Reservoir(features.half(), sets, "-"), HIERARCHY, 300, hold=1e-4)
    new = of_rows(net, features)
    cells = new[:, [axon, dendrite]].sum(1)
    assert cells[neurite].mean() > 2 * old[:, [axon, dendrite]].sum(1)[neurite].mean()
    assert new[~neurite, glia].mean() > 2 * new[neurite, glia].mean()
    share = (new[:, axon] / cells)[neurite].mean()
    assert 0.4 < share < 0.6, "nothing told an axon from a dendrite"
    assert (new[:, mito] - old[:, mito]).abs().mean() < 0.05
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {
        f"task_heads.layers.{head}.{part}" for head in (CLASSES, "coarse") for part in PARTS
    }
    Reservoir(features.half(), sets, digest_of(path)).save(reservoir_path(path))
    fit_joining.store(path, {}, fit_classes.layers_of(net))
    assert Reservoir.load(reservoir_path(path)).weights == digest_of(path), "rows follow"
    kept, _, _, meta = load_network(path)
    torch.testing.assert_close(of_rows(kept, features), new)
    assert meta["step"] == 7


def of_rows(net: NeuropilNet, features: torch.Tensor) -> torch.Tensor:
    """(N, C) probabilities of the classes."""
    with torch.no_grad():
        said = net.task_heads.rows(features[:, : net.feature_channels], (CLASSES,))
    return said[CLASSES].softmax(1)
