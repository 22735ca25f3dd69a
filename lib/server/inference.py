"""The inference request, in place of the stock one.

The stock function lets `params` replace the image by any path, and an uploaded mask is lost
when `params.label` names the segment it belongs to.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import BackgroundTasks, UploadFile

from lib.server.accepting import label_accepted
from lib.server.errors import NOT_FOUND, refuse
from lib.server.params import parse_params
from lib.server.spelling import unknown_to
from lib.server.uploads import check_unpacked, remove_staged, stage_upload
from lib.volumes.readers.opening import open_file

EXTENSIONS = (".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".bin", ".tif", ".tiff", ".png", ".jpg")


def extension_of(name: str | None) -> str:
    """The extension of an upload, lower case; ".nii.gz" where it has none.

    Raises:
        HTTPException: 400 for an extension that no reader here knows.
    """
    if not name:
        return ".nii.gz"
    lower = Path(name).name.lower()
    for extension in sorted(EXTENSIONS, key=len, reverse=True):
        if lower.endswith(extension):
            return extension
    raise refuse(f"upload {Path(name).name!r}: expected one of {', '.join(EXTENSIONS)}")


def run_inference(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = "{}",
    file: UploadFile | None = None,
    label: UploadFile | None = None,
    output: Any = None,
) -> Any:
    """Answer one inference; arguments have passed `lib.server.checks`."""
    from monailabel.endpoints import infer as stock
    from monailabel.interfaces.utils.app import app_instance

    app = app_instance()
    given = parse_params(params)
    told = unknown_to(app, "models", model, given)
    request: dict[str, Any] = {**given, "model": model, "image": image}
    staged = None
    if file:
        staged = request["image"] = stage_upload(
            file, extension_of(file.filename), background_tasks
        )
    if label:
        request["starting_mask"] = stage_upload(
            label, extension_of(label.filename), background_tasks
        )
        if request["starting_mask"].endswith(".bin"):
            request["starting_mask_raw"] = True
    if session_id:
        session = app.session(session_id)
        if session is None:
            raise refuse(f"session_id: no session {session_id!r}", NOT_FOUND)
        staged = request["image"] = session.image
        request["session"] = session.to_json()
    if staged:
        source = open_file(Path(staged))
        source.close()
        check_unpacked(source, Path(staged))
    if output == stock.ResultType.dicom_seg:
        raise refuse("output: DICOM SEG is written when a label is submitted, not by inference")
    result = app.infer(request, staged=staged)
    if told:
        result["params"]["warnings"] = [*result["params"].get("warnings", ()), *told]
    return stock.send_response(app.datastore(), result, output, background_tasks)


def run_task(app: Any, request: dict[str, Any], staged: str | None) -> dict[str, Any]:
    """Run one inference task and keep what is to be kept.

    The stock function takes whatever exists as a path for an image, and stores one label only.

    Args:
        app: the NeuropilApp.
        staged: the only path that `request["image"]` may be; otherwise it is an image's id.

    Returns:
        What the stock endpoint sends: `label`, `file`, `tag` and `params`.
    """
    image, name = request.get("image"), request.get("model")
    task = app._infers.get(name)
    if task is None:
        raise refuse(f"models: no {name!r}; there are: {', '.join(app._infers)}", NOT_FOUND)
    known = staged is None and isinstance(image, str) and app.knows_image(image)
    if not known and (staged is None or image != staged):
        raise refuse(f"image: no image {image!r} in the studies", NOT_FOUND)
    path = app.datastore().get_image_uri(image) if known else image
    file, params = task({**request, "image": path})
    stored: dict[str, str] = params.pop("stored", {})
    clicked: dict[str, Any] = params.pop("clicked", {})
    info = {"model": name, "params": params}
    for tag, kept in stored.items():
        if known:  # without the names: thousands of objects would swell the index
            told = {key: value for key, value in params.items() if key != "label_names"}
            app.datastore().save_label(image, kept, tag, {"model": name, "params": told})
        remove_staged(kept)
    if known:
        params |= label_accepted(app, str(image), str(request.get("client_id") or ""), params)
    if known and file:
        app.submissions.note_answer(image, request, params, Path(file), clicked)
    label = file
    if known and file and request.get("save_label"):
        tag = str(request.get("label_tag") or "original")
        label = app.datastore().save_label(image, file, tag, dict(info))
    return {"label": label, "tag": "original", "file": file, "params": params}


def mend_inference(endpoint: ModuleType) -> None:
    """Put `run_inference` in place of `monailabel.endpoints.infer.run_inference`."""
    endpoint.__dict__["run_inference"] = run_inference
