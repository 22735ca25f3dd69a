"""The regions of a study that are still open, item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.queries.acquisition import (
    Candidates,
)
from lib.queries.ledger import HandedOut
from lib.queries.regions import RegionGrid
from lib.queries.scores import ItemScores
from lib.queries.store import ScoreStore
from lib.queries.volumes import is_volume, without_parts
from lib.volumes.boxes import Box
from lib.volumes.errors import VolumeError
from lib.volumes.listing import Skipped
from lib.volumes.study import StudyItem


class NoRegion(ValueError):
    """There is nothing to hand out; the message says why and what to do.

    Args:
        status: "empty" (no items), "finished" (all annotated) or "reserved" (all that is left
            was handed out to others a moment ago).
    """

    def __init__(self, status: Literal["empty", "finished", "reserved"], message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Pool:
    """The regions of one item that are still open, and the features of those that are not."""

    item: StudyItem
    grid: RegionGrid
    scores: ItemScores | None
    known: NDArray[np.float32]
    open: NDArray[np.int64]
    covered: NDArray[np.int64]


def open_pools(
    store: ScoreStore, recent: list[HandedOut], client: str
) -> tuple[list[Pool], list[Skipped]]:
    """The items with what is open in them, and the files that are left out.

    Recent regions are taken out; where nothing else is left, the client's own come back.

    Raises:
        NoRegion: no items, nothing left to annotate, or all of it with others.
    """
    found, skipped = store.usable_items()
    items = without_parts(found)
    if not items:
        told = "".join(f"; {s.name}: {s.reason}" for s in skipped[:3])
        raise NoRegion(
            "empty",
            f"the study {store.study.root} has no images that can be read; import some with "
            f"`python main.py import` or make a demo study with `python main.py demo`{told}",
        )
    for reserved in (recent, [e for e in recent if e.client != client]):
        pools = _pools(store, items, reserved, skipped)
        if any(len(p.open) for p in pools):
            return pools, skipped
    if any((p.known < store.queries.annotated_share).any() for p in pools):
        minutes = store.queries.reserve_minutes
        raise NoRegion(
            "reserved",
            f"every region that is left was handed out to others in the last {minutes:g} "
            "minutes; ask again later",
        )
    raise NoRegion(
        "finished",
        f"no unlabelled region is left: all {len(items)} items are annotated to "
        f"{store.queries.annotated_share:.0%} or more everywhere",
    )


def _pools(
    store: ScoreStore, items: list[StudyItem], reserved: list[HandedOut], skipped: list[Skipped]
) -> list[Pool]:
    """A pool for each item; one whose label cannot be read is left out, and named."""
    taken: dict[str, list[Box]] = {}
    for entry in reserved:
        taken.setdefault(entry.item, []).append(entry.box)
    known_bad = {s.name for s in skipped}
    labelled = store.study.labelled("final")
    pools = []
    for item in items:
        try:
            pools.append(_pool(store, item, taken.get(item.id, []), item.id in labelled))
        except VolumeError as error:
            if item.image_path.name not in known_bad:
                skipped.append(Skipped(item.image_path.name, str(error)))
    return pools


def _pool(store: ScoreStore, item: StudyItem, taken: list[Box], labelled: bool) -> Pool:
    scores = store.scores(item)
    grid = scores.grid if scores is not None else store.grid_of(item)
    if labelled or is_volume(item):
        known = store.known_share(item, grid)
    else:
        known = np.zeros(grid.count, np.float32)
    done = known >= store.queries.annotated_share
    for box in taken:
        done = done.copy()
        done[grid.overlapping(box)] = True
    missing = None if scores is not None else store.missing(item, grid)
    if missing is not None:  # of a sparse volume: there is nothing to know
        known, done = np.where(missing, np.float32(1), known), done | missing
    return Pool(item, grid, scores, known, np.flatnonzero(~done), np.flatnonzero(done))


def gather(pools: list[Pool]) -> Candidates:
    """The figures of all open regions of the items, one after another."""
    columns: dict[str, list[NDArray[np.float32]]] = {}
    for pool in pools:
        assert pool.scores is not None
        for name in Candidates.__dataclass_fields__:
            values = pool.known if name == "known" else getattr(pool.scores, name)
            columns.setdefault(name, []).append(values[pool.open])
    return Candidates(**{name: np.concatenate(parts) for name, parts in columns.items()})
