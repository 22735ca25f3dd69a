"""What strategies and scoring methods share: the study behind a datastore, and its scores."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.weights import load_weights, trained_settings
from lib.queries.store import ScoreStore, weights_version
from lib.server.weights import SharedNetwork, device_named
from lib.volumes.options import study_of


class QueryParts:
    """One for the app.

    Args:
        network: the published weights.
        settings: the server's.
        hierarchy: of the study's labels.
    """

    def __init__(
        self, network: SharedNetwork, settings: Settings, hierarchy: LabelHierarchy
    ) -> None:
        self.network = network
        self.settings = settings
        self.hierarchy = hierarchy
        self._stores: dict[Path, ScoreStore] = {}
        self._lock = threading.Lock()

    def store(self, datastore: Datastore) -> ScoreStore:
        """The scores of the study that a datastore shows."""
        root = study_root(datastore)
        with self._lock:
            if root not in self._stores:
                study = study_of(root, self.hierarchy, self.settings)
                self._stores[root] = ScoreStore(study, self.settings.queries)
            return self._stores[root]

    def note_label(self, datastore: Datastore, image_id: str) -> None:
        """Count what a new label makes known, so that the next sample need not."""
        store = self.store(datastore)
        item = store.study.item(image_id)
        scores = store.scores(item)
        store.known_share(item, scores.grid if scores is not None else store.grid_of(item))

    @property
    def weights(self) -> str:
        """Version of the published weights; "" before the first training."""
        return weights_version(self.network.path)

    def load(self, device: Any) -> tuple[NeuropilNet, Settings, LabelHierarchy]:
        """The published network on a device, with the settings it was trained with.

        How it is run (`inference`) comes from the server's settings.

        Raises:
            ValueError: nothing is published yet.
        """
        loaded = self.network.get(device_named(device))
        trained = trained_settings(load_weights(self.network.path))
        settings = trained.model_copy(update={"inference": self.settings.inference})
        return loaded.net, settings, loaded.hierarchy


def study_root(datastore: Datastore) -> Path:
    """The folder of a datastore that keeps its images in one."""
    root = getattr(datastore, "_datastore_path", None)
    if root is None:
        raise ValueError(
            f"{type(datastore).__name__} keeps no study folder; regions to annotate need one"
        )
    return Path(root)
