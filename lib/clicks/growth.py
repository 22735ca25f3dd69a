"""From window to window: logits of the clicked object as far as it reaches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib.clicks.evidence import WindowPoints, boundary_in, groups_at, window_logits
from lib.clicks.flood import UNREACHED
from lib.clicks.fragments import Claims, disputed_voxels
from lib.clicks.masks import Mask, Points, clicked_object, contradictions, interior_points
from lib.clicks.source import Clicks, ClickSource
from lib.clicks.windows import (
    centrality,
    click_windows,
    growth_limit,
    may_grow,
    neighbours,
    touches,
)
from lib.volumes.boxes import (
    Box,
    box_origin,
    box_shape,
    box_slices,
    hull,
    intersect,
    minus,
    shift_box,
)

CARRIED_POINTS = 4
"""Voxels of the object that stand for it in the next window it grows into."""
MOST_WINDOWS = 12
"""Windows that one answer may look at beyond those of the points: an answer that leaks along
a whole volume shall still come soon."""


@dataclass
class Canvas:
    """Logits of several windows, blended where they overlap.

    Args:
        source: what they come from.
        logits: of each window; a window has no say where it is UNREACHED.
        objects: the clicked object of each window and the number of its parts.
    """

    source: ClickSource
    logits: dict[Box, NDArray[np.float32]] = field(default_factory=dict)
    objects: dict[Box, tuple[Mask, int]] = field(default_factory=dict)

    def box(self, also: Sequence[Box] = ()) -> Box:
        return hull([*self.logits, *also])

    def groups(self, places: Points) -> NDArray[np.int64]:
        """The most probable group of classes at network voxels (N, 3); -1 unseen."""
        found = np.full(len(places), -1, np.int64)
        for box in self.logits:
            low, high = np.array(box).T
            inside = ((places >= low) & (places < high)).all(1)
            if inside.any():
                at = np.ravel_multi_index(tuple((places[inside] - low).T), box_shape(box))
                found[inside] = groups_at(self.source.net, self.source.features(box), at)
        return found

    def boundary(self, whole: Box) -> NDArray[np.float32]:
        """Where objects end on a box, as far as windows see it; 0 elsewhere."""
        found = np.zeros(box_shape(whole), np.float32)
        margin = self.source.inference.affinity_margin
        for box in self.logits:
            common = intersect(box, whole)
            if common is not None:
                at = box_slices(shift_box(common, minus(box_origin(whole))))
                found[at] = boundary_in(self.source.features(box), common, margin)
        return found

    def blended(self, whole: Box) -> NDArray[np.float32]:
        if len(self.logits) == 1 and whole in self.logits:
            return self.logits[whole]
        total = np.zeros(box_shape(whole), np.float32)
        weight = np.full(box_shape(whole), 1e-6, np.float32)
        origin = box_origin(whole)
        for box, logits in self.logits.items():
            seen = logits > UNREACHED
            share = centrality(box, self.source.shape) * seen
            logits = np.where(seen, logits, 0.0)
            at = box_slices(shift_box(box, (-origin[0], -origin[1], -origin[2])))
            total[at] += share * logits
            weight[at] += share
        total[weight < 1e-3] = -1.0  # no window saw it
        return np.divide(total, weight, out=total)


def grow(
    source: ClickSource,
    clicks: Clicks,
    positive: Points,
    negative: Points,
    section: int | None,
    claims: Claims | None,
) -> tuple[Canvas, bool]:
    """Windows around the points, then outward while the object reaches their faces.

    Of each window are judged the voxels that the object reaches, and those of automatic objects
    that hold points of both signs.

    Args:
        source: of features.
        clicks: as the annotator set them.
        positive: (P, 3), negative: (N, 3) those inside the volume.
        section: answer in this section only.
        claims: of the points on the automatic objects, where these are known.

    Returns:
        Logits of all windows, and whether the limit cut the object.
    """
    canvas = Canvas(source)
    seeds = click_windows(positive.tolist(), source.window, source.shape)
    limit = growth_limit(seeds[0], source.inference.click_window_limit, source.shape)
    none = np.zeros((0, 3), np.int64)
    queue: deque[tuple[Box, Points]] = deque((box, none) for box in seeds)
    limited = False
    most = len(seeds) + MOST_WINDOWS
    while queue:
        box, carried = queue.popleft()
        if box in canvas.logits:
            continue
        if len(canvas.logits) == most:
            return canvas, True
        points = _window_points(clicks, positive, negative, carried, box)
        disputed = None if claims is None else disputed_voxels(claims, box)
        features = source.features(box)
        logits = window_logits(source.net, features, points, source.voxel_size_nm, disputed)
        canvas.logits[box] = logits
        seen = in_section(logits, box, section)
        mask, parts = clicked_object(seen, points.positive, points.negative)
        canvas.objects[box] = mask, parts
        for axis, side, following in neighbours(box, source.shape):
            # A network of two axes sees sections one by one: nothing leads to the next.
            within = section is not None or source.net.spatial_dims == 2
            if (within and axis == 2) or not touches(mask, axis, side):
                continue
            if not may_grow(following, limit):
                limited = True
                continue
            common = intersect(box, following)
            assert common is not None
            part = box_slices(shift_box(common, minus(box_origin(box))))
            across = interior_points(mask[part], logits[part], CARRIED_POINTS)
            if len(across):
                queue.append((following, across + np.array(box_origin(common))))
    return canvas, limited


def _window_points(
    clicks: Clicks, positive: Points, negative: Points, carried: Points, box: Box
) -> WindowPoints:
    low, high = np.array(box).T

    def inside(points: Points) -> Points:
        local: Points = points[((points >= low) & (points < high)).all(1)] - low
        return local

    mine = np.concatenate((inside(positive), inside(carried)))
    against, _ = contradictions(mine, inside(negative))
    return WindowPoints(mine, against, clicks.class_id, clicks.instance)


def in_section(logits: NDArray[np.float32], box: Box, section: int | None) -> NDArray[np.float32]:
    if section is None:
        return logits
    only = np.full_like(logits, -1.0)
    at = section - box[2][0]
    if 0 <= at < logits.shape[2]:
        only[:, :, at] = logits[:, :, at]
    return only
