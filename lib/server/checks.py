"""What each endpoint's arguments must be before the stock code sees them.

The stock server joins ids, tags and names from requests into file paths, opens any path that
exists, and answers 500 to whatever it does not know.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Protocol

from lib.server.archives import check_archive
from lib.server.errors import NOT_FOUND, refuse
from lib.server.params import (
    check_batch,
    check_name,
    check_request_params,
    check_tag,
    job_options,
    parse_params,
)
from lib.server.spelling import BATCH, Asked, unknown_keys, unknown_to
from lib.volumes.listing import RULE, id_fault, split_name
from lib.volumes.readers.region import REGION

MOST_NAME = 200
MOST_LINES = 1_000_000
IMAGE_NAME = re.compile(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,200}")

OWN_KEYS = {"image", "image_path", "model", "session", "starting_mask"}
"""Set by the server from checked arguments; `params` may not carry them."""
DATA_KEYS = {"train_ds", "val_ds", "dataset", "images", "app_dir", "studies"}
"""Training options of the stock trainer that name files of the server."""
RUNS = ("trainers", "scoring")
"""What "run all" runs."""


class Known(Asked, Protocol):
    """What the checks ask of the app."""

    def image_ids(self) -> list[str]: ...

    def knows_image(self, image_id: str) -> bool: ...

    def labelled_images(self) -> list[str]: ...

    def session(self, session_id: str) -> Any: ...

    def check_training(self, name: str, params: dict[str, Any]) -> None: ...


class Checks:
    """Checks by endpoint name, for `lib.server.routes.mend_router`.

    Args:
        app: tells which images, models, strategies and so on there are.
        max_unpacked_bytes: how much a session archive may unpack to.
    """

    def __init__(self, app: Known, max_unpacked_bytes: int) -> None:
        self.app = app
        self.max_unpacked_bytes = max_unpacked_bytes

    def by_endpoint(self) -> dict[str, Any]:
        """Endpoint name -> check."""
        return {
            "api_run_inference": self.infer,
            "api_run_wsi_inference": self.whole_slide,
            "api_run_wsi_v2_inference": self.whole_slide,
            "api_sample": self.strategy,
            "api_run_model": self.train,
            "api_run_method": self.scoring,
            "api_run": self.many,
            "api_add_image": self.add_image,
            "api_remove_image": self.image_by_id,
            "api_check_image": self.image,
            "api_download_image": self.image,
            "api_get_image_info": self.image,
            "api_put_image_info": self.image_info,
            "api_save_label": self.save_label,
            "api_remove_label": self.label_by_id,
            "api_check_label": self.label,
            "api_download_label": self.label,
            "api_get_label_info": self.label,
            "api_put_label_info": self.label_info,
            "api_update_label_info": self.label_info,
            "api_download_dataset": self.dataset,
            "api_create_session": self.create_session,
            "api_get_session": self.session,
            "api_remove_session": self.session,
            "api_download_model": self.model,
            "api_model_info": self.model,
            "api_update_model": self.model,
            "api_delete_model": self.model,
            "gpu_info": self.gpu_info,
            "api_get_logs": self.logs,
        }

    def _known(self, kind: str, name: str) -> None:
        names = self.app.names_of(kind)
        if name not in names:
            raise refuse(f"{kind}: no {name!r}; there are: {', '.join(names) or 'none'}", NOT_FOUND)

    def _image(self, image: str | None) -> None:
        if not image or id_fault(image) or not self.app.knows_image(image):
            raise refuse(f"image: no image {image!r} in the studies", NOT_FOUND)

    def infer(self, call: dict[str, Any]) -> None:
        self._known("models", call["model"])
        check_request_params(parse_params(call.get("params")), OWN_KEYS)
        if call.get("session_id"):
            self.session(call)
        elif call.get("image"):
            self._image(call["image"])
        elif not call.get("file"):
            raise refuse("one of image, session_id or file is needed")

    def whole_slide(self, call: dict[str, Any]) -> None:
        raise refuse("this app has no whole-slide models", NOT_FOUND)

    def strategy(self, call: dict[str, Any]) -> list[str]:
        self._known("strategies", call["strategy"])
        params = call.get("params") or {}
        check_request_params(params, OWN_KEYS)
        return unknown_to(self.app, "strategies", call["strategy"], params)

    def train(self, call: dict[str, Any]) -> list[str]:
        self._known("trainers", call["model"])
        params = job_options(call)
        check_request_params(params, OWN_KEYS | DATA_KEYS)
        told = unknown_to(self.app, "trainers", call["model"], params)
        self.app.check_training(call["model"], params)
        return told

    def scoring(self, call: dict[str, Any]) -> list[str]:
        self._known("scoring", call["method"])
        params = job_options(call)
        check_request_params(params, OWN_KEYS)
        return unknown_to(self.app, "scoring", call["method"], params)

    def many(self, call: dict[str, Any]) -> list[str]:
        """ "Run all" of training or scoring: options by name; or one batch inference."""
        params = job_options(call)
        check_request_params(params, OWN_KEYS | DATA_KEYS)
        if "model" in call:
            self._known("models", call["model"])
            check_batch(params)
            return unknown_to(self.app, "models", call["model"], params, BATCH)
        runs = {name: kind for kind in RUNS for name in self.app.names_of(kind)}
        told: list[str] = []
        for name, options in params.items():
            if name in runs and not isinstance(options, dict | None):
                raise refuse(f"params.{name}: expected an object of options, found {options!r}")
            if isinstance(options, dict):
                check_request_params(options, OWN_KEYS | DATA_KEYS)
                if name in runs:
                    told += unknown_to(self.app, runs[name], name, options)
        every = (self.app.keys_of(kind, name) for name, kind in runs.items())
        return told + unknown_keys(params, {*runs}.union(*every))

    def add_image(self, call: dict[str, Any]) -> None:
        parse_params(call.get("params"))
        name = call.get("image") or split_name(call["file"].filename or "")[0]
        if fault := id_fault(name):
            raise refuse(f"image: {name[:80]!r} cannot be an id: {fault}; expected {RULE}")

    def image(self, call: dict[str, Any]) -> None:
        self._image(call["image"])

    def image_by_id(self, call: dict[str, Any]) -> None:
        self._image(call["id"])

    def image_info(self, call: dict[str, Any]) -> None:
        self._image(call["image"])
        parse_params(call.get("info"))

    def save_label(self, call: dict[str, Any]) -> None:
        self._image(call["image"])
        if call.get("tag") and call["tag"] != "final":  # that is a submission
            check_name(call["tag"], "tag")
            check_tag(call["tag"], "tag")
        parse_params(call.get("params"))

    def label(self, call: dict[str, Any]) -> None:
        check_name(call["tag"], "tag")
        self._image(call.get("label") or call.get("image"))

    def label_by_id(self, call: dict[str, Any]) -> None:
        check_name(call["tag"], "tag")
        self._image(call["id"])

    def label_info(self, call: dict[str, Any]) -> None:
        self.label(call)
        parse_params(call.get("info") or call.get("params"))

    def dataset(self, call: dict[str, Any]) -> None:
        if not self.app.labelled_images():
            raise refuse("dataset: no image is annotated yet", NOT_FOUND)

    def create_session(self, call: dict[str, Any]) -> None:
        for upload in call["files"]:
            name = upload.filename or "image"
            if not IMAGE_NAME.fullmatch(name) or len(name.encode(errors="replace")) > MOST_NAME:
                raise refuse(
                    f"files: a name of at most {MOST_NAME} bytes without '/', found {name[:80]!r}"
                )
            if name.lower().endswith(".nhdr"):
                raise refuse("files: a detached header (.nhdr); send a .nrrd with its voxels in it")
            if name.lower().endswith(REGION):
                raise refuse("files: a region names a file of this machine; upload the voxels")
            if call.get("uncompress"):
                check_archive(upload.file, upload.filename or "", self.max_unpacked_bytes)

    def session(self, call: dict[str, Any]) -> None:
        known = re.fullmatch(r"[0-9a-f\-]{8,64}", call["session_id"])
        session = self.app.session(call["session_id"]) if known else None
        if session is None:
            raise refuse(f"session_id: no session {call['session_id']!r}", NOT_FOUND)
        if call.get("image") is True and Path(session.image).is_dir():
            raise refuse("image: this session holds several files; there is no one image to send")

    def logs(self, call: dict[str, Any]) -> None:
        # Without a number of lines the file itself is sent, which grows meanwhile.
        for key, least in (("lines", 1), ("refresh", 0)):
            value = call.get(key)
            if value is not None and not least <= value <= MOST_LINES:
                raise refuse(f"{key}: expected {least} to {MOST_LINES}, found {value}")

    def model(self, call: dict[str, Any]) -> None:
        self._known("models", call["model"])

    def gpu_info(self, call: dict[str, Any]) -> None:
        if shutil.which("nvidia-smi") is None:
            raise refuse("this server has no nvidia-smi", NOT_FOUND)
