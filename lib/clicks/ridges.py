"""How dear a step through a voxel is: where a fragment itself holds two objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib.clicks.points import Points
from lib.clicks.source import ClickSource
from lib.clicks.windows import click_windows
from lib.prediction.affinities import embedding_affinities
from lib.prediction.boundary import pair_slices
from lib.prediction.feature_cache import WindowFeatures
from lib.targets.pairs import NEAREST, Offset
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, intersect, minus, shift_box

RIDGE = 50.0
"""How much a boundary adds to the cost of a step through it."""


def ridges(source: ClickSource, box: Box, points: Points) -> NDArray[np.float32]:
    """(x, y, z) what a step through each voxel of a box costs: 1, more across boundaries.

    Args:
        source: of features.
        box: network voxels.
        points: (P, 3) whose windows are looked at; elsewhere no boundary is seen.
    """
    steps = np.ones(box_shape(box), np.float32)
    margin = source.inference.affinity_margin
    for window in click_windows(points.tolist(), source.window, source.shape):
        common = intersect(window, box)
        if common is not None:
            at = box_slices(shift_box(common, minus(box_origin(box))))
            boundary = boundary_in(source.features(window), common, margin)
            steps[at] = 1.0 + RIDGE * boundary**2
    return steps


def boundary_in(window: WindowFeatures, box: Box, margin: float) -> NDArray[np.float32]:
    """(x, y, z) in [0, 1] on a box inside a window: 1 where the embedding says objects end.

    Args:
        window: its features.
        box: network voxels.
        margin: embedding distance of neighbours that is half a boundary.
    """
    shape = (*box_shape(window.box), window.embedding.shape[1])
    part = box_slices(shift_box(box, minus(box_origin(window.box))))
    with torch.inference_mode():
        embedding = window.embedding.view(shape)[part].movedim(-1, 0)[None].float()
        affinities = embedding_affinities(embedding, NEAREST, margin)[0]
    return boundary_of(affinities.cpu().numpy(), NEAREST)


def boundary_of(
    affinities: NDArray[np.floating[Any]], offsets: Sequence[Offset]
) -> NDArray[np.float32]:
    """Where the nearest affinities (A, X, Y, Z) say that objects end.

    Returns:
        (X, Y, Z) float32 in [0, 1]: (1 - lowest affinity to any of the six neighbours) / 2.
    """
    lowest = np.ones(affinities.shape[1:], np.float32)
    for channel, offset in zip(affinities, offsets, strict=True):
        if offset in NEAREST:
            here, there = pair_slices(offset, lowest.shape)
            pair = channel[here].astype(np.float32)
            lowest[here] = np.minimum(lowest[here], pair)
            lowest[there] = np.minimum(lowest[there], pair)
    boundary: NDArray[np.float32] = (1.0 - lowest) / 2.0
    return boundary
