"""One network for every task, read again when the published weights change.

Whole-volume runs take turns on a device; clicks take turns among themselves, so that a long
segmentation never makes an annotator wait.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.digests import digest_of
from lib.networks.model import NeuropilNet
from lib.prediction.grouping import call_here
from lib.prediction.learned import Stored, heads_path, load_heads
from lib.prediction.predictor import Predictor, load_predictor
from lib.server.isolated import Isolated


@dataclass(frozen=True)
class Loaded:
    """A network on a device with all it takes to use it.

    Args:
        predictor: network, hierarchy and how to run it.
        version: changes whenever other weights are loaded.
        settings: the server's.
        digest: SHA-256 of the weights file.
        heads: changes whenever the study's heads do; "" where none are used.
        fragments: changes whenever those do that find fragments; "" where none are used.
    """

    predictor: Predictor
    version: str
    settings: Settings
    digest: str = ""
    heads: str = ""
    fragments: str = ""

    @property
    def net(self) -> NeuropilNet:
        """In evaluation mode, on its device."""
        return self.predictor.net

    @property
    def hierarchy(self) -> LabelHierarchy:
        """The network's classes and groups."""
        return self.predictor.hierarchy


logger = logging.getLogger("neuropil.adaptation")

GROUPING = Isolated(call_here)
Loader = Callable[[Path, Settings, str], Predictor]


def device_named(name: Any) -> str:
    """The device a request asks for, or the CPU where there is no such device.

    Viewers ask for "cuda" whatever the server has.
    """
    name = name[0] if isinstance(name, list) and name else name
    wanted = str(name or "cuda")
    if wanted.startswith("cuda"):
        _, _, index = wanted.partition(":")
        count = torch.cuda.device_count()
        return wanted if count and int(index or 0) < count else "cuda" if count else "cpu"
    if wanted == "mps" and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def load_for_server(path: Path, settings: Settings, device: str) -> Predictor:
    """A predictor that groups objects in a process of its own.

    The grouping is one long call that never lets another thread run.
    """
    return replace(load_predictor(path, settings, device), call=GROUPING)


class SharedNetwork:
    """The published weights, loaded at most once for each device.

    Args:
        path: the published weights file.
        settings: the server's; its `inference` section holds for every file.
        load: reads a weights file.
        study: folder of the study whose heads are put on top; None: none are.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        load: Loader = load_for_server,
        study: Path | None = None,
    ) -> None:
        self.path = path
        self.settings = settings
        self.study = study if settings.adaptation.enabled else None
        self.changed: Callable[[], None] = lambda: None  # called when other weights are seen
        self._load = load
        self._digest: tuple[str, str] = ("", "")
        self._heads: tuple[str, Stored | None] = ("", None)
        self._adapted: dict[str, Loaded] = {}
        self._loading = threading.Lock()
        self._loaded: dict[str, Loaded] = {}
        self._turns: dict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)

    def version(self) -> str:
        """What identifies the file's content without reading it.

        Raises:
            ValueError: there is no such file.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise ValueError(
                f"no weights in {self.path.name}: train first, or put published weights there"
            ) from None
        return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"

    def digest(self) -> str:
        """SHA-256 of the published file, read anew only when the file has changed.

        Raises:
            ValueError: there is no such file, or its digest file is none.
        """
        version = self.version()
        with self._loading:
            before = self._digest
            if before[0] != version:
                self._digest = (version, digest_of(self.path))
            found = self._digest
        if before[1] and before[1] != found[1]:
            self.changed()
        return found[1]

    def published(self, device: str) -> Loaded:
        """The network of the weights that are published now, without any study's heads."""
        version, digest = self.version(), self.digest()
        with self._loading:
            loaded = self._loaded.get(device)
            if loaded is None or loaded.version != version:
                predictor = self._load(self.path, self.settings, device)
                loaded = Loaded(predictor, version, self.settings, digest)
                self._loaded[device] = loaded
        return loaded

    def get(self, device: str) -> Loaded:
        """The network of the weights that are published now, with the study's heads on top.

        Heads that sit on other weights are left out.
        """
        loaded = self.published(device)
        version, stored = self._study_heads()
        if stored is None or not stored.sits_on(loaded.digest):
            return loaded
        with self._loading:
            adapted = self._adapted.get(device)
            if adapted is None or (adapted.version, adapted.heads) != (loaded.version, version):
                adapted = replace(
                    loaded,
                    predictor=stored.on(loaded.predictor),
                    heads=version,
                    fragments=stored.fragments,
                )
                self._adapted[device] = adapted
        return adapted

    def _study_heads(self) -> tuple[str, Stored | None]:
        """The study's heads as the file has them now, and what identifies that."""
        if self.study is None:
            return "", None
        path = heads_path(self.study)
        try:
            found = path.stat()
        except FileNotFoundError:
            return "", None
        version = f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"
        with self._loading:
            if self._heads[0] == version:
                return self._heads
        try:
            stored = load_heads(self.study)
        except ValueError as error:
            logger.warning("%s", error)
            stored = None
        with self._loading:
            self._heads = (version, stored)
        return version, stored

    @contextmanager
    def turn(self, kind: str, device: str) -> Iterator[None]:
        """Wait for the device; `kind` is "volume" or "click".

        Raises:
            TimeoutError: it stayed busy for `server.busy_timeout_seconds`.
        """
        lock = self._turns[kind, device]
        limit = self.settings.server.busy_timeout_seconds
        if not lock.acquire(timeout=limit):
            raise TimeoutError(f"{device} is busy with another {kind} for {limit:g} s; try again")
        try:
            yield
        finally:
            lock.release()
