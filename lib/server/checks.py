"""What each endpoint's arguments must be before the stock code sees them.

The stock server joins ids, tags and names from requests into file paths, opens any path that
exists, and answers 500 to whatever it does not know.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

from lib.server.archives import check_archive
from lib.server.errors import NOT_FOUND, refuse
from lib.volumes.listing import RULE, id_fault, split_name
from lib.volumes.readers.region import REGION

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
MOST_NAME = 200
MOST_LINES = 1_000_000
IMAGE_NAME = re.compile(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,200}")
GPUS = re.compile(r"all|\d{1,2}(,\d{1,2})*")
DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?|mps")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
MOST_DEPTH = 32
MOST_NUMBER = 2**63
MOST_JOB_TEXT = 1 << 16
"""Characters of a job's options: they become an argument of its process."""

RESERVED_TAGS = frozenset({"final", "instance", "submitted", "touched", "instance_predicted"})
"""Labels that only submissions, imports and runs over whole volumes write."""

OWN_KEYS = {"image", "image_path", "model", "session", "starting_mask"}
"""Set by the server from checked arguments; `params` may not carry them."""
DATA_KEYS = {"train_ds", "val_ds", "dataset", "images", "app_dir", "studies"}
"""Training options of the stock trainer that name files of the server."""


class Known(Protocol):
    """What the checks ask of the app."""

    def image_ids(self) -> list[str]: ...

    def knows_image(self, image_id: str) -> bool: ...

    def names_of(self, kind: str) -> list[str]: ...

    def labelled_images(self) -> list[str]: ...

    def session(self, session_id: str) -> Any: ...

    def check_training(self, name: str, params: dict[str, Any]) -> None: ...


def parse_params(text: str | None) -> dict[str, Any]:
    """The `params` form field.

    Raises:
        HTTPException: 400 where it is no JSON object.
    """
    try:
        params = json.loads(text or "{}")
    except (json.JSONDecodeError, RecursionError) as error:
        raise refuse(f"params: not valid JSON: {error}") from error
    if not isinstance(params, dict):
        raise refuse(f"params: expected a JSON object, found {type(params).__name__}")
    check_json(params)
    return params


def check_json(value: Any, where: str = "params", depth: int = MOST_DEPTH) -> None:
    """Refuse what JSON can carry and nothing behind it can.

    Raises:
        HTTPException: 400 for half a character, numbers beyond all use, or endless nesting.
    """
    if depth == 0:
        raise refuse(f"{where}: nested deeper than {MOST_DEPTH}")
    if isinstance(value, str):
        if found := HALF_CHARACTER.search(value):
            raise refuse(f"{where}: half a character ({found[0]!r}), which no text holds")
    elif isinstance(value, int) and abs(value) > MOST_NUMBER:
        raise refuse(f"{where}: a number of {len(str(value))} digits")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_json(key, where, depth)
            check_json(inner, where, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            check_json(inner, where, depth - 1)


def check_name(value: Any, what: str) -> None:
    """A word that may become part of a path."""
    if not isinstance(value, str) or not NAME.fullmatch(value) or ".." in value:
        raise refuse(f"{what}: expected letters, digits, '_', '-' or '.', found {value!r}")


def check_tag(tag: str, what: str) -> None:
    """A tag that requests may write to."""
    if tag in RESERVED_TAGS or tag.startswith("heat-"):
        raise refuse(f"{what}: {tag!r} is written by submissions and runs only; choose another tag")


def check_request_params(params: dict[str, Any], forbidden: set[str]) -> None:
    """Keys that only the server sets, and keys that choose a device or a name."""
    if own := sorted(forbidden & set(params)):
        raise refuse(f"params: {', '.join(own)} may not be given here")
    if params.get("label_tag") is not None:
        check_name(params["label_tag"], "params.label_tag")
        check_tag(params["label_tag"], "params.label_tag")
    if params.get("name") is not None:
        check_name(params["name"], "params.name")
    device = params.get("device")
    device = device[0] if isinstance(device, list) and device else device
    if device is not None and not (isinstance(device, str) and DEVICE.fullmatch(device)):
        raise refuse(f"params.device: expected cpu, cuda or cuda:N, found {device!r}")


def job_options(call: dict[str, Any]) -> dict[str, Any]:
    """The options of training, scoring or a batch, which travel to a process of their own."""
    params = call.get("params") or {}
    if len(json.dumps(params, default=str)) > MOST_JOB_TEXT:
        raise refuse(f"params: more than {MOST_JOB_TEXT} characters")
    return dict(params)


def check_batch(params: dict[str, Any]) -> None:
    """Options of a batch that the stock task trusts."""
    for key in ("max_batch_size", "max_workers"):
        value = params.get(key)
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 20
        if value is not None and not good:
            raise refuse(f"params.{key}: expected a whole number from 0, found {value!r}")
    gpus = params.get("gpus")
    if gpus is not None and not (isinstance(gpus, str) and GPUS.fullmatch(gpus)):
        raise refuse(f"params.gpus: expected 'all' or numbers like '0,1', found {gpus!r}")


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

    def strategy(self, call: dict[str, Any]) -> None:
        self._known("strategies", call["strategy"])
        check_request_params(call.get("params") or {}, OWN_KEYS)

    def train(self, call: dict[str, Any]) -> None:
        self._known("trainers", call["model"])
        params = job_options(call)
        check_request_params(params, OWN_KEYS | DATA_KEYS)
        self.app.check_training(call["model"], params)

    def scoring(self, call: dict[str, Any]) -> None:
        self._known("scoring", call["method"])
        check_request_params(job_options(call), OWN_KEYS)

    def many(self, call: dict[str, Any]) -> None:
        """ "Run all" of training or scoring: options by name; or one batch inference."""
        params = job_options(call)
        check_request_params(params, OWN_KEYS | DATA_KEYS)
        if "model" in call:
            self._known("models", call["model"])
            check_batch(params)
            return
        runs = {*self.app.names_of("trainers"), *self.app.names_of("scoring")}
        for name, options in params.items():
            if name in runs and not isinstance(options, dict | None):
                raise refuse(f"params.{name}: expected an object of options, found {options!r}")
            if isinstance(options, dict):
                check_request_params(options, OWN_KEYS | DATA_KEYS)

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
