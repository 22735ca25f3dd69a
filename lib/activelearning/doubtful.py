"""The strategy `doubtful`: the object or join to proofread next."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.parts import QueryParts
from lib.proofread.doubts import Doubt, region_around
from lib.proofread.queue import DoubtQueue
from lib.proofread.store import ObjectStore
from lib.queries.ledger import HandedOut, Ledger
from lib.queries.select import NoRegion, Query
from lib.queries.store import ScoreStore
from lib.volumes.boxes import Box, describe_box
from lib.volumes.study import StudyItem

STRATEGY = "doubtful"
logger = logging.getLogger("neuropil.queries")


class Doubtful(Strategy):
    """Proposes the object whose correction would change most, place by place.

    Args:
        parts: shared by all.
        objects: the current objects of the study's items.
    """

    def __init__(self, parts: QueryParts, objects: ObjectStore) -> None:
        super().__init__("Proofreading: the object whose correction would change most")
        self.parts, self.objects = parts, objects
        self._lock = threading.Lock()
        names = parts.settings.labels.segment_names
        self.queue = DoubtQueue(objects, parts.hierarchy, names)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """The next place to look at.

        Returns:
            As other strategies do (lib/activelearning/strategies.py); `region` also has
            `object` and `other`, the ids it is about, `place`, the voxel, and `kind`.

        Raises:
            ValueError: nothing to hand out; the message says why.
        """
        store = self.parts.store(datastore)
        client = str(request.get("client_id") or "")
        with self._lock, store.lock:
            ledger = Ledger(store.study.root, 60.0 * store.queries.reserve_minutes)
            seen = [e for e in ledger.recent() if e.strategy == STRATEGY]
            item, doubt, query = self._next(store, seen)
            ledger.add(HandedOut(item.id, query.box, client, STRATEGY, time.time()))
        logger.info("doubtful: %s %s, %s", item.id, query.box, query.reason)
        region = query.to_dict()
        region |= {
            "object": doubt.object, "other": doubt.other, "place": list(doubt.place),
            "kind": doubt.kind,
        }  # fmt: skip
        name = f"{item.id}: proofread {describe_box(query.box)} ({doubt.reason})"
        return {"id": region.pop("item"), "region": region, "PatientID": name}

    def _next(self, store: ScoreStore, seen: Sequence[HandedOut]) -> tuple[StudyItem, Doubt, Query]:
        best: tuple[StudyItem, Doubt, Box] | None = None
        known = 0
        found = {p.name.removesuffix(".nii.gz") for p in self.objects.machine_files()}
        for item in (one for one in store.study.items() if one.id in found):
            objects, _ = self.objects.open(item.id, item.shape)
            if objects.machine is None:
                continue
            known += 1
            for doubt in self.queue.of(item.id, objects, item.voxel_size_nm):
                if best is not None and doubt.score <= best[1].score:
                    break
                box = region_around(doubt.place, item.shape, store.queries.region)
                if not any(e.item == item.id and e.box == box for e in seen):
                    best = item, doubt, box
                    break
        if best is None and not known:
            raise NoRegion("empty", "no item has objects yet; run `instances` on one first")
        if best is None:
            raise NoRegion(
                "reserved" if seen else "finished",
                "every doubtful join was handed out a moment ago; ask again later"
                if seen
                else "no join is in doubt: all objects are accepted, or sure",
            )
        item, doubt, box = best
        query = Query(item.id, box, doubt.place, STRATEGY, doubt.score, doubt.reason, 0.0)
        return item, doubt, query
