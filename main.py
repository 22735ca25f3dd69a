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
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from lib.activelearning.background import (
    look_through_at_start,
    score_at_start,
    score_if_stale,
)
from lib.activelearning.doubtful import STRATEGY as DOUBTFUL
from lib.activelearning.parts import QueryParts
from lib.activelearning.scoring import scoring_methods
from lib.activelearning.strategies import strategies
from lib.configs.load import hierarchy_of, load_from_conf
from lib.configs.places import PUBLISHED
from lib.infers.base import Parts
from lib.infers.current import Current
from lib.infers.instances import Instances
from lib.infers.proofread import Proofread
from lib.infers.proofread_classes import ProofreadClasses
from lib.infers.segmentation import Segmentation
from lib.infers.strokes import Strokes
from lib.infers.viewer_labels import ViewerLabels
from lib.prediction.feature_cache import FeatureCache
from lib.proofread.store import ObjectStore
from lib.queries.store import ScoreStore
from lib.server.batch import BatchInfer
from lib.server.children import name_server, serve_server
from lib.server.datastore import StudyDatastore
from lib.server.dicom_open import mirror_folder, open_dicom_datastore
from lib.server.finite import finite
from lib.server.inference import run_task
from lib.server.learning import Learning
from lib.server.mend import in_server, mend_server
from lib.server.spelling import keys_of
from lib.server.submissions import Submissions
from lib.server.weights import SharedNetwork, device_named
from lib.trainers.combined import Combined
from lib.view.neuroglancer.scene import Desk
from lib.volumes.opened import ImageStore
from lib.volumes.readers.region import REGION

TOLD = (
    "notes",
    "known_share",
    "touched_share",
    "machine_share",
    "accepted",
    "kept",
    "removed",
    "done",
)
"""What the answer to a submission says."""


class NeuropilApp(MONAILabelApp):
    """One network behind every task; wiring only."""

    studies: str

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if app_dir not in sys.path:  # MONAI Label takes it out again once this file is loaded
            sys.path.append(app_dir)
        self.settings = load_from_conf(conf)
        self.hierarchy = hierarchy_of(self.settings)
        self.viewer_labels = ViewerLabels(self.hierarchy)
        self.remote = studies.startswith(("http://", "https://"))
        address = studies.rstrip("/").strip() if self.remote else studies
        root = mirror_folder(address) if self.remote else Path(studies)
        weights = Path(app_dir) / "model" / PUBLISHED.name
        self.network = SharedNetwork(weights, self.settings, study=root)
        self.images = ImageStore(
            self.settings.data.spacing_unit,
            bright_membranes=self.settings.data.bright_membranes,
        )
        self.cache = FeatureCache(self.settings.inference.cache_bytes)
        self.queries = QueryParts(self.network, self.settings, self.hierarchy)
        self.objects = ObjectStore(root, self.settings.inference.min_object_voxels)
        self.submissions = Submissions(root, self.hierarchy, self.settings, self.objects)
        self.learning = Learning(
            self.network, self.submissions.study, self.cache, self.images.identity
        )
        super().__init__(
            app_dir=app_dir,
            studies=address,
            conf=conf,
            name="Neuropil",
            description="Dense and interactive segmentation of electron microscopy",
            version="1.0",
            labels=self.viewer_labels.segments,
        )
        self._auto_update_scoring = False  # lib/activelearning/background.py does it when it is due
        if mend_server(self, self.settings.server):
            name_server()
        else:
            serve_server()

    def init_datastore(self) -> Datastore:
        if self.remote:
            return open_dicom_datastore(
                self.studies, self.submissions, self.hierarchy, self.settings, mirror=in_server()
            )
        return StudyDatastore(
            self.studies,
            self.submissions,
            follow_links=self.settings.server.follow_links,
            extensions=[*stock_settings.MONAI_LABEL_DATASTORE_FILE_EXT, f"*{REGION}"],
            auto_reload=stock_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=stock_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        parts = Parts(
            self.network,
            self.viewer_labels,
            self.settings,
            self.images,
            self.cache,
            self.objects,
        )
        return {
            "segmentation": Segmentation(parts),
            "instances": Instances(parts),
            "proofread": Proofread(parts),
            "proofread_classes": ProofreadClasses(parts),
            "strokes": Strokes(parts),
            "current": Current(parts),
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        published = self.network.path
        return {
            "combined": Combined(
                published.parent, published, self.submissions.study.root, self.settings
            )
        }

    def init_strategies(self) -> dict[str, Strategy]:
        return strategies(self.queries, self.objects)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return scoring_methods(self.queries)

    def init_batch_infer(self) -> Callable[..., Any]:
        return BatchInfer()

    def on_init_complete(self) -> None:
        """Before the first request: finish what a killed server had been sent."""
        self.submissions.recover()
        super().on_init_complete()
        if in_server():
            look_through_at_start(self.queries, self.datastore())
            self.submissions.taken_in = self.network.changed = self.learning.ask
            self.learning.ask_if_stale()
        if stock_settings.MONAI_LABEL_AUTO_UPDATE_SCORING and self.settings.queries.score_at_start:
            score_at_start(self.queries, self.datastore())

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """What an annotator should know about a submission; goes into the answer."""
        self.queries.note_label(self.datastore(), image_id)
        info = self.datastore().get_label_info(label_id, "final")
        told = {key: info[key] for key in TOLD if key in info}
        return {**told, "learned": self.learning.reply()}

    def info(self) -> dict[str, Any]:
        """What viewers ask for first; never with NaN, which JSON does not have."""
        return dict(finite({**super().info(), "learning": self.learning.status()}))

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

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The next item and region; scores that are missing are computed meanwhile."""
        sample = dict(super().next_sample(request))
        scored = request.get("strategy") != DOUBTFUL  # that one goes by objects
        if scored and stock_settings.MONAI_LABEL_AUTO_UPDATE_SCORING:
            score_if_stale(self.queries, self.datastore())
        return sample

    def image_ids(self) -> list[str]:
        """The images of the studies."""
        return list(self.datastore().list_images())

    def labelled_images(self) -> list[str]:
        """Those with a final label."""
        return list(self.datastore().get_labeled_images())

    def knows_image(self, image_id: str) -> bool:
        """Whether the studies hold an image, also one that has just been put there."""
        if image_id in self.image_ids():
            return True
        self.datastore().refresh()
        return image_id in self.image_ids()

    def session(self, session_id: str) -> Any:
        """A session that lies on disk, also one of before a restart; None for no session."""
        # A store without sessions yet is false: it must not be asked for its truth.
        sessions = self.sessions()
        return None if sessions is None else sessions.get_session(session_id)

    def check_training(self, name: str, params: dict[str, Any]) -> None:
        """Refuse a training that cannot start, before a process is started for it.

        Raises:
            ValueError: nothing is annotated, or an option is out of range.
        """
        trainer = self._trainers[name]
        if reason := trainer.check():
            raise ValueError(reason)
        trainer.plan(trainer.asked(params))

    def score_store(self) -> ScoreStore:
        """The scores of the study, and the study behind them."""
        return self.queries.store(self.datastore())

    def published_weights(self) -> Path:
        """The weights file that every task uses."""
        return self.network.path

    def learned(self) -> dict[str, Any]:
        """What the study's heads learned, as `/info/` tells it."""
        return self.learning.status()

    def desk(self) -> Desk:
        """What Neuroglancer's viewers work with."""

        def taken_in() -> None:
            self.datastore().refresh()
            self.submissions.taken_in()

        return Desk(
            self.settings,
            self.hierarchy,
            self.network,
            device_named(None),
            self.images,
            self.cache,
            self.objects,
            self.score_store(),
            taken_in,
            "labels of a DICOM store are submitted from OHIF or Slicer" if self.remote else "",
        )

    def names_of(self, kind: str) -> list[str]:
        """The names of models, trainers, strategies or scoring methods."""
        return list(self._tasks(kind))

    def keys_of(self, kind: str, name: str) -> frozenset[str]:
        """The names of the parameters that a task knows."""
        return keys_of(kind, self._tasks(kind)[name])

    def _tasks(self, kind: str) -> dict[str, Any]:
        tasks: dict[str, dict[str, Any]] = {
            "models": self._infers,
            "trainers": self._trainers,
            "strategies": self._strategies,
            "scoring": self._scoring_methods,
        }
        return tasks[kind]
