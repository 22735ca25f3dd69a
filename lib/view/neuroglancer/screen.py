"""The region that a key is about: the box that was drawn last, or what is on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lib.view.neuroglancer.layers import SCREEN
from lib.view.neuroglancer.places import around, drawn_in, screen_extent, voxel_of
from lib.view.neuroglancer.scene import Scene
from lib.volumes.boxes import Box, intersect, whole_box
from lib.volumes.frames import viewer_frame

OWN = "0"
"""Id of the box that shows what the last key was about."""


@dataclass
class Screen:
    """The region of one viewer.

    Args:
        scene: what is looked at.
        box: that the last key was about; None: nothing yet.
        drawn: whether a person drew it.
    """

    scene: Scene
    box: Box | None = None
    drawn: bool = False

    def take(self, state: Any, again: Box | None) -> Box:
        """The region as a state of the viewer has it.

        Args:
            state: of the viewer.
            again: a box that was asked about; it holds where it was drawn and nothing is since.

        Raises:
            ValueError: it lies beside the image, or is too large.
        """
        scene = self.scene
        layer = state.layers[SCREEN].layer if SCREEN in state.layers else None
        boxes = drawn_in(layer, [OWN]).boxes
        again = again if self.drawn else None
        self.drawn = bool(boxes) or again is not None
        wanted = boxes[-1] if boxes else again or self._seen(state)
        box = intersect(wanted, whole_box(scene.shape))
        if box is None:
            raise ValueError("the region lies beside the image")
        limit = [0, 0, 0]
        order = viewer_frame(scene.shape, scene.voxel_size_nm).order
        for axis, size in zip(order, scene.desk.settings.view.region, strict=True):
            limit[axis] = size
        if any(b - a > size for (a, b), size in zip(box, limit, strict=True)):
            raise ValueError(
                f"the region has {' x '.join(str(b - a) for a, b in box)} voxels; expected at "
                f"most {' x '.join(map(str, limit))} (view.region)"
            )
        self.box = box
        return box

    def _seen(self, state: Any) -> Box:
        scene, size = self.scene, self.scene.voxel_size_nm
        middle = voxel_of(state.position, state.dimensions, size)
        if middle is None:
            raise ValueError("the middle of the screen is beside the image")
        frame = viewer_frame(scene.shape, size)
        most = scene.desk.settings.view.region
        extent = screen_extent(state.cross_section_scale, size, most, frame)
        return around(middle, extent, scene.shape)
