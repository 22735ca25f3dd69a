"""Items to train on: lazy images, labels kept in memory in a compact form, box reads.

An item is seen in its network frame: the coarsest axis (the sections) last. Class sets are
held as one byte (an index into the item's few distinct sets), instance ids as int32, so that
a study of several large volumes stays in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Protocol

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.data.splits import ItemSplit, split_item
from lib.labels.hierarchy import IGNORE_INDEX, LabelHierarchy
from lib.volumes.boxes import Box, Triple, box_slices
from lib.volumes.contrast import intensity_window, normalize
from lib.volumes.frames import viewer_frame
from lib.volumes.record import ItemRecord

ANISOTROPY = 1.25
"""An axis this much coarser than the finest is the section axis."""


class SourceItem(Protocol):
    """What the training data needs of a study item (lib/volumes/study.py)."""

    @property
    def id(self) -> str: ...

    @property
    def record(self) -> ItemRecord: ...

    def has_label(self, tag: str) -> bool: ...

    def open_seen(self) -> Any: ...

    def read_class_sets(self, box: Box | None = None) -> NDArray[np.int32]: ...

    def read_instances(self, box: Box | None = None) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Patch:
    """One patch in the network frame.

    Args:
        image: (X, Y, Z) float32 in [0, 1].
        class_sets: (X, Y, Z) int32 bit masks.
        instance: (X, Y, Z) int64, 0 none, -1 unknown.
        voxel_size_nm: (x, y, z).
        item: id of the item it comes from.
        within_sections: the instance ids hold within each section only.
    """

    image: NDArray[np.float32]
    class_sets: NDArray[np.int32]
    instance: NDArray[np.int64]
    voxel_size_nm: tuple[float, float, float]
    item: str
    within_sections: bool = False


@dataclass(frozen=True)
class Labels:
    """The labels of a whole item, compact.

    Args:
        codes: (X, Y, Z) uint8, index into `palette`.
        palette: the distinct class sets, int32.
        ids: (X, Y, Z) int32 instance ids renumbered per item, 0 none, -1 unknown.
    """

    codes: NDArray[np.uint8]
    palette: NDArray[np.int32]
    ids: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.codes.nbytes + self.ids.nbytes

    @property
    def class_sets(self) -> NDArray[np.int32]:
        """(X, Y, Z) bit masks, a new array."""
        return self.palette[self.codes]

    def with_class_sets(self, class_sets: NDArray[np.int32]) -> Labels:
        """The same objects with other (X, Y, Z) class sets."""
        return Labels(*encoded(class_sets), self.ids)


def encoded(class_sets: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Class sets as indices into the few that there are, and these, ascending."""
    palette = fastremap.unique(class_sets)
    assert len(palette) <= 256, "a final map has at most 256 distinct values"
    return np.searchsorted(palette, class_sets).astype(np.uint8), palette.astype(np.int32)


class LabelCache:
    """Keeps the compact labels of the items last used, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: OrderedDict[int, Labels] = OrderedDict()
        self._lock = Lock()

    def get(self, item: DataItem) -> Labels | None:
        """The item's labels, or None where they alone are larger than the whole cache."""
        if 5 * int(np.prod(item.shape, dtype=np.int64)) > self.limit_bytes:
            return None
        key = id(item)  # ids repeat between studies
        with self._lock:
            if key not in self._held:
                self._held[key] = item.load_labels()
            self._held.move_to_end(key)
            labels = self._held[key]
            while sum(h.nbytes for h in self._held.values()) > self.limit_bytes:
                self._held.popitem(last=False)
            return labels


class DataItem:
    """One labelled item in its network frame, with its split.

    Args:
        source: the study's item.
        hierarchy: the label hierarchy.
        val_fraction: share of blocks that validate where the record declares no split.
        cache: where compact labels are kept.
        finest_nm, most_split: of the model settings: finer voxels are binned, coarser split.
    """

    def __init__(
        self,
        source: SourceItem,
        hierarchy: LabelHierarchy,
        val_fraction: float,
        cache: LabelCache,
        finest_nm: float = 0.0,
        most_split: int = 1,
    ) -> None:
        self.source, self.hierarchy, self.cache = source, hierarchy, cache
        self.id = source.id
        image = source.open_seen()
        self.frame = viewer_frame(image.shape, source.record.voxel_size_nm, finest_nm, most_split)
        self._image = self.frame.view(image)
        self.shape: Triple = self.frame.network_shape
        self.voxel_size_nm = self.frame.network_voxel_size_nm
        self.split: ItemSplit = split_item(self.id, self.shape, source.record.split, val_fraction)

    @cached_property
    def window(self) -> tuple[float, float]:
        """Contrast window of the item's image, read when it is first needed."""
        return intensity_window(self._image.image)

    @property
    def group(self) -> str:
        """Items of one origin share a group, and the sampler balances groups.

        The record's `group`, else the item's name up to its first "-" ("fib25-train").
        """
        return str(self.source.record.extra.get("group") or self.id.partition("-")[0])

    @property
    def flat(self) -> bool:
        """A single section."""
        return self.shape[2] == 1

    @property
    def true_instances(self) -> bool:
        """Whether the ids are ground truth in 3D."""
        return bool(self.source.record.true_instances)

    @property
    def isotropic(self) -> bool:
        """Whether the item is a volume of nearly cubic voxels."""
        return not self.flat and max(self.voxel_size_nm) < ANISOTROPY * min(self.voxel_size_nm)

    def read(self, box: Box) -> Patch:
        """Image and labels of a box that may reach beyond the item.

        Beyond the item the image repeats its edge and the labels are unknown.
        """
        inner, pads = _inside(box, self.shape)
        image = self._image[box_slices(inner)]
        sets, ids = self.read_labels(inner)
        return Patch(
            image=np.pad(normalize(image, self.window), pads, mode="edge"),
            class_sets=np.pad(sets, pads, constant_values=self.hierarchy.unknown),
            instance=np.pad(ids, pads, constant_values=IGNORE_INDEX),
            voxel_size_nm=self.voxel_size_nm,
            item=self.id,
        )

    def read_labels(self, box: Box) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Class sets and instance ids of a box inside the item."""
        held = self.cache.get(self)
        if held is not None:
            part = tuple(slice(lo, hi) for lo, hi in box)
            return held.palette[held.codes[part]], held.ids[part].astype(np.int64)
        where = self.frame.viewer_box(box)
        return (
            self.frame.labels_to_network(self.source.read_class_sets(where), box),
            self.frame.labels_to_network(self.source.read_instances(where), box),
        )

    def load_labels(self) -> Labels:
        """Read the item's labels whole, in compact form."""
        codes, palette = encoded(self.source.read_class_sets())
        ids = self.source.read_instances()
        if ids.max(initial=0) >= 2**31:
            compact, _ = fastremap.renumber(np.maximum(ids, 0), preserve_zero=True)
            ids = np.where(ids == IGNORE_INDEX, IGNORE_INDEX, compact.astype(np.int64))
        x, y, z = self.shape
        whole: Box = ((0, x), (0, y), (0, z))
        return Labels(
            np.ascontiguousarray(self.frame.labels_to_network(codes, whole)),
            palette,
            np.ascontiguousarray(self.frame.labels_to_network(ids.astype(np.int32), whole)),
        )


def labelled_items(
    sources: Sequence[SourceItem],
    hierarchy: LabelHierarchy,
    val_fraction: float,
    cache_bytes: int,
    finest_nm: float = 0.0,
    most_split: int = 1,
) -> list[DataItem]:
    """The items that carry labels, in the order given."""
    cache = LabelCache(cache_bytes)
    return [
        DataItem(source, hierarchy, val_fraction, cache, finest_nm, most_split)
        for source in sources
        if source.has_label("final") or source.has_label("instance")
    ]


def _inside(box: Box, shape: Triple) -> tuple[Box, list[tuple[int, int]]]:
    """The part of a box inside a volume (at least one voxel on each axis) and the padding."""
    inner, pads = [], []
    for (lo, hi), n in zip(box, shape, strict=True):
        start = min(max(lo, 0), n - 1)
        stop = max(min(hi, n), start + 1)
        inner.append((start, stop))
        pads.append((max(start - lo, 0), max(hi - stop, 0)))
    return (inner[0], inner[1], inner[2]), pads
