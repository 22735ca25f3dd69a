"""Pages for people, in place of the stock ones, which are white without internet.

`/` shows the study, `/docs` the HTTP interface, `/logs/` the log, `/ohif/` on a folder what to
do instead of an error. What they say comes from `lib/view`; nothing is fetched from elsewhere.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from lib.engine.publish import restore_version, versions
from lib.labels.hierarchy import LabelHierarchy
from lib.proofread.store import ObjectStore
from lib.queries.ledger import HandedOut
from lib.queries.store import ScoreStore
from lib.server.errors import NOT_FOUND, as_answer, refuse
from lib.server.viewing import NeuroglancerPage
from lib.view.api import Endpoint, endpoints
from lib.view.neuroglancer.scene import Desk
from lib.view.overview import PAGE, card, overview, recent_regions
from lib.view.render import POLICY, STATIC, render
from lib.view.runs import last_figures, newest_run, refits
from lib.view.sections import CURRENT, IMAGE, TAGS, section_axis, section_png
from lib.view.versions import weights_versions
from lib.volumes.study import StudyItem

REPLACED = ("/", "/docs")
TENSORBOARD = 6006
"""Where `make tensorboard` listens, on this machine."""
LOG_SECONDS = 5
MOST_PIXELS = 2048
LAYERS = (IMAGE, *TAGS, CURRENT)
"""What the page of an item may be asked to show; one that the item lacks gives way."""


class Shown(Protocol):
    """What the pages ask of the app."""

    hierarchy: LabelHierarchy
    studies: str
    remote: bool

    objects: ObjectStore

    def score_store(self) -> ScoreStore: ...

    def published_weights(self) -> Path: ...

    def learned(self) -> dict[str, Any]: ...

    def desk(self) -> Desk: ...


@dataclass(frozen=True)
class Pages:
    """The pages of one server.

    Args:
        app: whose study they show.
        web: the web application, which knows its own interface.
        running: tells whether a training runs.
    """

    app: Shown
    web: FastAPI
    running: Any

    def home(self, request: Request, start: int = 0) -> Response:
        """The study."""
        store = self.app.score_store()
        values = {
            "base": _base(request),
            "study": Path(self.app.studies).name if not self.app.remote else self.app.studies,
            "folder": self.app.studies,
            "remote": self.app.remote,
            "overview": overview(store, start),
            "page_size": PAGE,
            "tensorboard": _tensorboard(request),
            "neuroglancer": self._neuroglancer,
            **self._progress(),
        }
        return _page("home.html", values)

    def progress(self) -> Response:
        """The part of the study's page that changes while one looks at it."""
        return _page("progress.html", self._progress())

    def item(
        self, image: str, section: int | None = None, layer: str | None = None, at: str = ""
    ) -> Response:
        """One item, section by section; `at` is a voxel to show."""
        store, item = self._item(image)
        if layer is not None and layer not in LAYERS:
            raise refuse(f"layer: expected one of {', '.join(LAYERS)}, found {layer!r}")
        shown = card(store, item, recent_regions(store))
        values: dict[str, Any] = {"item": shown, "rectangles": [], "tags": []}
        values["neuroglancer"] = self._neuroglancer
        if not shown.trouble:
            axis = section_axis(item)
            wanted = shown.section if section is None else section
            wanted = _voxel(at, axis, wanted)
            values |= {
                "section": min(max(wanted, 0), shown.sections - 1),
                "layer": layer if layer in shown.layers else shown.best_layer,
                "rectangles": [_rectangle(r, item, axis) for r in shown.regions],
                "classes": self._legend,
                "tags": [(name, TAGS[name]) for name in shown.layers if name in TAGS],
            }
        return _page("item.html", values)

    def section(self, image: str, section: int, layer: str = IMAGE, pixels: int = 1024) -> Response:
        """A picture of one section."""
        _, item = self._item(image)
        try:
            size = min(max(pixels, 16), MOST_PIXELS)
            data = section_png(item, layer, section, size, self.app.objects)
        except Exception as error:
            raise as_answer(error) or error from error
        return Response(data, media_type="image/png", headers={"Cache-Control": "no-cache"})

    def volume(self, image: str, layer: str) -> Response:
        """What lies over an image as a file that Slicer and others load, named by both."""
        _, item = self._item(image)
        there = [name for name, tag in TAGS.items() if item.has_label(tag)]
        if layer not in there:
            listed = ", ".join(there) or "none"
            raise refuse(
                f"layer: item {image} has no file of {layer!r}; there are: {listed}", NOT_FOUND
            )
        path = item.label_path(TAGS[layer])
        suffix = path.name.removeprefix(item.id)
        return FileResponse(path, filename=f"{item.id}-{layer.replace(' ', '-')}{suffix}")

    def api(self, request: Request) -> Response:
        """The HTTP interface."""
        groups: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints(self.web.openapi()):
            groups.setdefault(endpoint.group, []).append(endpoint)
        return _page("api.html", {"groups": list(groups.items()), "base": _base(request)})

    def restore(self, version: str = Form()) -> Response:
        """Publish kept weights again; those they replace are kept."""
        published = self.app.published_weights()
        found = next((p for p in versions(published) if p.name == version), None)
        if found is None:
            raise refuse(f"version: no kept weights {version!r}", NOT_FOUND)
        try:
            restore_version(published, found)
        except Exception as error:
            raise as_answer(error) or error from error
        return RedirectResponse("/", status_code=303)

    def _progress(self) -> dict[str, Any]:
        published = self.app.published_weights()
        runs = published.parent / "combined"
        training = {
            "running": self.running(),
            "figures": last_figures(runs),
            "run": newest_run(runs),
        }
        return {
            "training": training,
            "versions": weights_versions(published),
            "learning": {"sentence": "", "running": False, "figures": [], **self.app.learned()},
            "refits": refits(self.app.score_store().study.root),
        }

    def _item(self, image: str) -> tuple[ScoreStore, StudyItem]:
        store = self.app.score_store()
        try:
            return store, store.study.item(image)
        except ValueError as error:
            raise refuse(str(error), NOT_FOUND) from error

    @property
    def _neuroglancer(self) -> bool:
        return self.app.desk().settings.view.enabled

    @cached_property
    def _legend(self) -> list[tuple[str, str]]:
        return [(c.name, "#" + bytes(c.color).hex()) for c in self.app.hierarchy.classes]


def mend_pages(
    app: Shown,
    web: FastAPI,
    ohif: ModuleType,
    logs: ModuleType,
    running: Any,
    guard: Any,
    host: str = "127.0.0.1",
) -> None:
    """Put the pages in place of the stock ones.

    Args:
        app, web, running: see `Pages`.
        ohif, logs: the stock endpoints' modules.
        guard: who may look, as for the stock endpoints; a dependency.
        host: where Neuroglancer's server is to listen.
    """
    pages = Pages(app, web, running)
    router = APIRouter(include_in_schema=False, dependencies=[Depends(guard)])
    live = NeuroglancerPage(app, host)
    for path, page in (
        ("/", pages.home), ("/docs", pages.api), ("/page/progress", pages.progress),
        ("/page/item", pages.item), ("/page/section", pages.section),
        ("/page/volume", pages.volume), ("/neuroglancer", live.open),
    ):  # fmt: skip
        router.add_api_route(path, page, methods=["GET"])
    router.add_api_route("/page/restore", pages.restore, methods=["POST"])
    web.router.routes[:] = [r for r in web.router.routes if getattr(r, "path", "") not in REPLACED]
    web.mount("/page/static", StaticFiles(directory=STATIC), name="page")
    web.include_router(router)
    _mend_logs(logs)
    if not app.remote:
        folder = app.studies

        def no_store(path: str) -> Response:
            return _page("ohif.html", {"folder": folder}, NOT_FOUND)

        ohif.__dict__["get_ohif"] = no_store


def _mend_logs(logs: ModuleType) -> None:
    """The stock page of the log takes its editor from the internet."""
    stock = logs.get_logs

    def get_logs(file: str, lines: int, html: bool, text: bool, refresh: int) -> Response:
        answer: Response = stock(file, lines, False, True, refresh)
        if not html or text or not answer.body:
            return answer
        seconds = max(int(refresh or 0), LOG_SECONDS)
        return _page("logs.html", {"text": bytes(answer.body).decode(), "seconds": seconds})

    logs.__dict__["get_logs"] = get_logs


def _page(template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(render(template, values), status, headers)


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _tensorboard(request: Request) -> str:
    """The address of a TensorBoard that runs on this machine; "" where none answers."""
    try:
        address = f"http://127.0.0.1:{TENSORBOARD}/data/environment"
        with urllib.request.urlopen(address, timeout=0.3) as answer:
            found = b"data_location" in answer.read(4096)
    except (OSError, ValueError):
        return ""
    return f"http://{request.url.hostname}:{TENSORBOARD}/" if found else ""


def _voxel(at: str, axis: int, otherwise: int) -> int:
    """The section of a voxel "i,j,k"."""
    parts = at.split(",")
    return int(parts[axis]) if len(parts) == 3 and parts[axis].isdecimal() else otherwise


def _rectangle(region: HandedOut, item: StudyItem, axis: int) -> dict[str, float]:
    """Where a region lies on the sections it crosses, in percent."""
    across, down = (a for a in range(3) if a != axis)
    (x0, x1), (y0, y1) = region.box[across], region.box[down]
    width, height = item.shape[across], item.shape[down]
    return {
        "low": region.box[axis][0], "high": region.box[axis][1],
        "x": 100 * x0 / width, "width": 100 * (x1 - x0) / width,
        "y": 100 * y0 / height, "height": 100 * (y1 - y0) / height,
    }  # fmt: skip
