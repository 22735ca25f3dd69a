"""What went wrong with a request, as a status and a sentence for the person at the viewer."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from errno import ENAMETOOLONG
from pathlib import Path

from fastapi import HTTPException
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from lib.volumes import errors
from lib.volumes.errors import DiskError, VolumeError

BAD_REQUEST = 400
FORBIDDEN = 403
NOT_FOUND = 404
CONFLICT = 409
TOO_LARGE = 413
BAD_GATEWAY = 502
BUSY = 503
DISK_FULL = 507


def refuse(message: str, status: int = BAD_REQUEST) -> HTTPException:
    """The exception that answers a request with `status` and `message`; raise it."""
    return HTTPException(status_code=status, detail=message)


def as_answer(error: Exception) -> HTTPException | None:
    """The answer that an exception of MONAI Label or of this app's core stands for.

    The stock server answers 500 to all of them. ValueError is how the core tells a user what
    was found, what was expected and what to do.

    Returns:
        None for a fault of the server's own, which stays a 500 with its traceback in the log.
    """
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return refuse(error.msg, NOT_FOUND)
    if isinstance(error, MONAILabelException):
        unknown = "not Initialized" in error.msg or "no such" in error.msg
        if unknown:
            return refuse(error.msg, NOT_FOUND)
        if error.error is MONAILabelError.INVALID_INPUT:
            return refuse(error.msg)
        return None
    if isinstance(error, json.JSONDecodeError):
        return refuse(f"params: not valid JSON: {error}")
    if isinstance(error, TimeoutError):
        return refuse(str(error) or "the server is busy, try again", BUSY)
    if isinstance(error, DiskError):
        return refuse(_without_folder(error), DISK_FULL if error.full else FORBIDDEN)
    if isinstance(error, zipfile.BadZipFile | tarfile.TarError | shutil.ReadError):
        return refuse(f"archive: cannot be read: {error}")
    if isinstance(error, OSError):
        return _disk_answer(error)
    if isinstance(error, MemoryError):
        return refuse(f"this needs more memory than the server has ({error})", TOO_LARGE)
    if isinstance(error, VolumeError):
        return refuse(_without_folder(error))
    if isinstance(error, ValueError | OverflowError):
        return refuse(str(error))
    return None


def _without_folder(error: VolumeError) -> str:
    """The message, with files by their names: where a server keeps them tells a viewer nothing."""
    file = Path(error.where.partition(":")[0])
    return str(error).replace(f"{file.parent}/", "") if file.is_absolute() else str(error)


def _disk_answer(error: OSError) -> HTTPException | None:
    """A place that takes no files, or a name that it cannot hold."""
    reason = error.strerror or str(error)
    if error.errno in errors.DISK_FULL:
        return refuse(f"the disk is full ({reason}); nothing was changed", DISK_FULL)
    if error.errno in errors.READ_ONLY:
        name = Path(str(error.filename or "the study")).name
        return refuse(f"{name} cannot be written ({reason}); nothing was changed", FORBIDDEN)
    return refuse(f"a name is too long ({reason})") if error.errno == ENAMETOOLONG else None
