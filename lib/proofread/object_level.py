"""The class map at the level of objects, and the cells that it is told by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lib.prediction.classes import Progress
from lib.prediction.feature_cache import ClassMap, FeatureCache, WindowKey
from lib.prediction.features import Shelf
from lib.prediction.predictor import Predictor
from lib.proofread.store import ObjectStore
from lib.volumes.boxes import Box, whole_box
from lib.volumes.opened import RequestImage, item_id


class Loaded(Protocol):
    """A network on a device."""

    @property
    def predictor(self) -> Predictor: ...

    @property
    def version(self) -> str: ...

    @property
    def heads(self) -> str: ...

    @property
    def fragments(self) -> str: ...


@dataclass(frozen=True)
class Cells:
    """The cells of an image or of a part of it.

    Args:
        ids: (X, Y, Z), 0 none.
        state: changes whenever people change them; "" where the network found them.
    """

    ids: NDArray[np.uint32]
    state: str = ""

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.ids.nbytes


@dataclass(frozen=True)
class ObjectLevel:
    """Answers for one image, the same to everybody who asks.

    Args:
        objects: of the study; None: the image lies in none.
        cache: where what was found is kept for the next question.
        loaded: the network.
        image: that is asked about.
        limits: the part that is wanted; None: all.
        progress: of the network's run.
    """

    objects: ObjectStore | None
    cache: FeatureCache
    loaded: Loaded
    image: RequestImage
    limits: Box | None = None
    progress: Progress | None = None

    def cells(self) -> Cells:
        """The objects as people have corrected them, else those that the network finds."""
        image = self.image
        if self.objects is not None and self.objects.holds(image.path):
            current, _ = self.objects.open(item_id(image.path), image.shape)
            if current.machine is not None:  # the log of edits only ever grows
                state = f"{current.machine.version} {len(current.log.edits())}"
                return Cells(current.read(self.limits or whole_box(image.shape)), state)
        return self.cache.get(self._key("cells"), self._found)

    def classes(self, cells: Cells) -> NDArray[np.uint8]:
        """(X, Y, Z) values as `classes_of_objects`; kept, and not to be written to.

        Args:
            cells: of `cells`.
        """

        def compute() -> ClassMap:
            image = self.image
            return ClassMap(
                self.loaded.predictor.object_classes(
                    image.seen, image.voxel_size_nm, self.progress, self._shelf(), self.limits,
                    cells.ids,
                )
            )  # fmt: skip

        return self.cache.get(self._key(f"object classes {cells.state}"), compute).classes

    def _found(self) -> Cells:
        image = self.image
        found = self.loaded.predictor.objects(
            image.seen, image.voxel_size_nm, self.progress, self._shelf(), box=self.limits
        )
        return Cells(found.ids)

    def _shelf(self) -> Shelf:
        return Shelf(self.cache, self.loaded.version, self.image.key)

    def _key(self, what: str) -> WindowKey:
        loaded, part = self.loaded, self.limits or whole_box(self.image.shape)
        kind = f"{what} {loaded.heads} {loaded.fragments}"
        return WindowKey(loaded.version, self.image.key, part, kind)
