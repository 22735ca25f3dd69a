"""How much of each region is known, counted once for each version of a label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.queries.regions import RegionGrid
from lib.queries.scores import FOLDER
from lib.queries.volumes import KnownParts, is_volume, stored_regions
from lib.volumes.atomic import write_json
from lib.volumes.boxes import Triple, slabs, whole_box
from lib.volumes.study import Study, StudyItem

KNOWN_BUDGET = 1 << 26


class KnownShares:
    """Known shares of a study's items, and which regions of sparse volumes hold anything.

    Args:
        study: the items.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._parts = KnownParts()
        self._shares: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self._stored: dict[str, tuple[str, NDArray[np.bool_] | None]] = {}

    def share(self, item: StudyItem, grid: RegionGrid) -> NDArray[np.float32]:
        """(R,) share of voxels of each region whose class set is known.

        Counted once for each version of the label and kept in a file beside the scores.
        """
        if is_volume(item):
            return self._parts.share(self.study, item, grid)
        if not item.has_label("final"):
            return np.zeros(grid.count, np.float32)
        label = item.label_path("final")
        cells = "x".join(map(str, grid.cells))
        key = f"{_stamp(label)}-{cells}"
        held = self._shares.get(item.id)
        if held is not None and held[0] == key:
            return held[1]
        path = self.study.root / FOLDER / f"{item.id}.known.json"
        share = _read_known(path, key)
        if share is None:
            share = _count_known(item, grid, self.study.hierarchy.unknown)
            write_json(path, {"key": key, "share": [round(float(s), 4) for s in share]})
        self._shares[item.id] = (key, share)
        return share

    def missing(self, item: StudyItem, grid: RegionGrid) -> NDArray[np.bool_] | None:
        """(R,) regions of a sparse volume without any stored voxel; None where that is unknown."""
        if not is_volume(item):
            return None
        key = fingerprint(item)
        if item.id not in self._stored or self._stored[item.id][0] != key:
            self._stored[item.id] = (key, stored_regions(item, grid))
        stored = self._stored[item.id][1]
        return None if stored is None else ~stored


def fingerprint(item: StudyItem) -> str:
    """Changes when the image file does."""
    return _stamp(item.image_path)


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{path.name}-{stat.st_size}-{stat.st_mtime_ns}"


def _read_known(path: Path, key: str) -> NDArray[np.float32] | None:
    try:
        data = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return np.array(data["share"], np.float32) if data.get("key") == key else None


def _count_known(item: StudyItem, grid: RegionGrid, unknown: int) -> NDArray[np.float32]:
    total = np.zeros(grid.count)
    shape: Triple = grid.shape
    for slab in slabs(whole_box(shape), 8, KNOWN_BUDGET):
        known = item.read_class_sets(slab) != unknown
        total += grid.sums(known[None].astype(np.float32), slab)[0]
    return (total / grid.voxels).astype(np.float32)
