"""Layers of a viewer: which there are, what they are called and how they look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import neuroglancer
import numpy as np

from lib.clicks.answer import ClickAnswer
from lib.queries.ledger import Ledger
from lib.queries.store import ScoreStore
from lib.queries.volumes import is_volume
from lib.view.neuroglancer.properties import class_colors
from lib.view.neuroglancer.pyramid import Level
from lib.view.neuroglancer.scene import Scene
from lib.view.neuroglancer.session import Found, Session
from lib.view.neuroglancer.volumes import (
    Reading,
    Volume,
    array_reading,
    dimensions,
    heat_reading,
    image_reading,
    objects_reading,
)
from lib.volumes.boxes import Box, box_origin
from lib.volumes.contrast import intensity_window
from lib.volumes.regions import regions_in
from lib.volumes.study import StudyItem

IMAGE, CLASSES, OBJECTS, HEAT = "image", "classes", "objects", "uncertainty"
HANDED_OUT, ANNOTATED = "handed out", "annotated"
POSITIVE, NEGATIVE, SCREEN = "yes", "no", "region"
ANSWER, FOUND, FOUND_CLASSES = "answer", "found here", "classes here"
MOST_BOXES = 2000
"""Annotated regions that are drawn."""
GREEN, RED, YELLOW, BLUE = "#3cf03c", "#ff4040", "#ffd000", "#40a0ff"
WHITE, CYAN = "#ffffff", "#00f0ff"
GREY_SHADER = "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }\n"
HEAT_SHADER = """#uicontrol invlerp normalized(range=[0, 60])
void main() {
  float v = normalized();
  emitRGBA(vec4(v, v * v, 0.15 * (1.0 - v), 0.6 * v));
}
"""
OF_CLASSES = "classes"
"""Names of properties that stay the same; those of objects bear their version."""


def image_layer(scene: Scene) -> Any:
    """The image, in the contrast that the network sees."""
    low, high = intensity_window(scene.image.voxels)
    return neuroglancer.ImageLayer(
        source=Volume(image_reading(scene.image.voxels), scene.voxel_size_nm, labels=False),
        shader=GREY_SHADER,
        shader_controls={"normalized": {"range": [low, high]}},
    )


def class_layer(scene: Scene, properties: str) -> Any | None:
    """The annotated classes; None where nothing is annotated."""
    if scene.item is None or not scene.item.has_label("final"):
        return None
    item = scene.item.study.item(scene.name)
    # a packed label is unpacked from its start for each part that is read: one part
    whole = Level(scene.shape, item.read_final, unit=scene.shape)
    reading = Reading(scene.shape, np.dtype(np.uint8), item.read_final, lambda: [whole])
    return _classes(scene, Volume(reading, scene.voxel_size_nm, labels=True), properties)


def object_layer(scene: Scene) -> tuple[Volume, Any]:
    """The objects as they stand; their properties are put beside them by `with_properties`."""
    reading = objects_reading(scene.current, scene.shape)
    volume = Volume(reading, scene.voxel_size_nm, labels=True, objects=scene.current)
    layer = neuroglancer.SegmentationLayer(source=[volume], selected_alpha=0.35)
    return volume, layer


def predicted_layer(scene: Scene, folder: str, properties: str, classes: bool) -> Any:
    """Objects or classes as `predict` writes them; the client reads their chunks itself.

    Args:
        folder: where it finds them.
        properties: where it finds their names.
        classes: whether they are classes.
    """
    if classes:
        return _classes(scene, folder, properties)
    return neuroglancer.SegmentationLayer(source=[folder, properties], selected_alpha=0.35)


def heat_layer(scene: Scene) -> Any | None:
    """How unsure the network is; None without scores."""
    store = scene.desk.scores
    scores = store.scores(scene.item) if store is not None and scene.item is not None else None
    if scores is None or scores.heat_grid.shape != scene.shape:
        return None
    return neuroglancer.ImageLayer(
        source=Volume(heat_reading(scores), scene.voxel_size_nm, labels=False), shader=HEAT_SHADER
    )


def region_layers(scene: Scene) -> dict[str, Any]:
    """Boxes of the regions that were handed out, and of those that are annotated."""
    store = scene.desk.scores
    if store is None or scene.item is None:
        return {}
    item = store.study.item(scene.name)  # with the record as it is now
    ledger = Ledger(item.study.root, 60.0 * store.queries.reserve_minutes)
    out = [
        (e.box, f"{e.strategy} {e.client}".strip()) for e in ledger.recent() if e.item == item.id
    ]
    done = _known_items(item) if is_volume(item) else _known_regions(store, item)
    return {
        HANDED_OUT: _boxes(scene, out, YELLOW),
        ANNOTATED: _boxes(scene, done[:MOST_BOXES], BLUE),
    }


def _known_items(item: StudyItem) -> list[tuple[Box, str]]:
    """Annotated items that are parts of a volume: its regions are too many to be looked at."""
    inside = regions_in(item.study, item)
    return [(box, other.id) for other, box in inside if other.has_label("final")]


def _known_regions(store: ScoreStore, item: StudyItem) -> list[tuple[Box, str]]:
    """Regions of an item of which enough is known."""
    scores = store.scores(item)
    grid = store.grid_of(item) if scores is None else scores.grid
    known = store.known_share(item, grid).reshape(grid.cells)
    found: list[tuple[Box, str]] = []
    for cell in np.argwhere(known >= store.queries.annotated_share).tolist():
        x, y, z = ((int(e[c]), int(e[c + 1])) for e, c in zip(grid.edges, cell, strict=True))
        found.append(((x, y, z), f"{known[tuple(cell)]:.0%} known"))
    return found


def labels_stamp(scene: Scene) -> str:
    """Changes with the annotated classes, and with what is handed out."""
    if scene.item is None or scene.desk.scores is None:
        return "none"
    root, keep = scene.item.study.root, 60.0 * scene.desk.scores.queries.reserve_minutes
    paths = (scene.item.label_path("final"), Ledger(root, keep).path)
    return " ".join(str(p.stat().st_mtime_ns) if p.exists() else "-" for p in paths)


def point_layer(scene: Scene, points: Sequence[Sequence[int]], color: str) -> Any:
    """Clicked voxels; the annotation tools draw lines into the same layer."""
    return neuroglancer.LocalAnnotationLayer(
        dimensions=dimensions(scene.voxel_size_nm),
        annotations=own_points(points),
        annotation_color=color,
    )


def own_points(points: Sequence[Sequence[int]]) -> list[Any]:
    """Clicks as annotations."""
    return [
        neuroglancer.PointAnnotation(id=own_id(n), point=[v + 0.5 for v in point])
        for n, point in enumerate(points)
    ]


def own_id(number: int) -> str:
    """How a click is called among the annotations of its layer."""
    return f"click-{number}"


def screen_layer(scene: Scene, box: Box | None) -> Any:
    """The box that the last key was about."""
    return _boxes(scene, [] if box is None else [(box, "region")], WHITE)


def answer_layer(scene: Scene, answer: ClickAnswer) -> Any:
    """The object that the points mean."""
    volume = Volume(
        array_reading(answer.mask.astype(np.uint8)), scene.voxel_size_nm, labels=True,
        origin=box_origin(answer.box),
    )  # fmt: skip
    return neuroglancer.SegmentationLayer(
        source=[volume], segment_colors={1: CYAN}, selected_alpha=0.6
    )


def found_name(found: Found) -> str:
    """Under which the properties of found objects are: another one each time."""
    return f"found-{id(found)}"


def found_layer(scene: Scene, found: Found, properties: str) -> Any:
    """Objects of a box that were just found."""
    volume = Volume(
        array_reading(found.ids), scene.voxel_size_nm, labels=True, origin=box_origin(found.box)
    )
    return neuroglancer.SegmentationLayer(source=[volume, properties], selected_alpha=0.45)


def found_classes_layer(scene: Scene, found: Found, properties: str) -> Any:
    """Classes of a box that were just found."""
    volume = Volume(
        array_reading(found.ids), scene.voxel_size_nm, labels=True, origin=box_origin(found.box)
    )
    return _classes(scene, volume, properties)


def show_session(
    state: Any, scene: Scene, session: Session, address: Callable[[str], str], box: Box | None
) -> None:
    """Bring the layers of a state to where a session stands.

    Args:
        state: of the viewer, changed in place.
        address: name of properties -> where the client finds them.
        box: that the last key was about.
    """
    for name, points, color in (
        (POSITIVE, session.positive, GREEN), (NEGATIVE, session.negative, RED),
    ):  # fmt: skip
        if name not in state.layers:
            state.layers[name] = point_layer(scene, points, color)
            continue
        strokes = session.drawn[name == NEGATIVE]
        layer = state.layers[name].layer
        kept = [a for a in layer.annotations if strokes and not str(a.id).startswith("click-")]
        layer.annotations = [*own_points(points), *kept]
    state.layers[SCREEN] = screen_layer(scene, box)
    shown = {
        ANSWER: session.answer and answer_layer(scene, session.answer),
        FOUND: session.objects
        and found_layer(scene, session.objects, address(found_name(session.objects))),
        FOUND_CLASSES: session.classes
        and found_classes_layer(scene, session.classes, address(OF_CLASSES)),
    }
    for name, layer in shown.items():
        if layer is not None:
            state.layers[name] = layer
        elif name in state.layers:
            del state.layers[name]


def _classes(scene: Scene, source: Volume | str, properties: str) -> Any:
    return neuroglancer.SegmentationLayer(
        source=[source, properties],
        segment_colors=class_colors(scene.desk.hierarchy),
        selected_alpha=0.3,
    )


def _boxes(scene: Scene, boxes: Sequence[tuple[Box, str]], color: str) -> Any:
    annotations = [
        neuroglancer.AxisAlignedBoundingBoxAnnotation(
            id=str(n),
            point_a=[float(low) for low, _ in box],
            point_b=[float(high) for _, high in box],
            description=text,
        )
        for n, (box, text) in enumerate(boxes)
    ]
    return neuroglancer.LocalAnnotationLayer(
        dimensions=dimensions(scene.voxel_size_nm), annotations=annotations, annotation_color=color
    )
