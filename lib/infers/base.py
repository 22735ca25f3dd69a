"""What the inference tasks share: the request's image, the network, options and answers."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.annotation.clicked import Clicked
from lib.configs.settings import Settings
from lib.infers.viewer_labels import ViewerLabels
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import Shelf
from lib.proofread.store import ObjectStore
from lib.server.errors import refuse
from lib.server.weights import Loaded, SharedNetwork, device_named
from lib.volumes.opened import ImageStore, RequestImage

logger = logging.getLogger("neuropil.infer")


@dataclass
class Answer:
    """What a task found.

    Args:
        file: the label map for the viewer, or None.
        params: what goes into the reply's JSON.
        stored: label tag -> file to keep in the datastore beside the reply.
        clicked: name -> what was answered to clicks; not for the reply.
    """

    file: str | None
    params: dict[str, Any] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)
    clicked: dict[str, Clicked] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """What all tasks share.

    Args:
        network: the published weights.
        labels: what viewers are told.
        settings: the server's.
        images: opened images.
        cache: features kept between clicks.
        objects: the current objects of the study's items.
    """

    network: SharedNetwork
    labels: ViewerLabels
    settings: Settings
    images: ImageStore
    cache: FeatureCache
    objects: ObjectStore


class NeuropilTask(InferTask):
    """A MONAI Label inference task on the shared network.

    Args:
        parts: what all tasks share.
        type: how viewers offer the task.
        description: for people.
        options: what a viewer may set for a run; lists start with the default.
    """

    reads: frozenset[str] = frozenset()
    """The parameters of a request that are no options (lib/server/spelling.py)."""

    def __init__(
        self, parts: Parts, type: InferType, description: str, options: dict[str, Any]
    ) -> None:
        super().__init__(type, dict(parts.labels.names), 3, description, options)
        self.network = parts.network
        self.viewer_labels = parts.labels
        self.settings = parts.settings
        self.images = parts.images
        self.cache = parts.cache

    def is_valid(self) -> bool:
        """Offered even before the first training: the reply then says what is missing."""
        return True

    def get_path(self, validate: bool = True) -> str | None:
        """The published weights file; None where it must exist and does not."""
        path = self.network.path
        return str(path) if path.exists() or not validate else None

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        begin = time.monotonic()
        device = device_named(request.get("device"))
        loaded = self.network.get(device)
        image = self._image(request)
        answer = self.run(request, loaded, image, device)
        seconds = time.monotonic() - begin
        logger.info("%s on %s: %.2f s", request.get("model"), image.path.name, seconds)
        params = {
            "label_names": dict(self.viewer_labels.names),
            "centroids": {},  # OHIF asks for the key
            "latencies": {"total": round(seconds, 3)},
            "weights": loaded.version,
            "study_heads": bool(loaded.heads),
            **loaded.predictor.frame(image.shape, image.voxel_size_nm).resampling(),
            **answer.params,
        }
        if image.warnings:
            params["warnings"] = [*answer.params.get("warnings", ()), *image.warnings]
        if answer.stored:
            params["stored"] = answer.stored  # taken out by the app, which knows the datastore
        if answer.clicked:
            params["clicked"] = answer.clicked  # likewise
        return answer.file, params

    def _image(self, request: dict[str, Any]) -> RequestImage:
        """The request's image, its membranes as the request says, else as its record does."""
        image = self.images.open(Path(request["image"]))
        bright = request.get("bright_membranes")
        if bright is None:
            return image
        if not isinstance(bright, bool):
            raise refuse(f"bright_membranes: expected true or false, found {bright!r}")
        return image.seen_with(bright)

    @abstractmethod
    def run(
        self, request: dict[str, Any], loaded: Loaded, image: RequestImage, device: str
    ) -> Answer:
        """Answer one request."""

    def shelf(self, loaded: Loaded, image: RequestImage) -> Shelf:
        """Where the features of an image are kept for the next run."""
        return Shelf(self.cache, loaded.version, image.key)

    def choice(self, request: dict[str, Any], key: str) -> str:
        """The value of an option that has a list of choices, first one the default.

        Raises:
            HTTPException: 400 for a value that is no choice.
        """
        choices = self.config()[key]
        value = request.get(key, choices[0])
        if isinstance(value, list):  # a client that sends the task's config as it is
            value = value[0] if value else choices[0]
        if value not in choices:
            allowed = ", ".join(str(c) for c in choices)
            raise refuse(f"{key}: expected one of {allowed}, found {value!r}")
        return str(value)

    def number(self, request: dict[str, Any], key: str, low: float, high: float) -> float:
        """The value of a numeric option.

        Raises:
            HTTPException: 400 for what is no number or out of range.
        """
        value = request.get(key, self.config()[key])
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise refuse(f"{key}: expected a number, found {value!r}")
        try:
            parsed = float(value)
        except ValueError:
            raise refuse(f"{key}: expected a number, found {value!r}") from None
        if not low <= parsed <= high:
            raise refuse(f"{key}: expected {low:g} to {high:g}, found {parsed:g}")
        return parsed


def log_progress(name: str) -> Callable[[int, int], None]:
    """Tell the log about every tenth of the windows."""
    told = -1

    def progress(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(total, 1)
        if tenth > told:
            told = tenth
            logger.info("%s: %d of %d windows", name, done, total)

    return progress
