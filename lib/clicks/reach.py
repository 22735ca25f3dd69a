"""As far as the clicked objects go: the box that an answer looks at, and what stands in it."""

from __future__ import annotations

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.clicks.ground import Ground, Ids, kept_ground, seen_ground
from lib.clicks.masks import Mask
from lib.clicks.points import Points
from lib.clicks.source import ClickSource
from lib.clicks.windows import click_windows, growth_limit, may_grow, neighbours, touches
from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    box_slices,
    hull,
    minus,
    shift_box,
)
from lib.volumes.contrast import LazyImage
from lib.volumes.disk_ids import UNKNOWN_ID

MOST_WINDOWS = 12
"""Windows that one answer may look at beyond those of the points: an answer that leaks along
a whole volume shall still come soon."""


class Reach:
    """A box around some points that follows the objects in it.

    Objects that stand, or whose fragments are kept, are followed without the network; others
    from window to window.

    Args:
        source: of features.
        points: (P, 3) positive points inside the image, at least one.
        negative: (N, 3) negative points inside the image.
        section: only this section is looked at.

    `stands` says whether the first point lies on an object that people have seen.
    """

    def __init__(
        self, source: ClickSource, points: Points, negative: Points, section: int | None = None
    ) -> None:
        self.source, self.section = source, section
        self.windows = click_windows(points.tolist(), source.window, source.shape)
        self.limited: bool = False
        first = growth_limit(self.windows[0], source.inference.click_window_limit, source.shape)
        self._limit = hull([first, *self.windows])
        self._most = len(self.windows) + MOST_WINDOWS
        self._kept = kept_ground(source)
        self.box = self._flat(hull(self.windows))
        self.stands = self._object_at(points[0])
        if self.stands:  # a cut looks where the points are
            spots = np.concatenate((points, negative)).tolist()
            self.windows = click_windows(spots, source.window, source.shape)
        self.looked_at = 0

    @property
    def ground(self) -> Ground:
        """Fragments of the box, or of a part of it or of more."""
        if self._kept is not None:
            return self._kept
        self.looked_at = len(self.windows)
        return seen_ground(self.source, self.windows)

    def standing(self) -> Ids:
        """The objects of the box, numbered from 1 on, 0 none.

        Those of the study, and where it has none those that the fragments say.
        """
        standing = np.zeros(box_shape(self.box), np.uint32)
        if self.source.objects is not None:
            ids = read_ids(self.source.objects, self.box)
            standing = fastremap.renumber(ids, in_place=False)[0].astype(np.uint32)
        if self.stands:
            return standing
        ground = self.ground
        cells = ground.cells[ground.read(self.box)].astype(np.uint32)
        bare = (standing == 0) & (cells > 0)
        standing[bare] = int(standing.max()) + cells[bare]
        return standing

    def follow(self, mask: Mask) -> bool:
        """Widen the box where a mask on it goes on beyond; False where it is wide enough."""
        before = self.box, len(self.windows)
        if self.stands or self._kept is not None:
            self.box = self._widened(mask)
        else:
            self._add_windows(mask)
            self.box = self._flat(hull(self.windows))
        return (self.box, len(self.windows)) != before

    def _object_at(self, point: Points) -> bool:
        if self.source.objects is None:
            return False
        x, y, z = (int(v) for v in point)
        return bool(read_ids(self.source.objects, ((x, x + 1), (y, y + 1), (z, z + 1))).any())

    def _flat(self, box: Box) -> Box:
        at = self.section
        return box if at is None else (box[0], box[1], (at, at + 1))

    def _widened(self, mask: Mask) -> Box:
        """The box, half as long again beyond every face that the mask reaches."""
        spans = []
        for axis, (low, high) in enumerate(self.box):
            first, last = self._limit[axis]
            more = max(1, (high - low) // 2)
            deep = axis < 2 or self.section is None
            if deep and mask.take(0, axis).any():
                self.limited |= low == first > 0
                low = max(first, low - more)
            if deep and mask.take(-1, axis).any():
                self.limited |= high == last < self.source.shape[axis]
                high = min(last, high + more)
            spans.append((low, high))
        return spans[0], spans[1], spans[2]

    def _add_windows(self, mask: Mask) -> None:
        low, shape = minus(box_origin(self.box)), self.source.shape
        # A network of two axes sees sections one by one: nothing leads to the next.
        flat = self.section is not None or self.source.net.spatial_dims == 2
        for box in list(self.windows):
            part = mask[box_slices(shift_box(self._flat(box), low))]
            for axis, side, following in neighbours(box, shape):
                if (flat and axis == 2) or following in self.windows:
                    continue
                if not touches(part, axis, side):
                    continue
                if may_grow(following, self._limit) and len(self.windows) < self._most:
                    self.windows.append(following)
                else:
                    self.limited = True


def read_ids(labels: LazyImage, box: Box) -> NDArray[np.uint32]:
    """Ids of a box; unknown counts as none."""
    ids = np.array(labels[box_slices(box)], np.uint32, order="C")
    assert ids.shape == box_shape(box)
    ids[ids == UNKNOWN_ID] = 0
    return ids
