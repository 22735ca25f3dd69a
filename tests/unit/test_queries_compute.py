"""Scores of a volume: right values in the right region, in the axes it is stored in."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from queries_cases import AXON, HIERARCHY, GreyNet, settings

from lib.configs.settings import LossSettings, ModelSettings
from lib.networks.model import NeuropilNet, build_network
from lib.networks.study_heads import StudyHeads, with_study_heads
from lib.prediction.filters import COUNT
from lib.queries.compute import heat_cell, score_volume
from lib.queries.regions import RegionGrid, centre
from lib.queries.scores import load_scores, save_scores
from lib.volumes.boxes import box_shape, box_slices

NET = cast(NeuropilNet, GreyNet())


def checkered() -> np.ndarray:
    """16 x 24 x 4: regions of 8 x 8 x 2, dark, medium or bright."""
    image = np.full((16, 24, 4), 10, np.uint8)
    image[8:, :8, :2] = 250
    image[:8, 16:, 2:] = 130
    return image


def region_at(grid: RegionGrid, voxel: tuple[int, int, int]) -> int:
    box = tuple((v, v + 1) for v in voxel)
    return int(grid.overlapping(box)[0])  # type: ignore[arg-type]


def test_values_land_in_their_regions() -> None:
    scores = score_volume(NET, checkered(), (8.0, 8.0, 40.0), settings(), HIERARCHY)
    bright, middle = region_at(scores.grid, (12, 4, 0)), region_at(scores.grid, (4, 20, 3))
    dark = np.ones(scores.grid.count, bool)
    dark[[bright, middle]] = False
    assert scores.grid.cells == (2, 3, 2)
    assert scores.entropy[bright] == pytest.approx(0.0, abs=1e-3)
    assert scores.entropy[dark] == pytest.approx(1.0, abs=1e-3)
    assert scores.disagreement[bright] == pytest.approx(0.0, abs=1e-3)
    assert scores.disagreement[middle] == pytest.approx(0.4, abs=1e-3)  # two groups of five
    assert scores.class_share[bright, AXON] == pytest.approx(1.0)
    assert scores.class_entropy.sum(1) == pytest.approx(scores.entropy, abs=1e-3)
    assert scores.features[bright] == pytest.approx([1.0, 2.0], abs=1e-3)
    assert np.isnan(scores.prompted).all()


def test_heat_maps_hold_percent() -> None:
    scores = score_volume(NET, checkered(), (8.0, 8.0, 40.0), settings(), HIERARCHY)
    assert scores.heat.shape == (2, 4, 6, 4)
    assert (scores.heat[0, 2:, :2, :2] == 0).all() and (scores.heat[0, :2, :4] == 100).all()
    assert (scores.heat[1, :2, 4:, 2:] == 40).all()


def test_prompted_disagreement_is_scored_where_the_network_takes_prompts() -> None:
    config = settings(prompted=True)
    scores = score_volume(NET, checkered(), (8.0, 8.0, 40.0), config, HIERARCHY)
    bright = region_at(scores.grid, (12, 4, 0))
    assert scores.prompted[bright] == pytest.approx(1.0, abs=1e-3)
    assert scores.prompted[region_at(scores.grid, (4, 4, 0))] == pytest.approx(0.0, abs=1e-3)


def test_sections_along_another_axis_give_the_same_regions() -> None:
    image = checkered()
    plain = score_volume(NET, image, (8.0, 8.0, 40.0), settings(), HIERARCHY)
    turned = score_volume(NET, image.transpose(2, 0, 1), (40.0, 8.0, 8.0), settings(), HIERARCHY)
    assert turned.grid.shape == (4, 16, 24)
    for region in range(plain.grid.count):
        x, y, z = centre(plain.grid.box(region))
        same = region_at(turned.grid, (z, x, y))
        assert turned.entropy[same] == pytest.approx(plain.entropy[region])
        assert turned.features[same] == pytest.approx(plain.features[region])
    assert np.array_equal(turned.heat, plain.heat.transpose(0, 3, 1, 2))


def test_fine_voxels_are_binned_and_regions_cover_the_stored_ones() -> None:
    image = checkered().repeat(3, 0).repeat(3, 1)
    scores = score_volume(NET, image, (3.0, 3.0, 40.0), settings(), HIERARCHY)
    plain = score_volume(NET, checkered(), (9.0, 9.0, 40.0), settings(), HIERARCHY)
    assert scores.grid.shape == image.shape and scores.heat_grid.shape == image.shape
    assert scores.grid.cells == plain.grid.cells
    assert scores.entropy == pytest.approx(plain.entropy)


def test_coarse_voxels_are_split_as_for_prediction_and_regions_stay() -> None:
    image, windows = checkered().repeat(2, 2), []
    fine = score_volume(
        NET,
        image,
        (10.0, 10.0, 10.0),
        settings(),
        HIERARCHY,
        progress=lambda _, n: windows.append(n),
    )
    plain, coarse_windows = windows[-1], []
    coarse = score_volume(
        NET, image, (30.0, 30.0, 30.0), settings(), HIERARCHY,
        progress=lambda _, n: coarse_windows.append(n),
    )  # fmt: skip
    assert coarse_windows[-1] > plain  # the network looked at smaller voxels
    assert coarse.grid.shape == image.shape and coarse.heat_grid.shape == image.shape
    assert all(
        np.array_equal(a, b) for a, b in zip(coarse.grid.edges, fine.grid.edges, strict=True)
    )
    assert coarse.entropy == pytest.approx(fine.entropy, abs=0.25)  # blurred at their borders
    assert coarse.heat.shape == fine.heat.shape


def test_scores_survive_the_disk_and_damage_counts_as_missing(tmp_path: Path) -> None:
    scores = score_volume(
        NET, checkered(), (8.0, 8.0, 40.0), settings(), HIERARCHY, weights="abc", image="i"
    )
    path = tmp_path / "a.npz"
    save_scores(path, scores)
    again = load_scores(path)
    assert again is not None and (again.weights, again.image) == ("abc", "i")
    assert np.array_equal(again.class_entropy, scores.class_entropy)
    assert again.grid.box(3) == scores.grid.box(3)
    path.write_bytes(path.read_bytes()[:-40])
    assert load_scores(path) is None
    assert load_scores(tmp_path / "none.npz") is None


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    region=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 99),
)
def test_regions_tile_the_volume_and_sums_are_sums(
    shape: tuple[int, int, int], region: tuple[int, int, int], seed: int
) -> None:
    grid = RegionGrid.of(shape, region)
    values = np.random.default_rng(seed).random(shape).astype(np.float32)
    covered = np.zeros(shape, int)
    total = grid.sums(values[None, : shape[0] // 2 + 1], ((0, shape[0] // 2 + 1), *[
        (0, n) for n in shape[1:]
    ]))[0]  # type: ignore[arg-type]  # fmt: skip
    half = values.copy()
    half[shape[0] // 2 + 1 :] = 0
    for r in range(grid.count):
        box = grid.box(r)
        covered[box_slices(box)] += 1
        assert all(s <= most for s, most in zip(box_shape(box), region, strict=True))
        assert half[box_slices(box)].sum() == pytest.approx(total[r], abs=1e-4)
        assert grid.overlapping(box).tolist() == [r]
    assert (covered == 1).all()


def test_heat_cells_are_few() -> None:
    x, y, z = heat_cell((5000, 5000, 500))
    assert z == 1 and x == y
    assert (5000 / x) * (5000 / y) * 500 <= 2_000_000


def test_heads_that_see_filter_responses_are_asked_with_them() -> None:
    """Scores of an adapted network: the heads are sure of one class wherever they look."""
    torch.manual_seed(0)
    model = ModelSettings(feature_size=8, head_size=8, embedding_size=2)
    net = build_network(model, LossSettings(weight_geometry=0.0), HIERARCHY).eval()
    heads = StudyHeads(net.feature_channels, {"semantic": HIERARCHY.num_classes}, 1, COUNT)
    heads.inner.bias.data.fill_(1.0)
    heads.inner.weight.data.zero_()
    heads.outer.weight.data[AXON] = 100.0
    adapted = with_study_heads(net, heads.requires_grad_(False))
    config = settings(prompted=True)
    scores = score_volume(adapted, checkered(), (8.0, 8.0, 40.0), config, HIERARCHY)
    assert scores.class_share[:, AXON] == pytest.approx(1.0)
    assert scores.entropy == pytest.approx(0.0, abs=1e-3)
    assert scores.prompted == pytest.approx(0.0, abs=1e-3), "prompted heads see them as well"
