"""The doubtful places of a study's items, ranked again when anybody has edited them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy
from lib.proofread.current import CurrentObjects
from lib.proofread.doubts import Doubt, doubts_of
from lib.proofread.naming import current_classes
from lib.proofread.store import ObjectStore


class DoubtQueue:
    """What to look at next, item by item.

    Args:
        store: the current objects of the items.
        hierarchy: of their classes.
        mapping: names of the lab -> class or group names.
    """

    def __init__(
        self, store: ObjectStore, hierarchy: LabelHierarchy, mapping: Mapping[str, str]
    ) -> None:
        self.store, self.hierarchy, self.mapping = store, hierarchy, mapping
        self._ranked: dict[str, tuple[str, list[Doubt]]] = {}

    def of(
        self, item_id: str, objects: CurrentObjects, voxel_size_nm: Sequence[float]
    ) -> list[Doubt]:
        """Doubts of an item, the most rewarding first; none where there are no objects."""
        version = objects.version
        held = self._ranked.get(item_id)
        if held is not None and held[0] == version:
            return held[1]
        joins = self.store.joins(item_id, objects, voxel_size_nm)
        ranked = (
            []
            if joins is None
            else doubts_of(objects, joins, self.classes(item_id, objects), self.hierarchy)
        )
        self._ranked[item_id] = version, ranked
        return ranked

    def classes(self, item_id: str, objects: CurrentObjects) -> NDArray[np.uint8]:
        """(N + 1,) fine class + 1 of the current objects of an item; 0 where not known."""
        machine = self.store.classes(item_id, objects)
        return current_classes(objects, machine, self.hierarchy, self.mapping)
