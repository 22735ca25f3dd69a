"""All scores of a study: what is there, what is stale, how far a running job is."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.configs.settings import QuerySettings, Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.queries.compute import score_volume
from lib.queries.job import ScoringStatus as ScoringStatus
from lib.queries.job import note_status, read_status
from lib.queries.known import KnownShares
from lib.queries.known import fingerprint as fingerprint
from lib.queries.regions import RegionGrid
from lib.queries.scores import ItemScores, load_scores, save_scores, scores_path
from lib.queries.volumes import is_volume
from lib.volumes.errors import VolumeError
from lib.volumes.frames import viewer_frame
from lib.volumes.listing import Skipped
from lib.volumes.record import ASSUMED_NM, read_record, record_path
from lib.volumes.study import Study, StudyItem

logger = logging.getLogger("neuropil.queries")

LoadNetwork = Callable[[], tuple[NeuropilNet, Settings, LabelHierarchy]]
Report = Callable[[str, int, int], None]


Freshness = Literal["fresh", "stale", "missing"]


class ScoreStore:
    """Scores, known shares and the status of the job that computes scores.

    Args:
        study: the items.
        queries: size of a region.
    """

    def __init__(self, study: Study, queries: QuerySettings) -> None:
        self.study = study
        self.queries = queries
        self.lock = Lock()  # choosing and reserving a region is one step
        self._scores: dict[str, tuple[int, ItemScores | None]] = {}
        self._known = KnownShares(study)
        self._grids: dict[str, tuple[str, RegionGrid | VolumeError]] = {}
        self._bright: dict[str, tuple[int, bool]] = {}
        self._told: set[str] = set()

    def usable_items(self) -> tuple[list[StudyItem], list[Skipped]]:
        """The items that can be read, by their headers, and the files that are left out.

        What a file says is asked once for each version of it; what is left out is logged once.
        """
        listing = self.study.listing()
        items, skipped = [], list(listing.skipped)
        for item in self.study.items_of(listing):
            try:
                if self.scores(item) is None:
                    self.grid_of(item)
                items.append(item)
            except (VolumeError, FileNotFoundError) as error:
                skipped.append(Skipped(item.image_path.name, str(error)))
        for left in skipped:
            if str(left) not in self._told:
                self._told.add(str(left))
                logger.warning("left out of the study: %s: %s", left.name, left.reason)
        return items, skipped

    def look_through(self) -> None:
        """Read what the first sample would have to: headers, and what labels make known."""
        items, _ = self.usable_items()
        labelled = self.study.labelled("final")
        for item in items:
            if item.id not in labelled or is_volume(item):
                continue
            scores = self.scores(item)
            try:
                self.known_share(item, scores.grid if scores is not None else self.grid_of(item))
            except (VolumeError, FileNotFoundError) as error:
                logger.warning("%s: %s", item.id, error)

    def scores(self, item: StudyItem) -> ItemScores | None:
        """Stored scores of an item, stale or not; None where there are none that fit it."""
        path = scores_path(self.study.root, item.id)
        try:
            stamp = path.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None
        held = self._scores.get(item.id)
        if held is None or held[0] != stamp:
            held = (stamp, load_scores(path))
            self._scores[item.id] = held
        scores = held[1]
        # An image that was replaced makes its scores meaningless, not just old.
        return scores if scores is not None and scores.image == self._seen(item) else None

    def _seen(self, item: StudyItem) -> str:
        """Changes when the image file does, or whether its membranes are bright.

        A record is read once for each version of it; the image is not opened for it.
        """
        path = record_path(self.study.root, item.id)
        age = _age(path)
        held = self._bright.get(item.id)
        if held is None or held[0] != age:
            try:
                said = read_record(path, item.id, ASSUMED_NM).bright_membranes
            except VolumeError:
                said = None  # whoever uses the item is told
            held = age, self.study.bright_membranes if said is None else said
            self._bright[item.id] = held
        return fingerprint(item) + ("-bright" if held[1] else "")

    def freshness(self, item: StudyItem, weights: str) -> Freshness:
        """Whether an item's scores are those of the weights."""
        scores = self.scores(item)
        if scores is None:
            return "missing"
        same = scores.weights == weights and scores.region == self.queries.region
        return "fresh" if same else "stale"

    def stale_items(self, weights: str) -> list[StudyItem]:
        """The items that can be read and have no scores of the weights."""
        items, _ = self.usable_items()
        return [i for i in items if not is_volume(i) and self.freshness(i, weights) != "fresh"]

    def grid_of(self, item: StudyItem) -> RegionGrid:
        """The regions of an item that has no scores yet.

        Raises:
            VolumeError: its image or record cannot be read.
        """
        stamp = f"{fingerprint(item)}-{_age(record_path(self.study.root, item.id))}"
        held = self._grids.get(item.id)
        if held is None or held[0] != stamp:
            try:
                held = stamp, self._grid_of(item)
            except VolumeError as error:
                held = stamp, error
            self._grids[item.id] = held
        if isinstance(held[1], VolumeError):
            raise held[1]
        return held[1]

    def _grid_of(self, item: StudyItem) -> RegionGrid:
        axes = viewer_frame(item.shape, item.voxel_size_nm).order
        region = [0, 0, 0]
        for axis, size in zip(axes, self.queries.region, strict=True):
            region[axis] = size
        return RegionGrid.of(item.shape, (region[0], region[1], region[2]))

    def known_share(self, item: StudyItem, grid: RegionGrid) -> NDArray[np.float32]:
        """(R,) share of voxels of each region whose class set is known."""
        return self._known.share(item, grid)

    def missing(self, item: StudyItem, grid: RegionGrid) -> NDArray[np.bool_] | None:
        """(R,) regions of a sparse volume without any stored voxel; None where that is unknown."""
        return self._known.missing(item, grid)

    def status(self) -> ScoringStatus | None:
        """The last scoring job; None when there never was one."""
        return read_status(self.study.root)

    def score(
        self,
        load: LoadNetwork,
        weights: str,
        *,
        report: Report | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> int:
        """Compute the scores of all items that have none or stale ones.

        A process that is killed leaves the items it finished; the next run goes on.

        Args:
            load: gives network, settings and hierarchy; called only where there is work.
            weights: version of those weights.
            report: called with (item id, windows done, windows in all).
            stop: asked between windows; true ends the run after what is finished.

        Returns:
            Items scored.

        Raises:
            ValueError: images that cannot be read, once all others are scored; or the weights
                are of other classes.
        """
        todo = self.stale_items(weights)
        if not todo:
            return 0
        net, settings, hierarchy = load()
        if hierarchy.class_names != self.study.hierarchy.class_names:
            raise ValueError(
                f"the weights' classes are {', '.join(hierarchy.class_names)}; the study has "
                f"{', '.join(self.study.hierarchy.class_names)}. Train on this study first"
            )
        settings = settings.model_copy(update={"queries": self.queries})
        done = 0
        unreadable: list[str] = []
        try:
            for item in todo:
                note_status(self.study.root, done, len(todo), item.id)
                tick = self._ticker(item.id, done, len(todo), report, stop)
                try:
                    scores = score_volume(
                        net, item.open_seen(), item.voxel_size_nm, settings, hierarchy,
                        weights=weights, image=self._seen(item), progress=tick,
                    )  # fmt: skip
                except (ValueError, OSError, MemoryError) as error:
                    reason = str(error) or type(error).__name__
                    unreadable.append(f"{item.image_path.name}: {reason}")
                    continue
                save_scores(scores_path(self.study.root, item.id), scores)
                self.known_share(item, scores.grid)
                done += 1
        except _Stopped:
            return done
        finally:
            note_status(self.study.root, done, len(todo), "", running=False)
        if unreadable:
            raise ValueError("\n".join([f"{done} items are scored, not these:", *unreadable]))
        return done

    def _ticker(
        self,
        item_id: str,
        done: int,
        total: int,
        report: Report | None,
        stop: Callable[[], bool] | None,
    ) -> Callable[[int, int], None]:
        last = time.monotonic()

        def tick(window: int, windows: int) -> None:
            nonlocal last
            if stop is not None and stop():
                raise _Stopped
            if time.monotonic() - last > 20.0:
                note_status(self.study.root, done, total, item_id)
                last = time.monotonic()
            if report is not None:
                report(item_id, window, windows)

        return tick


class _Stopped(Exception):
    """Ends a run between two windows."""


def weights_version(path: Path) -> str:
    """A name for the content of a weights file, the same wherever a copy of it lies.

    Returns:
        "" where there is no such file.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ""
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _digest(path: Path, mtime: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
