"""Rows: each voxel once, with its own feature; blocks and gaps keep the judge honest."""

import itertools
from types import SimpleNamespace

import numpy as np
import torch
from adaptation_cases import AXON, DENDRITE, UNKNOWN

from lib.adaptation.rows import FOLDS, GAP, Lattice, read_rows
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.window_grid import window_grid

SHAPE = (70, 50, 9)
VOXEL = (10.0, 10.0, 10.0)


class Places:
    """Features that are the voxel's own place, as windows hand them out."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.volume = torch.from_numpy(np.stack(np.indices(shape))).float()
        self.net = SimpleNamespace(feature_channels=3)
        self.device = torch.device("cpu")
        self.asked: list[object] = []

    def __call__(self, boxes):
        self.asked += boxes
        return torch.stack([self.volume[(slice(None), *(slice(*s) for s in b))] for b in boxes])

    def responses(self, boxes, voxel_size_nm):
        """The places again, farther away."""
        assert tuple(voxel_size_nm) == VOXEL
        own = self(boxes).movedim(1, -1).repeat(1, 1, 1, 1, FILTERS // 3)
        return own + 100.0


def labelled() -> np.ndarray:
    sets = np.full(SHAPE, UNKNOWN, np.int32)
    sets[5:60, 5:45, 2:7] = 1 << AXON
    sets[20:30, 10:20, 2:7] = 1 << DENDRITE
    return sets


def test_rows_are_the_voxels_they_stand_for() -> None:
    sets = labelled()
    grid = window_grid(SHAPE, (32, 32, 8), 0.25)
    rows = read_rows("item", Places(SHAPE), grid, sets, UNKNOWN, 3000, 64, VOXEL)
    assert torch.equal(rows.features[:, 3:6], rows.features[:, :3] + 100.0), "responses beside"
    at = rows.features[:, :3].long().numpy()
    assert len(np.unique(at, axis=0)) == len(rows), "no voxel twice"
    assert np.array_equal(sets[tuple(at.T)], rows.sets.numpy())
    for value in (1 << AXON, 1 << DENDRITE):
        weight = float(rows.weight[rows.sets == value].sum())
        assert abs(weight / float((sets == value).sum()) - 1) < 0.01, "rows stand for all voxels"
    assert (rows.sets == UNKNOWN).any()
    again = read_rows("item", Places(SHAPE), grid, sets, UNKNOWN, 3000, 64, VOXEL)
    assert torch.equal(again.features, rows.features)


def test_few_windows_are_those_with_most_labels() -> None:
    sets = np.full(SHAPE, UNKNOWN, np.int32)
    sets[40:60, 30:45] = 1 << AXON
    sets[2:4, 2:4] = 1 << AXON
    places = Places(SHAPE)
    grid = window_grid(SHAPE, (32, 32, 9), 0.0)
    read_rows("item", places, grid, sets, UNKNOWN, 3000, 1, VOXEL)
    assert len(set(places.asked)) == 1 and places.asked[0][0][1] > 40


def test_nothing_known_gives_no_rows() -> None:
    places = Places(SHAPE)
    grid = window_grid(SHAPE, (32, 32, 9), 0.0)
    sets = np.full(SHAPE, UNKNOWN, np.int32)
    assert len(read_rows("item", places, grid, sets, UNKNOWN, 3000, 8, VOXEL)) == 0
    assert not places.asked


def test_neighbours_of_a_block_that_is_held_back_do_not_train() -> None:
    lattice = Lattice("item", (16, 16, 4))
    voxels = np.array(list(itertools.product(range(64), range(48), range(8))), np.int64)
    block, fold, near = lattice.place(voxels)
    assert len(np.unique(block)) == 4 * 3 * 2 and set(np.unique(fold)) == set(range(FOLDS))
    for held_back in range(FOLDS):
        inside = voxels[fold == held_back]
        trains = voxels[(near >> held_back) & 1 == 0]
        reach = np.array(GAP)
        some = trains[:: max(1, len(trains) // 200)]
        apart = np.abs(some[:, None] - inside[None]) > reach
        assert apart.any(-1).all(), "a row that trains lies within the gap of one held back"
        assert len(trains)


def test_blocks_get_smaller_where_little_is_annotated() -> None:
    grid = np.array(list(itertools.product(range(512), range(0, 512, 4), [0])), np.int64)
    sets = np.full(len(grid), 1, np.int32)
    assert Lattice.fitting("a", grid, sets).size == (64, 64, 16)
    small = (grid < 100).all(1)
    assert Lattice.fitting("a", grid[small], sets[small]).size == (32, 32, 8)
    sets[small] = 2
    assert Lattice.fitting("a", grid, sets).size == (32, 32, 8), "the rarest class set decides"
    sets[10:] = 1
    assert Lattice.fitting("a", grid, sets).size == (64, 64, 16), "next to nothing does not"
    one, other = (Lattice(name, (16, 16, 4)).place(grid[:5])[0] for name in ("a", "b"))
    assert not np.isin(one, other).any(), "blocks of two items are never one"
