"""A small study with found objects and a tiny network, for the tests of Neuroglancer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import neuroglancer
import numpy as np
import pytest
import torch

from lib.configs.settings import Settings
from lib.labels.hierarchy import load_hierarchy
from lib.networks.model import build_network
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.predictor import Predictor
from lib.proofread.store import MACHINE_TAG, ObjectStore
from lib.queries.store import ScoreStore
from lib.server.weights import Loaded, SharedNetwork
from lib.view.neuroglancer.keys import action_of
from lib.view.neuroglancer.scene import Desk
from lib.view.neuroglancer.viewer import LiveViewer
from lib.volumes.atomic import StagedFiles
from lib.volumes.opened import ImageStore
from lib.volumes.study import Study
from lib.volumes.writing import label_file, write_label

H = load_hierarchy()
SHAPE, SIZE_NM = (32, 24, 8), (8.0, 8.0, 40.0)
SETTINGS = Settings.model_validate(
    {
        "model": {"feature_size": 8, "head_size": 4, "embedding_size": 2},
        "inference": {
            "window": [32, 32, 8], "click_window": [32, 32, 8], "click_window_limit": [32, 32, 8],
            "min_object_voxels": 5,
        },
        "queries": {"region": [16, 16, 8]},
        "adaptation": {"enabled": False},
    }
)  # fmt: skip
LEFT, RIGHT = 1, 2
"""Two objects that touch at x = 16."""


class TinyNetwork(SharedNetwork):
    """An untrained network in place of a weights file."""

    def __init__(self) -> None:
        super().__init__(Path("none.pt"), SETTINGS)
        torch.manual_seed(0)
        net = build_network(SETTINGS.model, SETTINGS.loss, H).eval()
        self.loaded = Loaded(Predictor(net, H, SETTINGS.inference), "tiny", SETTINGS)

    def get(self, device: str) -> Loaded:
        return self.loaded


def found_ids() -> np.ndarray[Any, Any]:
    """What the machine found."""
    ids = np.zeros(SHAPE, np.uint32)
    ids[2:16, 2:22], ids[16:30, 2:22] = LEFT, RIGHT
    return ids


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    """Neuroglancer's server ends with each test of a module that imports this."""
    yield
    neuroglancer.stop()
    neuroglancer.set_server_bind_address()


def desk_of_one(root: Path, **more: Any) -> Desk:
    """A study with one item "one", in which two objects were found."""
    study = Study(root, H)
    rng = np.random.default_rng(0)
    study.add_item("one", rng.integers(0, 256, SHAPE, np.uint8), SIZE_NM)
    with StagedFiles() as staged:
        write_label(staged, label_file(root, MACHINE_TAG, "one"), found_ids(), SIZE_NM)
        staged.commit()
    return Desk(
        SETTINGS, H, TinyNetwork(), "cpu", ImageStore("nm"), FeatureCache(2**26),
        ObjectStore(root, 5), ScoreStore(study, SETTINGS.queries), **more,
    )  # fmt: skip


def press(viewer: LiveViewer, name: str, voxel: Any = None) -> str:
    """Press a key over a voxel, as the client tells it; what the viewer says then."""
    told: dict[str, Any] = {"viewerState": viewer.viewer.state.to_json()}
    if voxel is not None:
        told["mousePosition"] = [v + 0.5 for v in voxel]
    handlers = viewer.viewer.actions._action_handlers[action_of(name)]
    (handle,) = handlers
    handle(neuroglancer.viewer_config_state.ActionState(told))
    viewer.look().result(60)
    return str(viewer.viewer.config_state.state.status_messages["neuropil"])
