"""One viewer: its keys are put to a session, and its layers show where that stands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import neuroglancer
import numpy as np
from neuroglancer.random_token import make_random_token

from lib.view.neuroglancer import layers, properties
from lib.view.neuroglancer.keys import (
    CLASS_BINDINGS,
    CLASS_SHOWN,
    KEYS,
    action_of,
    class_action,
)
from lib.view.neuroglancer.places import around, drawn_in, screen_extent, voxel_of
from lib.view.neuroglancer.scene import Scene
from lib.view.neuroglancer.session import Session
from lib.view.neuroglancer.volumes import Volume, dimensions
from lib.volumes.boxes import Box, Triple, intersect, whole_box
from lib.volumes.frames import viewer_frame

logger = logging.getLogger("neuropil.view")

MESSAGE, BUSY = "neuropil", "working ..."
SCREEN_POINTS = 600.0
"""The screen that a small image fills at the start; a large one is shown voxel by point."""
WELCOME = "P: a point on the object, H: all keys, D: the next doubtful place"
OBJECT_PROPERTIES = "objects"


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
        self.session = Session(scene, client)
        self.viewer = neuroglancer.Viewer(token=make_random_token(), allow_credentials=False)
        self.properties: dict[str, dict[str, Any]] = {}
        """Name -> metadata of segments, which the server hands to the client."""
        self._work = ThreadPoolExecutor(1, "viewer")
        self._box: Box | None = None
        self._version, self._labels, self._shown = "", "", 0
        self._naming = self._drawn = False
        self._objects: Volume | None = None
        self._build(more)
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

    def close(self) -> None:
        """Take no more work."""
        self._work.shutdown(wait=False, cancel_futures=True)

    def go_to(self, voxel: Triple) -> None:
        """Move the view to a voxel."""
        with self.viewer.txn() as state:
            state.position = [v + 0.5 for v in voxel]

    def look(self) -> Future[None]:
        """Show what others did meanwhile."""
        return self._work.submit(self._look)

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
            with self.viewer.txn() as state:
                layers.show_session(state, self.scene, self.session, self.address, self._box)
            self._look()
        finally:
            self._tell(told)

    def _done(self, name: str, action: Any) -> str:
        state, session = action.viewer_state, self.session
        voxel = voxel_of(action.mouse_position, state.dimensions.names)
        self._read_strokes(state)
        if name != "declare":
            session.asked = None
        if name in ("positive", "negative"):
            if voxel is None:
                raise ValueError("the mouse is beside the image")
            return session.click(voxel, name == "positive")
        if name == "answer":
            return session.find()
        if name == "clear":
            self._box = None
            self._expect_class(False)
            return session.clear()
        if name == "class":
            self._expect_class(not self._naming)
            return self._class_list() if self._naming else WELCOME
        if name.startswith("class-"):
            self._expect_class(False)
            if voxel is None:
                raise ValueError("the mouse is beside the image")
            return session.name_class(voxel, int(name.removeprefix("class-")))
        if name == "doubt":
            return self._go_to_doubt()
        if name in ("objects", "classes", "declare"):
            self._box = self._on_screen(state)
            if name == "declare":
                return session.declare(self._box)
            return (session.find_objects if name == "objects" else session.find_classes)(self._box)
        return session.edit(name, voxel)

    def _go_to_doubt(self) -> str:
        doubt = self.session.next_doubt()
        self.go_to(doubt.place)
        return doubt.reason

    def _look(self) -> None:
        """Show objects and labels anew where anybody has changed them."""
        self._look_at_objects()
        self._look_at_labels()

    def _look_at_objects(self) -> None:
        objects, queue = self.scene.current(), self.scene.desk.queue
        if objects is None or queue is None or self._objects is None:
            return
        version = objects.version
        if version == self._version:
            return
        first, self._version = not self._version, version
        classes = queue.classes(self.scene.name, objects)
        found = properties.object_properties(objects, classes, self.scene.desk.hierarchy)
        for old in [n for n in self.properties if n.startswith(OBJECT_PROPERTIES)]:
            del self.properties[old]
        self._shown += 1
        name = f"{OBJECT_PROPERTIES}-{self._shown}"
        self.properties[name] = found
        with self.viewer.txn() as state:
            if layers.OBJECTS in state.layers:
                state.layers[layers.OBJECTS].layer.source = [self._objects, self.address(name)]
        if not first:
            self._objects.invalidate()

    def _look_at_labels(self) -> None:
        """Annotated classes and regions, and regions handed out."""
        stamp = layers.labels_stamp(self.scene)
        if stamp == self._labels:
            return
        first, self._labels = not self._labels, stamp
        if first:
            return
        shown = layers.region_layers(self.scene)
        classes = layers.class_layer(self.scene, self.address(layers.OF_CLASSES))
        with self.viewer.txn() as state:
            if classes is not None:
                hidden = layers.CLASSES not in state.layers
                visible = not hidden and state.layers[layers.CLASSES].visible
                state.layers[layers.CLASSES] = classes
                state.layers[layers.CLASSES].visible = visible
            for name, layer in shown.items():
                state.layers[name] = layer

    def _read_strokes(self, state: Any) -> None:
        lines = []
        for name, points in (
            (layers.POSITIVE, self.session.positive), (layers.NEGATIVE, self.session.negative),
        ):  # fmt: skip
            own = [layers.own_id(n) for n in range(len(points))]
            layer = state.layers[name].layer if name in state.layers else None
            lines.append(drawn_in(layer, own).points)
        self.session.drawn = lines[0], lines[1]

    def _on_screen(self, state: Any) -> Box:
        """The box that a person drew in the layer `region`, or what is around the middle.

        Raises:
            ValueError: it lies beside the image.
        """
        scene = self.scene
        layer = state.layers[layers.SCREEN].layer if layers.SCREEN in state.layers else None
        drawn = drawn_in(layer, ["0"]).boxes
        most = scene.desk.settings.view.region
        frame = viewer_frame(scene.shape, scene.voxel_size_nm)
        extent = screen_extent(state.cross_section_scale, scene.voxel_size_nm, most, frame)
        middle = voxel_of(state.position, state.dimensions.names)
        asked = self.session.asked if self._drawn else None  # it was drawn, and is shown since
        self._drawn = bool(drawn) or asked is not None
        if drawn:
            wanted = drawn[-1]
        elif asked is not None:
            wanted = asked
        elif middle is None:
            raise ValueError("the middle of the screen is beside the image")
        else:
            wanted = around(middle, extent, scene.shape)
        box = intersect(wanted, whole_box(scene.shape))
        if box is None:
            raise ValueError("the screen is beside the image")
        limit = [0, 0, 0]
        for axis, size in zip(frame.order, most, strict=True):
            limit[axis] = size
        if any(b - a > size for (a, b), size in zip(box, limit, strict=True)):
            raise ValueError(
                f"the region is {' x '.join(str(b - a) for a, b in box)} voxels; expected at most "
                f"{' x '.join(map(str, limit))} (view.region)"
            )
        return box

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

    def _tell(self, text: str) -> None:
        with self.viewer.config_state.txn() as config:
            config.status_messages[MESSAGE] = text

    # the start

    def _build(self, more: Callable[[LiveViewer], dict[str, Any]] | None) -> None:
        scene, hierarchy = self.scene, self.scene.desk.hierarchy
        self.properties[layers.OF_CLASSES] = properties.class_properties(hierarchy)
        found: dict[str, Any] = {layers.IMAGE: layers.image_layer(scene)}
        if (heat := layers.heat_layer(scene)) is not None:
            found[layers.HEAT] = heat
        classes = layers.class_layer(scene, self.address(layers.OF_CLASSES))
        if classes is not None:
            found[layers.CLASSES] = classes
        if scene.current() is not None:
            self._objects, found[layers.OBJECTS] = layers.object_layer(scene)
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
            state.layout = "xy" if _sections_last(scene) else "4panel"
            state.title = f"{scene.name} - Neuropil"
            state.show_default_annotations = False
        self._look()

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
