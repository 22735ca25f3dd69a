"""Clicks on what lies inside cells: a mitochondrion is found by its class, not by the graph.

Which of the two clicks mean, the organelle or the cell around it, the annotator says (`Kind`).
Where the points are to say it ("auto"), one point beyond organelles is enough for the cell, and so
are points on two organelles that lie apart, so that a further click never shrinks a cell to an
organelle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import edt
import numpy as np

from lib.clicks.masks import CONNECTIVITY, Mask, parts_holding, place_in, separate
from lib.clicks.points import Points, inside
from lib.clicks.reach import read_ids
from lib.clicks.scale import BEYOND, ball, depth_at
from lib.clicks.source import Clicks, ClickSource
from lib.clicks.windows import click_windows, growth_limit, may_grow, neighbours, touches
from lib.prediction.classes import FINE_VALUE
from lib.volumes.boxes import Box, box_origin, box_shape, hull

MOST_WINDOWS = 4
"""Windows beyond those of the points into which an organelle is followed."""
MOSTLY = 0.5
"""Share of an organelle that lies in the cells clicked on."""
NEAR = 0.75
"""A point no farther from an organelle than this share of its depth speaks of its border."""


@dataclass(frozen=True)
class Organelle:
    """What lies inside a cell, and is meant.

    Args:
        mask: bool on `box`.
        box: network voxels.
        windows: that were looked at.
        fine: its class, where the first point on it lies.
    """

    mask: Mask
    box: Box
    windows: int
    fine: int


def organelle_of(
    source: ClickSource, clicks: Clicks, positive: Points, negative: Points, section: int | None
) -> Organelle | None:
    """The organelle that points mean.

    Args:
        source: of features.
        clicks: as the annotator set them.
        positive: (P, 3), negative: (N, 3) points inside the image.
        section: only this section is looked at.

    Returns:
        None where the cell is meant or no point lies on an organelle. Where the points say which
        is meant, also where the first one lies on no organelle, a further one where the network
        sees neither an organelle nor the border of one, two points lie on different ones, or what
        the network sees is no organelle, since it spreads over the cells around.
    """
    if clicks.kind == "cell" or not any(c.inside for c in source.hierarchy.classes):
        return None
    named = clicks.kind == "organelle"
    found = [_organelle_at(source, point) for point in positive]
    on_it = np.array([fine is not None for fine in found])
    if not on_it.any() or not (named or on_it[0]):
        return None
    fine = next(f for f in found if f is not None)
    box, mask, count = _followed(source, positive[on_it], section)
    size = source.voxel_size_nm
    mask = _between(mask, inside(positive[on_it], box), inside(negative, box), size)
    near = _touching(mask, inside(positive[~on_it], box), size)
    one = on_it.sum() + len(near) == len(positive) and not _lie_apart(mask, size)
    if not (named or (one and _lies_in_cells(source, mask, box, positive[on_it]))):
        return None
    for point, distance in near:
        mask |= ball(box_shape(box), point.tolist(), distance + BEYOND, size)
    return Organelle(mask, box, count, fine)


def _followed(source: ClickSource, points: Points, section: int | None) -> tuple[Box, Mask, int]:
    """The organelles at some points, from window to window."""
    windows = click_windows(points.tolist(), source.window, source.shape)
    limit = growth_limit(windows[0], source.inference.click_window_limit, source.shape)
    most = len(windows) + MOST_WINDOWS
    flat = section is not None or source.net.spatial_dims == 2
    while True:
        box, mask = _seen(source, windows, section)
        mask = parts_holding(mask, inside(points, box))
        more = [
            following
            for window in windows
            for axis, side, following in neighbours(window, source.shape)
            if not (flat and axis == 2)
            and following not in windows
            and may_grow(following, limit)
            and touches(mask[place_in(_flat(window, section), box)], axis, side)
        ]
        if not more or len(windows) >= most:
            return box, mask, len(windows)
        windows = [*windows, *dict.fromkeys(more)][:most]


def _between(mask: Mask, own: Points, against: Points, voxel_size_nm: Sequence[float]) -> Mask:
    """A mask cut between points of both signs; those at its border take off a ball each."""
    central = []
    out, (x, y, z) = mask.copy(), mask.shape
    for point in against[mask[tuple(against.T)]]:
        depth = depth_at(mask, point, voxel_size_nm)
        if depth.middle:
            central.append(point)
        else:
            out &= ~ball((x, y, z), point, depth.own + BEYOND, voxel_size_nm)
    own = own[mask[tuple(own.T)]]
    if central and len(own):
        out &= separate(mask, np.ones(mask.shape, np.float32), own, np.array(central))
    out[tuple(own.T)] = True
    return parts_holding(out, own)


def _lies_in_cells(source: ClickSource, mask: Mask, box: Box, points: Points) -> bool:
    """Whether most of a mask lies in the objects that stand at some points; yes where none do."""
    if source.objects is None:
        return True
    ids = read_ids(source.objects, box)
    cells = np.setdiff1d(ids[tuple(inside(points, box).T)], 0)
    return not len(cells) or bool(np.isin(ids[mask], cells).mean() >= MOSTLY)


def _lie_apart(mask: Mask, voxel_size_nm: Sequence[float]) -> bool:
    """Whether a mask has parts farther from the first than its depth goes: not one broken body."""
    parts, count = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=CONNECTIVITY, return_N=True
    )
    if count < 2:
        return False
    spacing = tuple(v / min(voxel_size_nm) for v in voxel_size_nm)
    depth = edt.edt(np.ascontiguousarray(mask), anisotropy=spacing).max()
    away = edt.edt(np.ascontiguousarray(parts != 1), anisotropy=spacing)
    return any(away[parts == i].min() > NEAR * depth + BEYOND for i in range(2, count + 1))


def _touching(
    mask: Mask, points: Points, voxel_size_nm: Sequence[float]
) -> list[tuple[Points, float]]:
    """The points that lie near a mask as its own depth goes, each with its distance to it.

    Distances are in voxels of the finest axis.
    """
    if not len(points) or not mask.any():
        return []
    spacing = tuple(v / min(voxel_size_nm) for v in voxel_size_nm)
    depth = edt.edt(np.ascontiguousarray(mask), anisotropy=spacing).max()
    away = edt.edt(np.ascontiguousarray(~mask), anisotropy=spacing)
    found = [(point, float(away[tuple(point)])) for point in points]
    return [(point, distance) for point, distance in found if distance <= NEAR * depth]


def _organelle_at(source: ClickSource, point: Points) -> int | None:
    """The class of the organelle that a point lies on."""
    window = click_windows([point.tolist()], source.window, source.shape)[0]
    at = tuple(point - np.array(box_origin(window)))
    value = int(source.classes(window)[at]) - FINE_VALUE
    return value if value >= 0 and source.hierarchy.classes[value].inside else None


def _seen(source: ClickSource, windows: list[Box], section: int | None) -> tuple[Box, Mask]:
    """Where some windows hold organelles, on their hull."""
    box = _flat(hull(windows), section)
    mask = np.zeros(tuple(b - a for a, b in box), np.bool_)
    inner = np.zeros(source.hierarchy.num_classes + FINE_VALUE, np.bool_)
    inner[[i + FINE_VALUE for i, c in enumerate(source.hierarchy.classes) if c.inside]] = True
    for window in windows:
        part = _flat(window, section)
        mask[place_in(part, box)] |= inner[source.classes(window)[place_in(part, window)]]
    return box, mask


def _flat(box: Box, section: int | None) -> Box:
    return box if section is None else (box[0], box[1], (section, section + 1))
