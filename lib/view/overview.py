"""What the page tells of a study: items, what is annotated, regions handed out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lib.annotation.versions import versions
from lib.proofread.edits import Edit
from lib.proofread.log import EditLog
from lib.proofread.replay import replay
from lib.queries.ledger import HandedOut, Ledger
from lib.queries.store import ScoreStore
from lib.view.sections import CURRENT, IMAGE, layers, section_axis
from lib.volumes.listing import Skipped
from lib.volumes.study import LABEL_SUFFIXES, StudyItem

PAGE = 48
"""Items on one page."""


@dataclass(frozen=True)
class ItemCard:
    """One item.

    Args:
        id: its name.
        shape: voxels along x, y, z.
        voxel_size_nm: (x, y, z).
        sections: how many there are.
        section: the one that shows most of the annotation; else the middle.
        layers: what can be shown of it.
        known_share: of its voxels.
        submissions: (number, when, "" or why it was refused), oldest first.
        uncertainty: mean over its regions; None without scores.
        regions: handed out a moment ago.
        edits: what people did to its objects, newest first; those undone are not in it.
        accepted: how many objects are right and locked.
        trouble: why it cannot be read; then the rest says nothing.
    """

    id: str
    shape: tuple[int, int, int] = (0, 0, 0)
    voxel_size_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sections: int = 0
    section: int = 0
    layers: tuple[str, ...] = ()
    known_share: float = 0.0
    submissions: tuple[tuple[int, str, str], ...] = ()
    uncertainty: float | None = None
    regions: tuple[HandedOut, ...] = ()
    edits: tuple[Edit, ...] = ()
    accepted: int = 0
    trouble: str = ""

    @property
    def best_layer(self) -> str:
        """What the thumbnail shows."""
        wanted = (CURRENT, "classes", "found objects")
        return next((name for name in wanted if name in self.layers), IMAGE)


@dataclass(frozen=True)
class Overview:
    """A study in figures, and one page of its items.

    Args:
        total: items in the study.
        annotated: items with an annotation.
        start: number of the first card's item.
        cards: of this page.
        regions: handed out in the last minutes, newest first.
        served: regions ever handed out.
        skipped: files that are left out, with the reason.
        scoring: a sentence on the scores; "" when there is nothing to say.
    """

    total: int
    annotated: int
    start: int
    cards: Sequence[ItemCard]
    regions: Sequence[HandedOut]
    served: int
    skipped: Sequence[Skipped]
    scoring: str


def overview(store: ScoreStore, start: int = 0) -> Overview:
    """The study's state now.

    Args:
        store: its scores.
        start: number of the first item to show.
    """
    listing = store.study.listing()
    items = store.study.items_of(listing)
    start = min(max(start, 0), max(len(items) - 1, 0)) // PAGE * PAGE
    regions = recent_regions(store)
    return Overview(
        total=len(items),
        annotated=_annotated(store.study.root, [item.id for item in items]),
        start=start,
        cards=[card(store, item, regions) for item in items[start : start + PAGE]],
        regions=regions,
        served=_ledger(store).served,
        skipped=listing.skipped,
        scoring=_scoring(store),
    )


def recent_regions(store: ScoreStore) -> list[HandedOut]:
    """Regions handed out in the last minutes, newest first."""
    return sorted(_ledger(store).recent(), key=lambda e: -e.at)


def card(store: ScoreStore, item: StudyItem, regions: Sequence[HandedOut] = ()) -> ItemCard:
    """One item's card; one that cannot be read is a card that says why."""
    try:
        scores = store.scores(item)
        grid = scores.grid if scores is not None else store.grid_of(item)
        known = store.known_share(item, grid)
        axis = section_axis(item)
        standing = replay(EditLog(store.study.root, item.id).edits())
        sizes = [np.diff(edges) for edges in grid.edges]
        voxels = np.multiply.outer(np.multiply.outer(sizes[0], sizes[1]), sizes[2])
        shares = known.reshape(voxels.shape)
        layer = (shares * voxels).sum(tuple(a for a in range(3) if a != axis))
        spans = list(pairwise(grid.edges[axis]))
        low, high = spans[int(layer.argmax())] if layer.any() else (0, item.shape[axis])
        return ItemCard(
            item.id, item.shape, item.voxel_size_nm, item.shape[axis], int(low + high) // 2,
            tuple(layers(item)), float((shares * voxels).sum() / voxels.sum()),
            tuple((v.number, v.time, v.rejected) for v in versions(store.study, item.id)),
            None if scores is None else float(scores.entropy.mean()),
            tuple(e for e in regions if e.item == item.id),
            tuple(reversed(standing.active)), len(standing.accepted),
        )  # fmt: skip
    except (ValueError, OSError) as error:
        return ItemCard(item.id, trouble=str(error))


def ago(seconds: float) -> str:
    """A time for people: how long before now."""
    passed = max(0.0, time.time() - seconds)
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if passed >= size:
            count = int(passed // size)
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return "just now"


def _annotated(root: Path, ids: Sequence[str]) -> int:
    """How many items have an annotation: one look at each folder, not one at each file."""
    folders = [root / "labels" / tag for tag in ("final", "instance")]
    names = {p.name for folder in folders if folder.is_dir() for p in folder.iterdir()}
    return sum(any(f"{i}{suffix}" in names for suffix in LABEL_SUFFIXES) for i in ids)


def _ledger(store: ScoreStore) -> Ledger:
    return Ledger(store.study.root, 60.0 * store.queries.reserve_minutes)


def _scoring(store: ScoreStore) -> str:
    status = store.status()
    if status is None or not status.running:
        return ""
    return f"Scores are being computed: {status.done} of {status.total} items, now {status.item}"
