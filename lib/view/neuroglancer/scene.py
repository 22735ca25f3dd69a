"""What a viewer shows and works on: an image, the network and the study behind it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.classes import Progress
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.fragment_store import fragments_file
from lib.proofread.asking import Asking
from lib.proofread.current import CurrentObjects
from lib.proofread.object_level import Loaded, ObjectLevel
from lib.proofread.queue import DoubtQueue
from lib.proofread.store import ObjectStore
from lib.queries.store import ScoreStore
from lib.volumes.boxes import Box, Triple, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.opened import ImageStore, RequestImage
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.region import RegionSource, volume_contrast
from lib.volumes.study import StudyItem

VOLUME, CLICK = "volume", "click"
"""Kinds of turns on a device."""


class Network(Protocol):
    """The published weights."""

    def get(self, device: str) -> Loaded: ...

    def turn(self, kind: str, device: str) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Desk:
    """What all viewers of one server work with.

    Args:
        settings: the server's.
        hierarchy: the classes.
        network: the published weights.
        device: that computes.
        images: opened images.
        cache: features kept between clicks.
        objects: the current objects of the study's items.
        scores: of the study, and the study itself; None: files alone are viewed.
        taken_in: called after a region was declared annotated.
        undeclared: why no region can be; "" where it can.
    """

    settings: Settings
    hierarchy: LabelHierarchy
    network: Network
    device: str
    images: ImageStore
    cache: FeatureCache
    objects: ObjectStore | None = None
    scores: ScoreStore | None = None
    taken_in: Callable[[], None] = lambda: None
    undeclared: str = ""

    @cached_property
    def queue(self) -> DoubtQueue | None:
        """The doubtful places of the items; None without a study."""
        if self.objects is None:
            return None
        return DoubtQueue(self.objects, self.hierarchy, self.settings.labels.segment_names)

    def item(self, item_id: str) -> Scene:
        """An item of the study.

        Raises:
            ValueError: no such item, or it cannot be read.
        """
        if self.scores is None:
            raise ValueError(f"{item_id}: an item needs its study; give --studies DIR")
        item = self.scores.study.item(item_id)
        return Scene(self, item.id, self.images.open(item.image_path), item)

    def file(self, text: str, voxel_size_nm: tuple[float, float, float] | None = None) -> Scene:
        """A volume that lies in no study.

        Args:
            text: as `open_source` takes it.
            voxel_size_nm: where the file does not say.

        Raises:
            ValueError: it cannot be read, or has no voxel size.
        """
        source = open_source(text, "image", self.settings.data.spacing_unit)
        size = voxel_size_nm or source.info.voxel_size_nm
        if size is None:
            why = source.info.size_fault or "no voxel size"
            raise VolumeError(text, why, remedy="give --voxel-size-nm X Y Z")
        whole = RegionSource(source, whole_box(source.shape), volume_contrast(source), size)
        opened = RequestImage(Path(text), whole, np.eye(4), size, text, source.info.warnings)
        opened = opened.seen_with(self.settings.data.bright_membranes)
        return Scene(self, Path(text.rstrip("/")).name or text, opened, None)


@dataclass(frozen=True)
class Scene:
    """One image with what is known of it.

    Args:
        desk: see there.
        name: the item's id, or the file's name.
        image: its voxels.
        item: of the study; None for a file.
    """

    desk: Desk
    name: str
    image: RequestImage
    item: StudyItem | None

    @property
    def shape(self) -> Triple:
        """Extent in voxels."""
        return self.image.shape

    @property
    def voxel_size_nm(self) -> tuple[float, float, float]:
        """(x, y, z)."""
        return self.image.voxel_size_nm

    def current(self) -> CurrentObjects | None:
        """The objects as they stand; None for a file."""
        if self.item is None or self.desk.objects is None:
            return None
        return self.desk.objects.open(self.name, self.shape)[0]

    def asking(self) -> Asking:
        """What answers clicks on the image.

        Raises:
            ValueError: there are no weights.
        """
        desk, image = self.desk, self.image
        loaded = desk.network.get(desk.device)
        return Asking(
            loaded.predictor, loaded.version, loaded.heads, image.seen, image.key,
            image.voxel_size_nm, desk.cache, lambda: desk.network.turn(CLICK, desk.device),
            None if self.item is None else fragments_file(self.item.image_path.parent, self.name),
        )  # fmt: skip

    def object_level(self, box: Box, progress: Progress) -> ObjectLevel:
        """What tells the classes of a box at the level of objects.

        Raises:
            ValueError: there are no weights.
        """
        desk = self.desk
        loaded = desk.network.get(desk.device)
        return ObjectLevel(desk.objects, desk.cache, loaded, self.image, box, progress)
