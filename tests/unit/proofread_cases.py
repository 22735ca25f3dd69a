"""Small current objects for the tests of proofreading, and a plain model to hold them against."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.log import EditLog
from lib.proofread.machine import MachineObjects
from lib.volumes.boxes import whole_box

SHAPE = (12, 10, 6)


def machine_map(seed: int = 0, count: int = 12, shape=SHAPE) -> NDArray[np.uint32]:
    """Ids 0..count of random voxels' neighbourhoods."""
    rng = np.random.default_rng(seed)
    seeds = np.stack([rng.integers(0, n, count) for n in shape], 1)
    places = np.stack(np.indices(shape), -1).reshape(-1, 1, 3)
    nearest = ((places - seeds) ** 2).sum(-1)
    ids = nearest.argmin(1).reshape(shape).astype(np.uint32) + 1
    ids[rng.random(shape) < 0.1] = 0
    return np.asfortranarray(ids)


def current(
    root: Path, ids: NDArray[np.uint32] | None = None, version: str = "one", min_voxels: int = 4
) -> CurrentObjects:
    """The current objects of an item "a"."""
    machine = None if ids is None else MachineObjects(ids, version)
    shape = SHAPE if ids is None else ids.shape
    return CurrentObjects(EditLog(root, "a"), shape, machine, min_voxels)


def whole(objects: CurrentObjects) -> NDArray[np.uint32]:
    """The whole map."""
    return objects.read(whole_box(objects.shape))


def brush(rng: np.random.Generator, shape=SHAPE) -> Placed:
    """Random voxels in a random box."""
    spans = []
    for n in shape:
        low, high = sorted(rng.choice(n + 1, 2, replace=False))
        spans.append((int(low), int(high)))
    mask = rng.random([b - a for a, b in spans]) < 0.6
    mask.flat[0] = True
    return Placed(mask, (spans[0], spans[1], spans[2]))


class Model:
    """What edits do, written plainly: whole arrays, and a copy of everything before each edit."""

    def __init__(self, ids: NDArray[np.uint32]) -> None:
        self.now = (ids.copy(), set(), {})
        self.before, self.after = [], []

    def edit(self) -> tuple[NDArray[np.uint32], set[int], dict[int, str]]:
        """Begin an edit: the map, the accepted ones and the names, to be changed in place."""
        self.before.append(copy.deepcopy(self.now))
        self.after.clear()
        return self.now

    def undo(self) -> None:
        if self.before:
            self.after.append(self.now)
            self.now = self.before.pop()

    def redo(self) -> None:
        if self.after:
            self.before.append(self.now)
            self.now = self.after.pop()

    def put(self, placed: Placed, object_id: int) -> None:
        where = tuple(slice(a, b) for a, b in placed.box)
        self.now[0][where][placed.mask] = object_id
