"""MONAI Label scoring methods: scores of regions, and figures of automatic against final."""

from __future__ import annotations

import logging
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from lib.activelearning.parts import QueryParts
from lib.queries.agreement import AUTOMATIC, agreement
from lib.queries.heatmap import heat_tag, write_heat_map
from lib.queries.scores import HEAT_MAPS

logger = logging.getLogger("neuropil.queries")


class RegionScores(ScoringMethod):
    """Computes the scores that the strategies use, and heat maps for viewers.

    Args:
        parts: shared by all.
    """

    def __init__(self, parts: QueryParts) -> None:
        super().__init__("Scores all regions with the published weights; writes heat maps")
        self.parts = parts

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score every item that has no scores of the published weights.

        Args:
            request: `device`; `heat_maps` false leaves the maps out.

        Returns:
            Number of items scored, the mean uncertainty of each, and the files left out.

        Raises:
            ValueError: nothing is published yet, or images cannot be read; the others are scored.
        """
        store, weights = self.parts.store(datastore), self.parts.weights
        todo = store.stale_items(weights)
        failure: ValueError | None = None
        try:
            store.score(lambda: self.parts.load(request.get("device")), weights, report=_log)
        except ValueError as error:
            failure = error  # told below, when what could be scored has its maps
        found: dict[str, float] = {}
        for item in todo:
            scores = store.scores(item)
            if scores is None or store.freshness(item, weights) != "fresh":
                continue
            found[item.id] = round(float(scores.entropy.mean()), 4)
            if str(request.get("heat_maps", True)).lower() != "false":
                files = {heat_tag(n): write_heat_map(item, scores, n) for n in HEAT_MAPS}
                _note_labels(datastore, item.id, {t: {"name": p.name} for t, p in files.items()})
            info = {"uncertainty": found[item.id], "scored_with": weights}
            datastore.update_image_info(item.id, info)
        if failure is not None:
            raise failure
        left_out = {s.name: s.reason for s in store.usable_items()[1]}
        return {"scored": len(found), "uncertainty": found, "skipped": left_out}


class Agreement(ScoringMethod):
    """Compares the automatic labels with the annotated ones of every item that has both.

    Args:
        parts: shared by all.
    """

    def __init__(self, parts: QueryParts) -> None:
        super().__init__("IoU and Dice by class, ARE and VOI of the automatic label against final")
        self.parts = parts

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Write the figures into each item's info.

        Returns:
            The figures by item.
        """
        found: dict[str, Any] = {}
        for item in self.parts.store(datastore).study.items():
            info = datastore.get_label_info(item.id, AUTOMATIC) or {}
            params = info.get("params") or info
            try:
                figures = agreement(item, params.get("label_names"))
            except ValueError as error:
                logger.warning("no agreement of %s: %s", item.id, error)
                continue
            if figures is not None:
                found[item.id] = figures
                datastore.update_image_info(item.id, {"agreement": figures})
        return found


def scoring_methods(parts: QueryParts) -> dict[str, ScoringMethod]:
    """All scoring methods by name."""
    return {"uncertainty": RegionScores(parts), "agreement": Agreement(parts)}


def _log(item: str, done: int, total: int) -> None:
    if done == total or done % max(1, total // 10) == 0:
        logger.info("scoring %s: %d of %d windows", item, done, total)


def _note_labels(datastore: Datastore, item: str, labels: dict[str, dict[str, Any]]) -> None:
    """Enter files in the datastore's index where it keeps one that does not see them itself."""
    note = getattr(datastore, "note_labels", None)
    if note is not None:
        note(item, labels)
