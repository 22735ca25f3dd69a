"""Images as viewers fetch them: a region of a larger volume is written out when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lib.server.errors import refuse
from lib.volumes.errors import VolumeError
from lib.volumes.readers.region import REGION
from lib.volumes.regions import write_shown

TOO_LARGE = 413


def mend_download(endpoint: ModuleType) -> None:
    """Let `monailabel.endpoints.datastore.download_image` send regions as NIfTI files."""
    stock: Callable[..., Any] = endpoint.download_image

    @functools.wraps(stock)
    def download_image(image: str, *more: Any, **named: Any) -> Any:
        path = Path(endpoint.app_instance().datastore().get_image_uri(image))
        if not path.name.endswith(REGION):
            return stock(image, *more, **named)
        try:
            file = write_shown(path)
        except VolumeError as error:
            raise refuse(str(error), TOO_LARGE if "too many" in error.found else 400) from error
        if named.get("check_only") or (more and more[0]):
            return {}
        return endpoint.FileResponse(
            file, media_type=endpoint.get_mime_type(str(file)), filename=file.name
        )

    endpoint.__dict__["download_image"] = download_image
