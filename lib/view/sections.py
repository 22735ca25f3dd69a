"""A section of an item as a picture: the image, and over it what is annotated or found."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib.labels.colors import Rgb, id_colors, overlay, set_colors
from lib.proofread.log import EditLog
from lib.proofread.store import ObjectStore
from lib.queries.heatmap import heat_tag
from lib.volumes.boxes import Box, whole_box
from lib.volumes.contrast import intensity_window, normalize
from lib.volumes.disk_ids import from_disk_ids
from lib.volumes.frames import viewer_frame
from lib.volumes.study import StudyItem

IMAGE, CURRENT = "image", "current objects"
TAGS = {
    "classes": "final",
    "objects": "instance",
    "found objects": "instance_predicted",
    "uncertainty": heat_tag("uncertainty"),
}
"""What can lie over an image -> the tag of the label that holds it."""
HOT = np.array([[0.0, 0.0, 0.2], [0.6, 0.1, 0.5], [1.0, 0.5, 0.1], [1.0, 1.0, 0.6]], np.float32)


def layers(item: StudyItem) -> list[str]:
    """What can be shown of an item, the bare image first.

    `current objects` are the machine's with what people did to them; without edits they are
    the found ones.
    """
    edited = [CURRENT] if EditLog(item.study.root, item.id).path.exists() else []
    return [IMAGE, *(name for name, tag in TAGS.items() if item.has_label(tag)), *edited]


def section_axis(item: StudyItem) -> int:
    """The axis that sections are counted along: the coarsest, or the last."""
    return viewer_frame(item.shape, item.voxel_size_nm).order[-1]


def section_png(
    item: StudyItem, layer: str, section: int, pixels: int, objects: ObjectStore
) -> bytes:
    """One section as a PNG file, no larger than `pixels` on its longer side.

    Args:
        layer: one of `layers(item)`.
        section: index along `section_axis(item)`.
        objects: gives the item's current objects.

    Raises:
        ValueError: no such layer or section.
    """
    if layer not in layers(item):
        raise ValueError(f"layer: expected one of {', '.join(layers(item))}, found {layer!r}")
    axis = section_axis(item)
    if not 0 <= section < item.shape[axis]:
        raise ValueError(
            f"section: item {item.id} has sections 0 to {item.shape[axis] - 1}, found {section}"
        )
    spans = list(whole_box(item.shape))
    spans[axis] = (section, section + 1)
    box: Box = (spans[0], spans[1], spans[2])
    flat = [n for a, n in enumerate(item.shape) if a != axis]
    step = max(1, -(-max(flat) // pixels))
    grey = _shrink(normalize(_cut(item.open_image(), box, axis), _window(item)), step)
    picture = np.repeat(grey[..., None], 3, axis=2)
    if layer != IMAGE:
        colors, where = _colors(item, layer, box, axis, step, objects)
        picture = overlay(picture, colors, where)
    file = io.BytesIO()
    rows = np.rint(picture.transpose(1, 0, 2) * 255).astype(np.uint8)
    Image.fromarray(rows).save(file, "PNG")
    return file.getvalue()


def _cut(volume: Any, box: Box, axis: int) -> NDArray[Any]:
    """The plane that a box one voxel thick holds."""
    return np.asarray(volume[tuple(slice(*span) for span in box)]).squeeze(axis)


def _shrink(plane: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means of step x step pixels; those left over at the edges are left out."""
    if step == 1:
        return plane
    width, height = (n // step for n in plane.shape)
    blocks = plane[: width * step, : height * step].reshape(width, step, height, step)
    return np.asarray(blocks.mean((1, 3)), np.float32)


def _colors(
    item: StudyItem, layer: str, box: Box, axis: int, step: int, objects: ObjectStore
) -> tuple[Rgb, NDArray[np.bool_]]:
    """Colours of a layer on a plane, and where it says something."""
    readers: dict[str, Callable[[], NDArray[Any]]] = {
        "classes": lambda: item.read_class_sets(box, shown=True),
        "objects": lambda: item.read_instances(box, shown=True),
        "found objects": lambda: from_disk_ids(item.read_label(TAGS[layer], box)),
        "uncertainty": lambda: item.read_label(TAGS[layer], box),
        CURRENT: lambda: objects.open(item.id, item.shape)[0].read(box),
    }
    plane = readers[layer]().squeeze(axis)
    width, height = (n // step for n in plane.shape)
    plane = plane[step // 2 :: step, step // 2 :: step][:width, :height]
    if layer == "classes":
        hierarchy = item.study.hierarchy
        return set_colors(plane, hierarchy), plane != hierarchy.unknown
    if layer == "uncertainty":
        at = plane.astype(np.float32) / 100 * (len(HOT) - 1)
        return _between(at), np.ones(plane.shape, bool)
    return id_colors(plane), plane > 0


def _between(at: NDArray[np.float32]) -> Rgb:
    """Colours of HOT at positions 0 .. len(HOT) - 1."""
    steps = np.arange(len(HOT))
    return np.stack([np.interp(at, steps, HOT[:, c]) for c in range(3)], -1).astype(np.float32)


def _window(item: StudyItem) -> tuple[float, float]:
    """The item's contrast, computed once for each state of its file."""
    return _window_of(_Key(item))


class _Key:
    """An item as a key: equal while its image file is."""

    def __init__(self, item: StudyItem) -> None:
        state = item.image_path.stat()
        self.item = item
        self.key = (str(item.image_path), state.st_ino, state.st_mtime_ns)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.key == other.key


@lru_cache(maxsize=4096)
def _window_of(key: _Key) -> tuple[float, float]:
    return intensity_window(key.item.open_image())
