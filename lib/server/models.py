"""Weights by upload: only a file that works here is published, and it is published whole."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import BackgroundTasks, UploadFile
from monailabel.interfaces.utils.app import app_instance

from lib.engine.publish import keep_version
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.digests import place_weights
from lib.networks.trial import fault_of
from lib.networks.weights import load_network
from lib.server.errors import refuse


def update_model(background_tasks: BackgroundTasks, model: str, file: UploadFile) -> dict[str, Any]:
    """Replace the published weights; the version before is kept.

    The stock function copies any bytes over the file that inference reads.

    Raises:
        HTTPException: 400 for what is no weights file of these classes, or answers nothing.
    """
    app = app_instance()
    data = file.file.read()
    with tempfile.NamedTemporaryFile(suffix=".pt") as staged:
        staged.write(data)
        staged.flush()
        hierarchy = _tried(Path(staged.name))
    if hierarchy.to_dict() != app.hierarchy.to_dict():
        raise refuse("these weights have other classes or groups than this server's hierarchy")
    keep_version(app.network.path)
    place_weights(app.network.path, data)
    return dict(app.model_info(model))


def _tried(path: Path) -> LabelHierarchy:
    """The hierarchy of a weights file whose network loads and answers."""
    try:
        net, _, hierarchy, _ = load_network(path)
        fault = fault_of(net)
    except ValueError:
        raise
    except Exception as error:  # a torch file of anything: keys, shapes and types at will
        raise refuse(f"no weights of this app: {type(error).__name__}: {error}") from error
    if fault:
        raise refuse(f"these weights are of no use: {fault}")
    return hierarchy


def mend_models(endpoint: ModuleType) -> None:
    """Put `update_model` in place of `monailabel.endpoints.model.update_model`."""
    endpoint.__dict__["update_model"] = update_model
