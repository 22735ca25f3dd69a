"""What others did meanwhile: objects, labels and regions of a viewer are shown anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib.view.neuroglancer import layers
from lib.view.neuroglancer.properties import (
    class_properties,
    found_properties,
    object_properties,
)
from lib.view.neuroglancer.scene import Scene
from lib.view.neuroglancer.session import Found
from lib.view.neuroglancer.volumes import Volume

OBJECT_PROPERTIES = "objects"


class Watch:
    """Keeps the layers of one viewer as the study is.

    Args:
        viewer: Neuroglancer's.
        scene: what it shows.
        volume: of the objects; None for a file.
        address: name of properties -> where the client finds them.
    """

    def __init__(
        self, viewer: Any, scene: Scene, volume: Volume | None, address: Callable[[str], str]
    ) -> None:
        self.viewer, self.scene, self.volume, self.address = viewer, scene, volume, address
        self.properties: dict[str, dict[str, Any]] = {
            layers.OF_CLASSES: class_properties(scene.desk.hierarchy)
        }
        """Name -> metadata of segments, which the server hands to the client."""
        self.version = ""
        self._labels = layers.labels_stamp(scene)
        self._count = 0

    def look(self) -> None:
        """Show objects and labels anew where anybody has changed them."""
        self._objects()
        self._regions()

    def note_found(self, found: Found | None) -> None:
        """Keep the names of objects that were just found, and of no others."""
        kept = "" if found is None else layers.found_name(found)
        for old in [n for n in self.properties if n.startswith("found-") and n != kept]:
            del self.properties[old]
        if found is not None and kept not in self.properties:
            classes = found.classes.tolist()
            self.properties[kept] = found_properties(
                range(1, len(classes)), classes[1:], self.scene.desk.hierarchy
            )

    def _objects(self) -> None:
        objects, queue = self.scene.current(), self.scene.desk.queue
        if objects is None or queue is None or self.volume is None:
            return
        version = objects.version
        if version == self.version:
            return
        first, self.version = not self.version, version
        classes = queue.classes(self.scene.name, objects)
        for old in [n for n in self.properties if n.startswith(OBJECT_PROPERTIES)]:
            del self.properties[old]
        self._count += 1
        name = f"{OBJECT_PROPERTIES}-{self._count}"
        self.properties[name] = object_properties(objects, classes, self.scene.desk.hierarchy)
        with self.viewer.txn() as state:
            if layers.OBJECTS in state.layers:
                state.layers[layers.OBJECTS].layer.source = [self.volume, self.address(name)]
        if not first:
            self.volume.invalidate()

    def _regions(self) -> None:
        """Annotated classes and regions, and regions handed out."""
        stamp = layers.labels_stamp(self.scene)
        if stamp == self._labels:
            return
        self._labels = stamp
        shown = layers.region_layers(self.scene)
        classes = layers.class_layer(self.scene, self.address(layers.OF_CLASSES))
        with self.viewer.txn() as state:
            if classes is not None:
                there = layers.CLASSES in state.layers
                visible = there and state.layers[layers.CLASSES].visible
                state.layers[layers.CLASSES] = classes
                state.layers[layers.CLASSES].visible = visible
            for name, layer in shown.items():
                state.layers[name] = layer
