"""What an annotator has just been shown of other objects: a cut holds at the next click.

An answer is no edit until it is accepted. But somebody who has cut an object in two, and then
clicks on the other half under another name, means the half that is left. So the last answer of
each name is laid over the objects for the same client's clicks under other names, as an object
that is neither locked nor kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from lib.labels.hierarchy import normalize_name
from lib.proofread.current import CurrentObjects, Placed
from lib.proofread.machine import Ids
from lib.volumes.boxes import Box, Triple, box_origin, box_shape, box_slices, minus, shift_box
from lib.volumes.boxes import intersect as common_box

MOST_DRAFTS = 64
MOST_CLIENTS = 32


class Drafts:
    """The last answers of each client on each item, by the segment's name; bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], OrderedDict[str, Placed]] = OrderedDict()

    def note(self, client: str, item_id: str, name: str, placed: Placed) -> None:
        """Keep an answer; nothing for clients or segments without a name."""
        tight = placed.cut()
        if not client or not name.strip() or tight is None:
            return
        with self._lock:
            mine = self._kept.setdefault((client, item_id), OrderedDict())
            self._kept.move_to_end((client, item_id))
            mine[normalize_name(name)] = tight
            mine.move_to_end(normalize_name(name))
            while len(mine) > MOST_DRAFTS:
                mine.popitem(last=False)
            while len(self._kept) > MOST_CLIENTS:
                self._kept.popitem(last=False)

    def forget(self, client: str, item_id: str) -> None:
        """Drop a client's answers on an item: it has submitted, or taken an edit back."""
        with self._lock:
            self._kept.pop((client, item_id), None)

    def others(
        self, client: str, item_id: str, name: str, points: Sequence[Sequence[int]]
    ) -> list[Placed]:
        """Answers under other names that hold none of some points."""
        with self._lock:
            mine = self._kept.get((client, item_id), OrderedDict())
            kept = [placed for key, placed in mine.items() if key != normalize_name(name)]
        return [placed for placed in kept if not any(_holds(placed, p) for p in points)]


class WithDrafts:
    """Current objects with drafts on them; slices like an (X, Y, Z) uint32 array.

    Args:
        objects: as they stand.
        drafts: each an object of its own.
    """

    def __init__(self, objects: CurrentObjects, drafts: Sequence[Placed]) -> None:
        self.objects, self.drafts = objects, drafts
        self._first = objects.new_id()

    @property
    def shape(self) -> Triple:
        """Extent in voxels."""
        return self.objects.shape

    def __getitem__(self, index: Any) -> Ids:
        x, y, z = (s.indices(n)[:2] for s, n in zip(index, self.shape, strict=True))
        box: Box = (x, y, z)
        ids = self.objects.read(box)
        for n, draft in enumerate(self.drafts):
            common = common_box(draft.box, box)
            if common is not None:
                part = ids[box_slices(shift_box(common, minus(box_origin(box))))]
                seen = draft.mask[box_slices(shift_box(common, minus(box_origin(draft.box))))]
                part[seen & ~self.objects.locked(common)] = self._first + n
        assert ids.shape == box_shape(box)
        return ids


def _holds(placed: Placed, point: Sequence[int]) -> bool:
    at = tuple(int(p) - low for p, low in zip(point, box_origin(placed.box), strict=True))
    inside = all(0 <= a < n for a, n in zip(at, placed.mask.shape, strict=True))
    return inside and bool(placed.mask[at])
