"""One viewer: its keys are put to a session, and its layers show where that stands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import neuroglancer
import numpy as np
from neuroglancer.random_token import make_random_token

from lib.view.neuroglancer import layers
from lib.view.neuroglancer.keys import (
    CLASS_BINDINGS,
    CLASS_SHOWN,
    KEYS,
    action_of,
    class_action,
)
from lib.view.neuroglancer.places import drawn_in, voxel_of
from lib.view.neuroglancer.scene import Scene
from lib.view.neuroglancer.screen import Screen
from lib.view.neuroglancer.session import Session
from lib.view.neuroglancer.volumes import dimensions
from lib.view.neuroglancer.watch import Watch
from lib.volumes.boxes import Triple

logger = logging.getLogger("neuropil.view")

MESSAGE, BUSY = "neuropil", "working ..."
SCREEN_POINTS = 600.0
"""The screen that a small image fills at the start; a large one is shown voxel by point."""
WELCOME = "P: a point on the object, H: all keys, D: the next doubtful place"


class LiveViewer:
    """A viewer of one person.

    Args:
        scene: what it shows.
        base: address of Neuroglancer's server, as the person's browser reaches it.
        client: under which edits are entered.
        more: further layers by their names, called with `address`.
    """

    def __init__(
        self,
        scene: Scene,
        base: str,
        client: str = "",
        more: Callable[[LiveViewer], dict[str, Any]] | None = None,
    ) -> None:
        self.scene, self.base = scene, base
        self.folders: dict[str, Path] = {}
        """Name -> chunked volume whose files the client reads itself."""
        self.session = Session(scene, client, progress=self._progress)
        self.viewer = neuroglancer.Viewer(token=make_random_token(), allow_credentials=False)
        self._work = ThreadPoolExecutor(1, "viewer")
        self._screen = Screen(scene)
        self._naming = False
        volume, layer = layers.object_layer(scene) if scene.current() is not None else (None, None)
        self._watch = Watch(self.viewer, scene, volume, self.address)
        self._build(layer, more)
        self._bind()

    @property
    def token(self) -> str:
        """What makes the viewer's address its own."""
        return str(self.viewer.token)

    @property
    def url(self) -> str:
        """Where the browser finds it."""
        return f"{self.base}/v/{self.token}/"

    def address(self, name: str) -> str:
        """Where the client finds properties of segments."""
        return f"precomputed://{self.base}/properties/{self.token}/{name}"

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        """Name -> metadata of segments, which the server hands to the client."""
        return self._watch.properties

    def folder(self, name: str, path: Path) -> str:
        """Let the client read a chunked volume; where it finds that."""
        self.folders[name] = path
        return f"zarr://{self.base}/files/{self.token}/{name}/"

    def close(self) -> None:
        """Take no more work."""
        self._work.shutdown(wait=False, cancel_futures=True)

    def go_to(self, voxel: Triple) -> None:
        """Move the view to a voxel."""
        with self.viewer.txn() as state:
            state.position = [v + 0.5 for v in voxel]

    def look(self) -> Future[None]:
        """Show what others did meanwhile."""
        return self._work.submit(self._watch.look)

    def act(self, name: str, action: Any) -> Future[None]:
        """Do what a key asks for, after what was asked for before it.

        Args:
            name: of the key.
            action: Neuroglancer's state at the time of the key.
        """
        return self._work.submit(self._act, name, action)

    # what happens in the worker's thread

    def _act(self, name: str, action: Any) -> None:
        try:
            self._tell(BUSY)
            told = self._done(name, action)
        except (ValueError, OSError) as error:
            told = str(error)
        except Exception as error:
            logger.exception("%s", name)
            told = f"{name} failed: {type(error).__name__}: {error}; see the log"
        try:
            self._watch.note_found(self.session.objects)
            with self.viewer.txn() as state:
                layers.show_session(state, self.scene, self.session, self.address, self._screen.box)
            self._watch.look()
        finally:
            self._tell(told)

    def _done(self, name: str, action: Any) -> str:
        state, session = action.viewer_state, self.session
        voxel = voxel_of(action.mouse_position, state.dimensions, self.scene.voxel_size_nm)
        self._read_strokes(state)
        if name != "declare":
            session.asked = None
        if name != "class":
            self._expect_class(False)
        if name in ("positive", "negative"):
            if voxel is None:
                raise ValueError("the mouse is beside the image")
            return session.click(voxel, name == "positive")
        if name == "answer":
            return session.find()
        if name == "kind":
            return session.other_kind()
        if name == "clear":
            self._screen.box = None
            return session.clear()
        if name == "class":
            self._expect_class(not self._naming)
            return self._class_list() if self._naming else WELCOME
        if name.startswith("class-"):
            if voxel is None:
                raise ValueError("the mouse is beside the image")
            return session.name_class(voxel, int(name.removeprefix("class-")))
        if name == "doubt":
            return self._go_to_doubt()
        if name in ("objects", "classes", "declare"):
            box = self._screen.take(state, session.asked)
            if name == "declare":
                return session.declare(box)
            return (session.find_objects if name == "objects" else session.find_classes)(box)
        return session.edit(name, voxel)

    def _go_to_doubt(self) -> str:
        doubt = self.session.next_doubt()
        self.go_to(doubt.place)
        return doubt.reason

    def _read_strokes(self, state: Any) -> None:
        lines = []
        for name, points in (
            (layers.POSITIVE, self.session.positive), (layers.NEGATIVE, self.session.negative),
        ):  # fmt: skip
            own = [layers.own_id(n) for n in range(len(points))]
            layer = state.layers[name].layer if name in state.layers else None
            lines.append(drawn_in(layer, own).points)
        self.session.drawn = lines[0], lines[1]

    def _expect_class(self, naming: bool) -> None:
        """Keys choose classes, or do what they do otherwise."""
        if naming == self._naming:
            return
        self._naming = naming
        count = len(self.scene.desk.hierarchy.class_names)
        mine = {b: action_of(key.name) for key in KEYS for b in key.bindings}
        with self.viewer.config_state.txn() as config:
            bindings = config.input_event_bindings.data_view
            for fine, binding in enumerate(CLASS_BINDINGS[:count]):
                if naming:
                    bindings[binding] = class_action(fine)
                elif binding in mine:
                    bindings[binding] = mine[binding]
                else:
                    del bindings[binding]

    def _class_list(self) -> str:
        names = self.scene.desk.hierarchy.class_names
        listed = "  ".join(f"{k} {n}" for k, n in zip(CLASS_SHOWN, names, strict=False))
        return f"the object under the mouse is: {listed}"

    def _progress(self, done: int, total: int) -> None:
        self._tell(f"{BUSY} {done} of {total} windows")

    def _tell(self, text: str) -> None:
        with self.viewer.config_state.txn() as config:
            config.status_messages[MESSAGE] = text

    # the start

    def _build(
        self, objects: Any | None, more: Callable[[LiveViewer], dict[str, Any]] | None
    ) -> None:
        scene = self.scene
        found: dict[str, Any] = {layers.IMAGE: layers.image_layer(scene)}
        if (heat := layers.heat_layer(scene)) is not None:
            found[layers.HEAT] = heat
        classes = layers.class_layer(scene, self.address(layers.OF_CLASSES))
        if classes is not None:
            found[layers.CLASSES] = classes
        if objects is not None:
            found[layers.OBJECTS] = objects
        found |= {} if more is None else more(self)
        found |= layers.region_layers(scene)
        with self.viewer.txn() as state:
            state.dimensions = dimensions(scene.voxel_size_nm)
            for name, layer in found.items():
                state.layers[name] = layer
            layers.show_session(state, scene, self.session, self.address, None)
            for hidden in (layers.HEAT, layers.CLASSES if layers.OBJECTS in found else ""):
                if hidden in found:
                    state.layers[hidden].visible = False
            state.position = [(n // 2) + 0.5 for n in scene.shape]
            state.cross_section_scale = min(1.0, _longest(scene) / SCREEN_POINTS)
            state.projection_scale = 2 * _longest(scene)
            state.layout = "xy" if _sections_last(scene) else "4panel"
            state.title = f"{scene.name} - Neuropil"
            state.show_default_annotations = False
        self._watch.look()

    def _bind(self) -> None:
        count = len(self.scene.desk.hierarchy.class_names)
        for name in [key.name for key in KEYS] + [f"class-{n}" for n in range(count)]:
            self.viewer.actions.add(action_of(name), self._handler(name))
        with self.viewer.config_state.txn() as config:
            for key in KEYS:
                for binding in key.bindings:
                    config.input_event_bindings.data_view[binding] = action_of(key.name)
        self._tell(WELCOME)

    def _handler(self, name: str) -> Callable[[Any], None]:
        def handle(action: Any) -> None:
            self.act(name, action)

        return handle


def _longest(scene: Scene) -> float:
    """Of the image's sections, in finest voxels."""
    finest = min(scene.voxel_size_nm)
    across = zip(scene.shape[:2], scene.voxel_size_nm[:2], strict=True)
    return max(n * v / finest for n, v in across)


def _sections_last(scene: Scene) -> bool:
    """Whether sections are what is looked at: the last axis is the coarsest, or of one voxel."""
    size: Triple = scene.shape
    return size[2] == 1 or scene.voxel_size_nm[2] >= 2 * float(np.min(scene.voxel_size_nm))
