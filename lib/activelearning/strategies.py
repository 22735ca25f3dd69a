"""MONAI Label strategies: the next item, with the region in it to annotate."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.doubtful import Doubtful
from lib.activelearning.parts import QueryParts
from lib.proofread.store import ObjectStore
from lib.queries.heatmap import heat_tag
from lib.queries.select import Query, next_region
from lib.queries.select import Strategy as Name
from lib.volumes.boxes import describe_box

logger = logging.getLogger("neuropil.queries")

# In the order of benchmarks/active_learning.py: viewers offer the first one first.
DESCRIPTIONS: dict[Name, str] = {
    "diverse": "Unsure regions that are unlike what is annotated",
    "hierarchy": "Where fine and coarse head, or automatic and prompted classes, disagree",
    "random": "A random region of tissue",
    "uncertainty": "Where the network is unsure, class by class",
}


class NextRegion(Strategy):
    """One strategy.

    Args:
        name: of the strategy.
        parts: shared by all.
    """

    def __init__(self, name: Name, parts: QueryParts) -> None:
        super().__init__(DESCRIPTIONS[name])
        self.name = name
        self.parts = parts

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """The next region.

        Returns:
            `id` of the item and `region`: roi [i0, i1, j0, j1, k0, k1], box, centre, reason,
            score, strategy, known_share. `PatientID` says both for people: Slicer's module
            calls the volume that it loads by it. `heat_map`: where the item's heat map is
            fetched as a volume, if it has one.

        Raises:
            ValueError: nothing to hand out; the message says why.
        """
        store = self.parts.store(datastore)
        query = next_region(
            store,
            self.name,
            weights=self.parts.weights,
            client=str(request.get("client_id") or ""),
        )
        if query.item not in datastore.list_images():  # made now, around a region of a volume
            datastore.refresh()
        logger.info("%s: %s %s, %s", self.name, query.item, query.box, query.reason)
        region = query.to_dict()
        sample = {"id": region.pop("item"), "region": region, "PatientID": told_to_slicer(query)}
        if store.study.item(query.item).has_label(heat_tag("uncertainty")):
            asked = urlencode({"image": query.item, "layer": "uncertainty"})
            sample["heat_map"] = f"/page/volume?{asked}"
        return sample


def told_to_slicer(query: Query) -> str:
    """The name of a volume: the item, where in it to annotate, and why."""
    return f"{query.item}: annotate {describe_box(query.box)} ({query.reason})"


def strategies(parts: QueryParts, objects: ObjectStore) -> dict[str, Strategy]:
    """All strategies by name; viewers offer the first one first."""
    regions = {str(name): NextRegion(name, parts) for name in DESCRIPTIONS}
    return {**regions, "doubtful": Doubtful(parts, objects)}
