"""Learning from submissions, in the server: a refit in the background after each of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.adaptation.background import Background
from lib.adaptation.learner import StudyLearner
from lib.adaptation.network import Network
from lib.adaptation.rehearsal import Reservoir, reservoir_for
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.features import Shelf
from lib.prediction.learned import Stored, heads_path, load_heads
from lib.server.weights import GROUPING, Loaded, SharedNetwork, device_named
from lib.volumes.study import Study, StudyItem

logger = logging.getLogger("neuropil.adaptation")

OFF = "Learning from submissions is switched off (adaptation.enabled)."
NOTHING_YET = "Nothing has been learned yet: submit an annotation."
FIRST = "The first annotation is being learned."
NO_WEIGHTS = "Nothing to refit: no weights are published yet."
SHOWN_HISTORY = 5


class Learning:
    """Refits the study's heads whenever its labels or the published weights have changed.

    Args:
        network: the published weights, with the study's heads on top.
        study: the study.
        cache: features kept between runs.
        image_key: identity of an image file, as the tasks see it.
    """

    def __init__(
        self,
        network: SharedNetwork,
        study: Study,
        cache: FeatureCache,
        image_key: Callable[[Path], str],
    ) -> None:
        self.network, self.study, self.cache = network, study, cache
        self.settings = network.settings.adaptation
        self._image_key = image_key
        self._learner = StudyLearner(study, self.settings, self._shelf)
        self._background = Background(self._work, "learning")
        self._reservoir: Reservoir | None = None
        self._loaded: Loaded | None = None
        self._ticket, self._asked = 0, 0.0
        self._read: tuple[str, Stored | str | None] = ("", None)

    def ask(self) -> None:
        """Learn what is annotated now, in the background; returns at once."""
        if self.settings.enabled:
            self._asked = time.monotonic()
            self._ticket = self._background.ask()

    def ask_if_stale(self) -> threading.Thread:
        """`ask`, unless the stored heads belong to the labels and weights of now.

        Looking through a large study takes a while; that is done in a thread, which is returned.
        """

        def look() -> None:
            if not self.settings.enabled or not self.network.path.exists():
                return
            if not self._learner.is_current(self.network.digest()):
                self.ask()

        thread = threading.Thread(target=look, name="learning at start", daemon=True)
        thread.start()
        return thread

    def reply(self) -> str:
        """One sentence for the answer to a submission; waits a moment from `ask` for the refit."""
        if not self.settings.enabled:
            return OFF
        left = self._asked + self.settings.reply_seconds - time.monotonic()
        if not self._background.wait(self._ticket, max(left, 0.0)):
            return "Learning from this submission goes on in the background; /info/ tells."
        return str(self.status()["sentence"])

    def status(self) -> dict[str, Any]:
        """What was learned, for `/info/`."""
        told: dict[str, Any] = {
            "enabled": self.settings.enabled,
            "running": self._background.busy,
            "in_use": False,
        }
        if not self.settings.enabled:
            return {**told, "sentence": OFF}
        if not self.network.path.exists():
            return {**told, "sentence": NO_WEIGHTS}
        if self._background.failed:
            told["sentence"] = f"The last refit failed: {self._background.failed}"
        stored = self._stored()
        if isinstance(stored, str):
            return {**told, "sentence": stored}
        if stored is None:
            return {"sentence": FIRST if told["running"] else NOTHING_YET, **told}
        return {**_told(stored, self.network.digest()), **told, **self._in_use(stored)}

    def _stored(self) -> Stored | str | None:
        """The study's heads, or why they cannot be read; read anew when the file has changed."""
        try:
            found = heads_path(self.study.root).stat()
        except FileNotFoundError:
            return None
        version = f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"
        if self._read[0] != version:
            try:
                self._read = (version, load_heads(self.study.root))
            except ValueError as error:
                self._read = (version, str(error))
        return self._read[1]

    def _in_use(self, stored: Stored) -> dict[str, Any]:
        current = stored.learned.parent == self.network.digest()
        return {"in_use": stored.learned.used and current}

    def _shelf(self, item: StudyItem) -> Shelf | None:
        if self._loaded is None:
            return None
        return Shelf(self.cache, self._loaded.version, self._image_key(item.image_path))

    def _work(self) -> None:
        if not self.network.path.exists():
            return
        GROUPING.start()
        loaded = self._loaded = self.network.published(device_named(None))
        inference = loaded.predictor.inference

        def rehearsal() -> Reservoir:
            if self._reservoir is None or self._reservoir.weights != loaded.digest:
                self._reservoir = reservoir_for(
                    self.network.path, loaded.digest, loaded.net, loaded.hierarchy
                )
            return self._reservoir

        finest_nm, most_split = loaded.predictor.finest_nm, loaded.predictor.most_split
        network = Network(
            loaded.net, loaded.hierarchy, loaded.digest, finest_nm, most_split, inference,
            rehearsal, loaded.predictor.joining, loaded.predictor.call,
        )  # fmt: skip
        stored = self._learner.learn(network)
        logger.info("%s (%.1f s)", stored.learned.sentence, stored.learned.seconds)
        if self.network.digest() != loaded.digest:
            self.ask()  # other weights were published meanwhile: these heads do not fit them


def _told(stored: Stored, digest: str) -> dict[str, Any]:
    learned = stored.learned
    text = learned.sentence
    if learned.parent != digest:
        text = f"Other weights have been published since, so this is not in use: {text}"
    return {
        "sentence": text,
        "figures": learned.figures,
        "learned_at": learned.time,
        "seconds": learned.seconds,
        "before": [entry.sentence for entry in stored.history[-SHOWN_HISTORY:]],
    }
