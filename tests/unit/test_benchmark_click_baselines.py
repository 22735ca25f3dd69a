"""The baselines that the app's clicks are measured against."""

import numpy as np

from benchmarks.click_baselines import AutomaticPick, PointWatershed, boundary_map
from lib.metrics.clicks import Click
from lib.prediction.evidence import Evidence


def on(x: int, positive: bool = True) -> Click:
    return Click((x, 0, 0), positive)


def test_picking_joins_and_takes_away_automatic_instances() -> None:
    ids = np.array([0, 1, 1, 2, 2, 3], np.uint32).reshape(6, 1, 1)
    pick = AutomaticPick(ids)
    assert pick([on(1)]).ravel().tolist() == [False, True, True, False, False, False]
    assert pick([on(1), on(4)]).sum() == 4
    assert pick([on(1), on(4), on(3, False)]).sum() == 2
    assert pick([on(0)]).sum() == 0


def test_a_watershed_stops_at_boundaries_and_shares_a_basin_at_its_ridge() -> None:
    boundary = np.array([0.1, 0.1, 0.3, 0.1, 0.9, 0.1], np.float32).reshape(6, 1, 1)
    flood = PointWatershed(boundary)
    assert flood([on(0)]).ravel().tolist() == [True, True, True, True, False, False]
    found = flood([on(0), on(3, False)]).ravel().tolist()
    assert found[:2] == [True, True] and found[3:] == [False, False, False]
    assert flood([on(4)]).ravel().tolist() == [False] * 4 + [True, False]
    assert flood([on(5), on(0, False)]).ravel().tolist() == [False] * 5 + [True]
    assert not flood([on(0, False)]).any()


def test_the_boundary_map_is_high_on_both_sides_of_a_low_affinity() -> None:
    affinities = np.full((2, 4, 1, 1), 1.0, np.float16)
    affinities[0, 1] = -1.0
    affinities[1] = -1.0  # a long-range partner says nothing about this voxel's border
    foreground = np.array([True, True, True, False]).reshape(4, 1, 1)
    evidence = Evidence(
        affinities, ((1, 0, 0), (3, 0, 0)), np.ones((4, 1, 1), np.uint8), foreground
    )
    assert boundary_map(evidence).ravel().tolist() == [0.0, 1.0, 1.0, 1.0]
