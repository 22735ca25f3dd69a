"""The cells that a class map at the level of objects is told by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.prediction.classes import Progress
from lib.prediction.feature_cache import FeatureCache, WindowKey
from lib.prediction.features import Shelf
from lib.proofread.store import ObjectStore
from lib.server.weights import Loaded
from lib.volumes.boxes import Box, whole_box
from lib.volumes.opened import RequestImage, item_id


@dataclass(frozen=True)
class FoundCells:
    """Cells of an image that has no current objects.

    Args:
        ids: (X, Y, Z), 0 none.
    """

    ids: NDArray[np.uint32]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.ids.nbytes


def cells_of(
    objects: ObjectStore,
    cache: FeatureCache,
    loaded: Loaded,
    image: RequestImage,
    limits: Box | None = None,
    progress: Progress | None = None,
) -> NDArray[np.uint32]:
    """The objects of an image as people have corrected them, else those that the network finds.

    Args:
        objects: of the study.
        cache: keeps what was found, so that the next question finds the same.
        limits: the part that is wanted; None: all.
    """
    part = limits or whole_box(image.shape)
    if objects.holds(image.path):
        current, _ = objects.open(item_id(image.path), image.shape)
        if current.machine is not None:
            return current.read(part)
    shelf = Shelf(cache, loaded.version, image.key)

    def found() -> FoundCells:
        return FoundCells(
            loaded.predictor.objects(
                image.voxels, image.voxel_size_nm, progress, shelf, box=limits
            ).ids
        )

    kind = f"cells {loaded.heads} {loaded.fragments}"
    return cache.get(WindowKey(loaded.version, image.key, part, kind), found).ids
