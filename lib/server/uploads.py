"""Uploads of images and labels, in place of the stock functions.

The stock functions take a file's extension from the first dot of its name, keep whatever comes
under a name of any length, and put one image in place of another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import BackgroundTasks, UploadFile
from monailabel.interfaces.utils.app import app_instance

from lib.annotation.submitted_file import uneven_shapes
from lib.server.errors import TOO_LARGE, refuse
from lib.server.params import parse_params
from lib.volumes.errors import VolumeError
from lib.volumes.listing import IMAGE_SUFFIXES, split_name
from lib.volumes.readers.opening import open_file
from lib.volumes.record import check_voxel_size
from lib.volumes.source import Source

FREE_BYTES = 1 << 28
MOST_UNPACKED = 100
"""A file larger than the free bytes may unpack to so many times its size: images of tissue
shrink to a half or a third, what shrinks more is no image."""

LABEL_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".nii", ".tif", ".png")


def stage_upload(upload: UploadFile, suffix: str, tasks: BackgroundTasks) -> str:
    """Copy an upload to a temporary file that goes when the answer has been sent."""
    handle, path = tempfile.mkstemp(suffix=suffix)
    tasks.add_task(remove_staged, path)
    with os.fdopen(handle, "wb") as target:
        shutil.copyfileobj(upload.file, target)
    return path


def remove_staged(path: str) -> None:
    """Remove what `stage_upload` made."""
    Path(path).unlink(missing_ok=True)


def check_unpacked(source: Source, path: Path) -> None:
    """Refuse a file that says it unpacks to many times its size, before anything is unpacked.

    Raises:
        HTTPException: 413.
    """
    needed, held = prod(source.shape) * source.dtype.itemsize, path.stat().st_size
    if needed > max(FREE_BYTES, MOST_UNPACKED * held):
        extent = " x ".join(str(n) for n in source.shape)
        raise refuse(
            f"{extent} voxels, {needed} bytes, in a file of {held} bytes: expected at most "
            f"{MOST_UNPACKED} times the file",
            TOO_LARGE,
        )


def check_image(path: Path) -> None:
    """Refuse an image that cannot be served: unreadable, a bomb, or without real extent.

    Raises:
        VolumeError: it cannot be read, or its voxel size is none.
        HTTPException: 413 for one that unpacks to many times its size.
    """
    source = open_file(path)
    try:
        check_unpacked(source, path)
        if source.info.voxel_size_nm is not None:
            check_voxel_size(source.info.voxel_size_nm, path)
        x, y, z = source.shape  # the last voxel: a file that was cut short has none
        source.read(((x - 1, x), (y - 1, y), (z - 1, z)))
    finally:
        source.close()


def add_image(
    background_tasks: BackgroundTasks,
    image: str | None,
    params: str,
    file: UploadFile,
    user: str | None = None,
) -> dict[str, str]:
    """Take in a new image under `image`, or under the name of the file."""
    own, suffix = split_name(Path(file.filename or "").name)
    if not suffix:
        raise refuse(f"file {file.filename!r}: expected one of {', '.join(IMAGE_SUFFIXES)}")
    staged = stage_upload(file, suffix.lower(), background_tasks)
    info = {**parse_params(params), **({"user": user} if user else {})}
    try:
        return {"image": app_instance().datastore().add_image(image or own, staged, info)}
    except VolumeError as error:
        raise _by_its_own_name(error, staged, file) from error


def save_label(
    background_tasks: BackgroundTasks,
    image: str,
    params: str,
    tag: str,
    label: UploadFile,
    user: str | None = None,
) -> dict[str, Any]:
    """Keep a label; one with tag "final" is a submission."""
    name = Path(label.filename or "label.nii.gz").name.lower()
    suffix = next((s for s in LABEL_SUFFIXES if name.endswith(s)), None)
    if suffix is None:
        raise refuse(f"label {name[:80]!r}: expected one of {', '.join(LABEL_SUFFIXES)}")
    staged = stage_upload(label, suffix, background_tasks)
    app = app_instance()
    uneven = "" if tag in ("", "final") else uneven_label(Path(staged), app, image)
    try:
        saved = app.datastore().save_label(image, staged, tag or "final", parse_params(params))
    except VolumeError as error:
        raise _by_its_own_name(error, staged, label) from error
    told = app.on_save_label(image, saved) or {}
    if uneven:
        told["notes"] = [uneven]
    return {**told, "image": image, "label": saved}


def uneven_label(path: Path, app: Any, image: str) -> str:
    """What to tell of a label that is kept as it is: that its shape is not its image's.

    Submissions tell of theirs themselves. A file that cannot be read says nothing of its shape.
    """
    if path.name.endswith(".seg.nrrd"):  # cut to what is painted
        return ""
    shapes = []
    for file in (path, Path(app.datastore().get_image_uri(image))):
        try:
            source = open_file(file)
        except (ValueError, OverflowError):
            return ""
        shapes.append(source.shape)
        source.close()
    return uneven_shapes(*shapes)


def _by_its_own_name(error: VolumeError, staged: str, upload: UploadFile) -> Exception:
    """The error with the upload's name in place of the temporary file's."""
    if error.where != staged:
        return error
    return VolumeError(upload.filename or "upload", error.found, error.expected, error.remedy)


def mend_uploads(endpoint: ModuleType) -> None:
    """Replace `add_image` and `save_label` of `monailabel.endpoints.datastore`."""
    endpoint.__dict__["add_image"] = add_image
    endpoint.__dict__["save_label"] = save_label
