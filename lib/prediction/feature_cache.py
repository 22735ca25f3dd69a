"""Features that clicks share: computed once for a window, kept up to a budget of bytes.

The newest windows stay. An entry belongs to one version of the weights, one image and one
window; the first request with other weights drops everything older.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lib.volumes.boxes import Box

CONTRASTS = 256
"""Images whose contrast window is remembered; a pair of numbers each."""


@dataclass(frozen=True)
class WindowKey:
    """What an entry belongs to.

    Args:
        weights: version of the network's weights.
        image: identity of the image, changing when its content does.
        box: the window, network voxels.
        kind: what is kept: "features", or "classes" of the automatic mode.
    """

    weights: str
    image: str
    box: Box
    kind: str = "features"


@dataclass(frozen=True)
class WindowFeatures:
    """What clicks in one window need, voxels in C order.

    Args:
        box: the window, network voxels.
        features: (V, F) half precision.
        embedding: (V, E) half precision, of the automatic mode.
    """

    box: Box
    features: Tensor
    embedding: Tensor

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(t.element_size() * t.nelement() for t in (self.features, self.embedding))


@dataclass(frozen=True)
class ClassMap:
    """Automatic classes of a box.

    Args:
        classes: (x, y, z) uint8, fine class + 1.
    """

    classes: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.classes.nbytes


class Entry(Protocol):
    """What can be kept."""

    @property
    def nbytes(self) -> int: ...


Kept = TypeVar("Kept", bound=Entry)


class FeatureCache:
    """Thread-safe store of window features, the least recently used leave first.

    Two requests for one missing window compute it once: the second waits.

    Args:
        budget: most bytes of features held.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[WindowKey, Entry] = OrderedDict()
        self._pending: dict[WindowKey, threading.Event] = {}
        self._contrasts: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._weights: str | None = None
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of features held now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: WindowKey, compute: Callable[[], Kept]) -> Kept:
        """The entry of `key`, computed when it is missing.

        What `compute` raises reaches the caller; the next request tries again.
        """
        while True:
            with self._lock:
                self._see(key.weights)
                found = self._entries.get(key)
                if found is not None:
                    self._entries.move_to_end(key)
                    self.hits += 1
                    return cast(Kept, found)  # a kind of key holds one type
                waiting = self._pending.get(key)
                if waiting is None:
                    done = self._pending[key] = threading.Event()
                    self.misses += 1
                    break
            waiting.wait()
        try:
            made = compute()
            with self._lock:
                self._store(key, made)
            return made
        finally:
            with self._lock:
                del self._pending[key]
            done.set()

    def contrast(
        self, image: str, compute: Callable[[], tuple[float, float]]
    ) -> tuple[float, float]:
        """The contrast window of an image, computed once."""
        with self._lock:
            found = self._contrasts.get(image)
        if found is None:
            found = compute()
            with self._lock:
                self._contrasts[image] = found
                while len(self._contrasts) > CONTRASTS:
                    self._contrasts.popitem(last=False)
        return found

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._drop()
            self._contrasts.clear()

    def _see(self, weights: str) -> None:
        if weights != self._weights:
            self._drop()
            self._weights = weights

    def _drop(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _store(self, key: WindowKey, made: Entry) -> None:
        if key.weights != self._weights or made.nbytes > self.budget:
            return  # newer weights came meanwhile, or it would push everything else out
        self._entries[key] = made
        self._bytes += made.nbytes
        while self._bytes > self.budget:
            _, old = self._entries.popitem(last=False)
            self._bytes -= old.nbytes
