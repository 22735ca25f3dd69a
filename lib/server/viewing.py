"""Neuroglancer: `python main.py view`, and `/neuroglancer` of the server."""

from __future__ import annotations

import argparse
import getpass
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from lib.blocks.plan import FOLDER, read_plan
from lib.configs.load import hierarchy_of
from lib.configs.options import add_settings_options, settings_from
from lib.configs.places import PUBLISHED
from lib.configs.settings import Settings
from lib.networks.devices import choose_device
from lib.prediction.feature_cache import FeatureCache
from lib.proofread.store import ObjectStore
from lib.queries.store import ScoreStore
from lib.server.errors import BUSY, NOT_FOUND, as_answer, refuse
from lib.server.weights import SharedNetwork
from lib.view.neuroglancer.layers import OF_CLASSES, predicted_layer
from lib.view.neuroglancer.properties import found_properties
from lib.view.neuroglancer.scene import Desk, Scene
from lib.view.neuroglancer.viewer import LiveViewer
from lib.view.neuroglancer.windows import Windows
from lib.volumes.errors import VolumeError
from lib.volumes.opened import ImageStore
from lib.volumes.options import existing_study

LAYERS = ("classes", "objects")
"""Arrays of a blockwise prediction that are shown."""
JOINED = "objects.npz"
"""Its table of objects; without it the run is not done."""
MOST_LISTED = 100_000
"""Objects of a prediction that are named, the largest first."""


def add_view_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare `view` on the command line's sub-parsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "view",
        help="a volume or an item in Neuroglancer",
        description="Show a volume, or an item of a study, in Neuroglancer, and proofread it "
        "there. Prints the address to open in a browser; Ctrl+C ends it.",
    )
    parser.add_argument(
        "source", metavar="SRC|ITEM", help="a volume (PATH[:DATASET] or an address), or an item"
    )
    parser.add_argument(
        "--studies", type=Path, metavar="DIR", help="the study's folder, for an item"
    )
    parser.add_argument(
        "--prediction", type=Path, metavar="OUT.zarr",
        help="what `predict --out OUT.zarr` wrote of SRC: its classes and objects are shown",
    )  # fmt: skip
    parser.add_argument(
        "--voxel-size-nm", nargs=3, type=float, metavar="NM",
        help="x y z of SRC, where the file does not say",
    )  # fmt: skip
    parser.add_argument(
        "--weights", type=Path, default=PUBLISHED, metavar="FILE",
        help="default: the app's, model/neuropil.pt",
    )  # fmt: skip
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1, this machine only")
    parser.add_argument("--port", type=int, help="default: view.port, any that is free")
    add_settings_options(parser)
    return parser


def run_view(args: argparse.Namespace) -> int:
    """Show it until the user ends it.

    Returns:
        0.

    Raises:
        ValueError: there is no such item or file.
        OSError: the port cannot be had.
    """
    windows, viewer = open_view(args)
    print(f"{viewer.scene.name}: open {viewer.url} in a browser; Ctrl+C ends it", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        windows.close()
    return 0


def open_view(args: argparse.Namespace) -> tuple[Windows, LiveViewer]:
    """The viewer that a command line asks for.

    Raises:
        ValueError, OSError: see `run_view`.
    """
    settings = settings_from(args)
    desk = desk_of(settings, args.weights, args.studies, str(choose_device(args.device)))
    if args.studies is not None:
        scene = desk.item(args.source)
    else:
        size = args.voxel_size_nm
        scene = desk.file(args.source, (size[0], size[1], size[2]) if size else None)
    port = settings.view.port if args.port is None else args.port
    windows = Windows(desk, args.host, port, settings.view.viewers)
    more = predicted(args.prediction, scene) if args.prediction is not None else None
    host = "127.0.0.1" if args.host in ("0.0.0.0", "::") else args.host
    return windows, windows.open(scene, host, getpass.getuser(), more)


def desk_of(settings: Settings, weights: Path, studies: Path | None, device: str) -> Desk:
    """What viewers of a command work with.

    Raises:
        ValueError: there is no such study.
    """
    scores = objects = None
    if studies is not None:
        scores = ScoreStore(existing_study(studies, settings), settings.queries)
        objects = ObjectStore(studies, settings.inference.min_object_voxels)
    return Desk(
        settings, hierarchy_of(settings), SharedNetwork(weights, settings, study=studies), device,
        ImageStore(
            settings.data.spacing_unit, bright_membranes=settings.data.bright_membranes
        ), FeatureCache(settings.inference.cache_bytes),
        objects, scores,
    )  # fmt: skip


def predicted(out: Path, scene: Scene) -> Callable[[LiveViewer], dict[str, Any]]:
    """Layers of a blockwise prediction.

    Raises:
        VolumeError: it is none, or of another volume.
    """
    plan = read_plan(out)
    if plan is None:
        raise VolumeError(out, "no blockwise prediction", "an --out of `main.py predict`")
    if plan.source_shape != scene.shape:
        raise VolumeError(
            out, f"a prediction of {plan.source_shape} voxels", f"{scene.shape} of {scene.name}"
        )
    if any(plan.origin):
        raise VolumeError(
            out, f"a prediction of a source whose first voxel is {plan.origin}", "0, 0, 0",
            "open it in Neuroglancer by its address",
        )  # fmt: skip

    def layers(viewer: LiveViewer) -> dict[str, Any]:
        found = {}
        for name in (n for n in LAYERS if (out / n).exists()):
            classes = name == "classes"
            if not classes and not (out / FOLDER / JOINED).exists():
                continue  # they are not joined yet
            if not classes:
                viewer.properties[f"predicted-{name}"] = _largest(out, scene)
            names = viewer.address(OF_CLASSES if classes else f"predicted-{name}")
            folder = viewer.folder(name, out / name)
            found[f"predicted {name}"] = predicted_layer(scene, folder, names, classes)
        return found

    return layers


def _largest(out: Path, scene: Scene) -> dict[str, Any]:
    """Names and classes of the largest objects of a prediction."""
    with np.load(out / FOLDER / JOINED, allow_pickle=False) as table:
        largest = np.argsort(-table["sizes"], kind="stable")[:MOST_LISTED]
        ids, classes = table["ids"][largest].tolist(), table["classes"][largest].tolist()
    return found_properties(ids, classes, scene.desk.hierarchy)


class Viewing(Protocol):
    """What `/neuroglancer` asks of the app."""

    def desk(self) -> Desk: ...


class NeuroglancerPage:
    """Sends a browser to a viewer of its own.

    Args:
        app: whose study is shown.
        host: where Neuroglancer's server is to listen.
    """

    def __init__(self, app: Viewing, host: str) -> None:
        self.app, self.host = app, host
        self._windows: Windows | None = None

    def open(self, request: Request, image: str, client: str = "", at: str = "") -> Response:
        """Open an item; `at` is a voxel "i,j,k" to show.

        Raises:
            HTTPException: 404 for no such item or where it is switched off, 503 where the port
                cannot be had.
        """
        desk = self.app.desk()
        if not desk.settings.view.enabled:
            raise refuse("Neuroglancer is switched off (view.enabled)", NOT_FOUND)
        assert desk.scores is not None
        if not desk.scores.study.has_item(image):
            raise refuse(f"image: no image {image!r} in the studies", NOT_FOUND)
        if self._windows is None:
            view = desk.settings.view
            self._windows = Windows(desk, self.host, view.port, view.viewers)
        try:
            self._windows.start()
        except OSError as error:
            raise refuse(error.strerror or str(error), BUSY) from error
        try:
            viewer = self._windows.open(
                desk.item(image), request.url.hostname or self.host, client or _stranger()
            )
        except Exception as error:
            raise as_answer(error) or error from error
        place = [int(v) for v in at.split(",") if v.strip().isdecimal()]
        if len(place) == 3:
            viewer.go_to((place[0], place[1], place[2]))
        return RedirectResponse(viewer.url, status_code=303)


def _stranger() -> str:
    """A name for somebody who gave none: two of them are not sent to one place."""
    return f"neuroglancer {secrets.token_hex(2)}"
