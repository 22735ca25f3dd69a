"""Neuropil: a MONAI Label app for connectomics.

`monailabel start_server --app .` loads NeuropilApp from here; `python main.py COMMAND` is the
command line.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from lib.commands import main

    raise SystemExit(main())

from collections.abc import Callable
from pathlib import Path
from typing import Any

from monailabel.config import settings as stock_settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask

from lib.configs.load import hierarchy_of, load_from_conf
from lib.decoding.feature_cache import FeatureCache
from lib.engine.checkpoints import load_network
from lib.infers.base import Parts
from lib.infers.image import ImageStore
from lib.infers.instances import Instances
from lib.infers.proofread import Proofread
from lib.infers.segmentation import Segmentation
from lib.infers.viewer_labels import ViewerLabels
from lib.server.batch import BatchInfer
from lib.server.datastore import StudyDatastore
from lib.server.dicom_open import open_dicom_datastore
from lib.server.errors import refuse
from lib.server.finite import finite
from lib.server.inference import run_task
from lib.server.mend import mend_server
from lib.server.weights import SharedNetwork

WEIGHTS = "neuropil.pt"


class NeuropilApp(MONAILabelApp):
    """One network behind every task; see DESIGN.md for the way of the data."""

    studies: str

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if app_dir not in sys.path:  # MONAI Label takes it out again once this file is loaded
            sys.path.append(app_dir)
        self.settings = load_from_conf(conf)
        self.hierarchy = hierarchy_of(self.settings)
        self.viewer_labels = ViewerLabels(self.hierarchy)
        self.network = SharedNetwork(Path(app_dir) / "model" / WEIGHTS, self.settings, load_network)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Neuropil",
            description="Dense and interactive segmentation of electron microscopy",
            version="1.0",
            labels=self.viewer_labels.segments,
        )
        mend_server(self, self.settings.server)

    def init_datastore(self) -> Datastore:
        if self.studies.startswith(("http://", "https://")):
            self.studies = self.studies.rstrip("/").strip()
            return self.init_remote_datastore()
        return StudyDatastore(
            self.studies,
            self.submit,
            extensions=stock_settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=stock_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=stock_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _init_dicomweb_datastore(self) -> Datastore:
        serving = "monailabel.app" in sys.modules  # not in the processes that train
        return open_dicom_datastore(
            self.studies, self.submit, self.hierarchy, self.settings, mirror=serving
        )

    def init_infers(self) -> dict[str, InferTask]:
        settings = self.settings
        parts = Parts(
            self.network,
            self.viewer_labels,
            settings,
            ImageStore(settings.data.spacing_unit),
            FeatureCache(settings.inference.cache_bytes),
        )
        return {
            "segmentation": Segmentation(parts),
            "instances": Instances(parts),
            "proofread": Proofread(parts),
        }

    def init_batch_infer(self) -> Callable[..., Any]:
        return BatchInfer()

    def info(self) -> dict[str, Any]:
        """What viewers ask for first; never with NaN, which JSON does not have."""
        return dict(finite(super().info()))

    def submit(self, image_id: str, file: Path, info: dict[str, Any]) -> dict[str, dict[str, Any]]:
        raise refuse("soon")

    def infer(
        self,
        request: dict[str, Any],
        datastore: Datastore | None = None,
        staged: str | None = None,
    ) -> dict[str, Any]:
        """Run a task on an image of the studies.

        Args:
            staged: the only path that `image` may be; an upload or a session's image.
        """
        return run_task(self, request, staged)

    def image_ids(self) -> list[str]:
        """The images of the studies."""
        return list(self.datastore().list_images())

    def knows_image(self, image_id: str) -> bool:
        """Whether the studies hold an image, also one that has just been put there."""
        if image_id in self.image_ids():
            return True
        self.datastore().refresh()
        return image_id in self.image_ids()

    def names_of(self, kind: str) -> list[str]:
        """The names of models, trainers, strategies or scoring methods."""
        tasks = {
            "models": self._infers,
            "trainers": self._trainers,
            "strategies": self._strategies,
            "scoring": self._scoring_methods,
        }
        return list(tasks[kind])
