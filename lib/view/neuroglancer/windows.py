"""All viewers of a process, and the server that they speak to."""

from __future__ import annotations

import errno
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import neuroglancer
import tornado.web

from lib.view.neuroglancer.scene import Desk, Scene
from lib.view.neuroglancer.viewer import LiveViewer

LOOK_SECONDS = 2.0
"""How often a viewer looks for what others did."""
_LOCK = threading.Lock()


class Windows:
    """Opens viewers; each is one person's, the edits are everybody's.

    Neuroglancer's server is one for a process and starts with the first viewer. It listens on a
    port of its own; who knows a viewer's address, which holds 160 random bits, may use it.

    Args:
        desk: what they work with.
        host: where to listen.
        port: 0: any that is free.
        most: viewers that are kept; the one that was opened first goes.
    """

    def __init__(self, desk: Desk, host: str = "127.0.0.1", port: int = 0, most: int = 16) -> None:
        self.desk, self.host, self.port, self.most = desk, host, port, most
        self._open: OrderedDict[str, LiveViewer] = OrderedDict()
        self._stop = threading.Event()
        self._looking: threading.Thread | None = None

    def start(self) -> int:
        """Start the server where it does not run yet; the port it listens on.

        Raises:
            OSError: the port or the host cannot be had; says what to do.
        """
        with _LOCK:
            if not neuroglancer.is_server_running():
                neuroglancer.set_server_bind_address(self.host, self.port)
                try:
                    neuroglancer.server.start()
                except OSError as error:
                    raise OSError(
                        error.errno or errno.EADDRINUSE,
                        f"Neuroglancer's port {self.port} on {self.host} cannot be had "
                        f"({error.strerror or error}); choose another by view.port, or 0 for "
                        "any that is free",
                    ) from error
                server = neuroglancer.server.global_server
                given = {"windows": self}
                routes = [
                    (r"/properties/([^/]+)/([^/]+)/info", Properties, given),
                    (r"/files/([^/]+)/([^/]+)/(.*)", Files, given),
                ]
                server.app.add_handlers(r".*", routes)
            return int(neuroglancer.server.global_server.port)

    def open(
        self,
        scene: Scene,
        host: str,
        client: str = "",
        more: Callable[[LiveViewer], dict[str, Any]] | None = None,
    ) -> LiveViewer:
        """A viewer of its own.

        Args:
            scene: what it shows.
            host: of this machine, as the person's browser calls it.
            client: under which edits are entered.
            more: see `LiveViewer`.
        """
        named = f"[{host}]" if ":" in host and not host.startswith("[") else host
        viewer = LiveViewer(scene, f"http://{named}:{self.start()}", client, more)
        with _LOCK:
            self._open[viewer.token] = viewer
            while len(self._open) > self.most:
                self._open.popitem(last=False)[1].close()
            if self._looking is None:
                self._looking = threading.Thread(target=self._look, daemon=True)
                self._looking.start()
        return viewer

    def viewer(self, token: str) -> LiveViewer | None:
        """An open viewer by its token."""
        return self._open.get(token)

    def close(self) -> None:
        """Close all viewers and the server."""
        self._stop.set()
        with _LOCK:
            for viewer in self._open.values():
                viewer.close()
            self._open.clear()
        neuroglancer.stop()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            for viewer in list(self._open.values()):
                viewer.look()


class Properties(tornado.web.RequestHandler):
    """Answers the client's questions about segments."""

    def initialize(self, windows: Windows) -> None:
        """Called by tornado with the route's arguments."""
        self.windows = windows

    def get(self, token: str, name: str) -> None:
        """The metadata of a viewer's layer."""
        viewer = self.windows.viewer(token)
        found = viewer.properties.get(name) if viewer is not None else None
        if found is None:
            self.send_error(404)
            return
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(found))


class Files(tornado.web.StaticFileHandler):
    """Chunked volumes as they lie on the disk: the client reads what it shows, in any resolution.

    Only folders that a viewer shows, and only under its own token.
    """

    def initialize(self, windows: Windows) -> None:  # type: ignore[override]
        """Called by tornado with the route's arguments."""
        self.windows = windows
        super().initialize(path="")

    async def get(  # type: ignore[override]
        self, token: str, name: str, path: str, include_body: bool = True
    ) -> None:
        """A file of a folder, or a part of it."""
        viewer = self.windows.viewer(token)
        folder = viewer.folders.get(name) if viewer is not None else None
        if folder is None:
            self.send_error(404)
            return
        self.root = str(folder.resolve())
        await super().get(path, include_body)

    async def head(self, token: str, name: str, path: str) -> None:  # type: ignore[override]
        """Whether a file is there, and how large it is."""
        await self.get(token, name, path, include_body=False)

    def compute_etag(self) -> None:
        """None: it would take reading a whole shard to answer for a part of it."""
