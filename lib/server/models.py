"""Weights by upload: only a file that works here is published, and it is published whole."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import BackgroundTasks, UploadFile
from monailabel.interfaces.utils.app import app_instance

from lib.engine.publish import keep_version
from lib.networks.digests import place_weights
from lib.networks.weights import load_network
from lib.server.errors import refuse


def update_model(background_tasks: BackgroundTasks, model: str, file: UploadFile) -> dict[str, Any]:
    """Replace the published weights; the version before is kept.

    The stock function copies any bytes over the file that inference reads.

    Raises:
        HTTPException: 400 for what is no weights file of these classes.
    """
    app = app_instance()
    data = file.file.read()
    with tempfile.NamedTemporaryFile(suffix=".pt") as staged:
        staged.write(data)
        staged.flush()
        _, _, hierarchy, _ = load_network(Path(staged.name))
    if hierarchy.to_dict() != app.hierarchy.to_dict():
        raise refuse("these weights have other classes or groups than this server's hierarchy")
    keep_version(app.network.path)
    place_weights(app.network.path, data)
    return dict(app.model_info(model))


def mend_models(endpoint: ModuleType) -> None:
    """Put `update_model` in place of `monailabel.endpoints.model.update_model`."""
    endpoint.__dict__["update_model"] = update_model
