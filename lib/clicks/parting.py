"""Where objects fall apart between points of both signs, and where a fragment does.

The pieces of an object go to the point that they hang together with best: contacts are followed
from the firmest on, and none joins what holds to a point for the object with what holds to one
against it. (A cheapest cut likes small sides, and left of a good object the fragment that was
clicked on.)
"""

from __future__ import annotations

import numpy as np
from bioimage_cpp.graph import UndirectedGraph, edge_weighted_watershed
from numpy.typing import NDArray

from lib.clicks.cheapest import Pieces
from lib.clicks.masks import Mask, bounds, separate
from lib.clicks.points import Points, inside
from lib.clicks.ridges import ridges
from lib.clicks.scale import ball, depth_at
from lib.clicks.source import ClickSource
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, shift_box

AROUND = 3.0
"""How far a point against a fragment is heard, in its distance to the fragment's end."""
LEAST = 2.0
"""The same in voxels of the finest axis, at least, before `AROUND` multiplies it."""


def parted(
    pieces: Pieces, positive: NDArray[np.int64], negative: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """(P + 1,) which point each piece holds to: 1 for the object, 2.. for those against it.

    Args:
        pieces: of the objects that hold points.
        positive, negative: pieces that hold such points, none in both.

    Source: Meyer & Beucher 1990 (watershed from markers), on a graph.
    """
    count = len(pieces.objects)
    graph = UndirectedGraph.from_unique_edges(count, pieces.edges.astype(np.uint64))
    seeds = np.zeros(count, np.uint64)
    seeds[positive] = 1
    seeds[negative] = 2 + np.arange(len(negative))  # they need not be of one object
    found: NDArray[np.uint64] = np.asarray(edge_weighted_watershed(graph, -pieces.logits, seeds))
    return found


def around_points(
    source: ClickSource, box: Box, piece: Mask, positive: Points, negative: Points
) -> Mask:
    """(x, y, z) what of a piece belongs to the points against the object.

    It ends where points for the object are nearer, at boundaries that the network sees, and a few
    depths from the points.

    Args:
        source: of features.
        box: network voxels of the masks.
        piece: what is cut.
        positive, negative: points in the piece, relative to the box.
    """
    gone = np.zeros(piece.shape, np.bool_)
    for point in negative:
        depth = max(depth_at(piece, point, source.voxel_size_nm).own, LEAST)
        near = ball(box_shape(box), point, AROUND * depth, source.voxel_size_nm)
        part = _around_ball(near)
        here, heard = piece[box_slices(part)], near[box_slices(part)]
        own = np.concatenate((inside(positive, part), np.argwhere(here & ~heard)))
        lost = here.copy()
        if len(own):
            whole = shift_box(part, box_origin(box))
            looked = np.concatenate((point[None], positive)) + np.array(box_origin(box))
            against = inside(point[None], part)
            lost &= ~separate(here, ridges(source, whole, looked), own, against)
        gone[box_slices(part)] |= lost
    return gone


def _around_ball(near: Mask) -> Box:
    """The box of a ball, one voxel larger: what lies beyond the ball is in it."""
    x, y, z = (
        (max(span.start - 1, 0), min(span.stop + 1, length))
        for span, length in zip(bounds(near), near.shape, strict=True)
    )
    return x, y, z
