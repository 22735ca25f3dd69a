"""What the network answers to points: how strongly pieces belong to the clicked object.

Asked in the windows of the points, at a few voxels of each piece; elsewhere it has no say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lib.clicks.ground import Ids
from lib.clicks.judge import ClickJudge
from lib.clicks.points import Points, inside, without
from lib.clicks.source import Clicks, ClickSource
from lib.clicks.windows import click_windows
from lib.networks.model import NeuropilNet
from lib.prediction.feature_cache import WindowFeatures
from lib.prompts.points import PointPrompts
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, intersect, minus, shift_box

ASKED = 32
"""Voxels of a piece that are asked, at most."""
SUREST = 4.0
"""Most that a voxel's logit counts for."""
WEIGHT = 0.1
"""Of the network's answer, against a contact's (benchmarks/proofreading.md)."""
STAND_INS = 2
"""Negative points that the mask head is given at least: it learns from 0 to 5, and judges best
from a few (benchmarks/proofreading.md)."""
LATTICE = (5, 5, 3)
"""Voxels of a window, along each axis, among which stand-ins are looked for."""


@dataclass(frozen=True)
class WindowPoints:
    """Points inside one window, relative to its first voxel.

    Args:
        positive: (P, 3) int64, at least one.
        negative: (N, 3) int64.
        class_id: fine class the clicked object is said to have, -1 none.
        instance: whether the object is one instance (else a class).
    """

    positive: Points
    negative: Points
    class_id: int = -1
    instance: bool = True

    def prompts(self, voxel_size_nm: tuple[float, float, float], dims: int) -> PointPrompts:
        """As the network takes them."""
        return PointPrompts.from_clicks(
            self.positive[:, :dims].tolist(),
            self.negative[:, :dims].tolist(),
            self.class_id,
            self.instance,
            voxel_size_nm[:dims],
            dims,
        )


def prompted_costs(
    source: ClickSource, clicks: Clicks, positive: Points, negative: Points, ids: Ids, box: Box
) -> NDArray[np.float64]:
    """(P + 1,) what the answer is worth for or against each piece, as `cheapest` takes it.

    Args:
        source: of features.
        clicks: as the annotator set them.
        positive: (P, 3), negative: (N, 3) points inside the volume.
        ids: (x, y, z) pieces of the box.
        box: network voxels.
    """
    count = int(ids.max(initial=0)) + 1
    total, asked = np.zeros(count), np.zeros(count)
    for window in click_windows(positive.tolist(), source.window, source.shape):
        common = intersect(window, box)
        points = inside(positive, window)
        if common is None or not len(points):
            continue
        part = ids[box_slices(shift_box(common, minus(box_origin(box))))]
        voxels, owners = _samples(part)
        places = voxels + np.array(box_origin(common)) - np.array(box_origin(window))
        against = without(inside(negative, window), points)
        own = WindowPoints(points, against, clicks.class_id, clicks.instance)
        logits = judged(source.net, source.features(window), own, source.voxel_size_nm, places)
        np.add.at(total, owners, logits.clip(-SUREST, SUREST))
        np.add.at(asked, owners, 1.0)
    surface = np.bincount(ids.ravel(), minlength=count) ** (2 / 3)
    costs: NDArray[np.float64] = WEIGHT * surface * total / np.maximum(asked, 1.0)
    return costs


def judged(
    net: NeuropilNet,
    window: WindowFeatures,
    points: WindowPoints,
    voxel_size_nm: tuple[float, float, float],
    places: Points,
) -> NDArray[np.float32]:
    """(M,) logits of belonging to the clicked object.

    Args:
        net: in evaluation mode.
        window: its features.
        points: in it.
        voxel_size_nm: (x, y, z).
        places: (M, 3) voxels of the window.
    """
    device = window.features.device
    if net.mask_head is not None:
        points = with_stand_ins(window, points, 2 * net.delta_d)
    prompts = points.prompts(voxel_size_nm, net.spatial_dims).to(device)
    at = np.ravel_multi_index(tuple(places.T), box_shape(window.box))
    with torch.inference_mode():
        judge = ClickJudge(net, window, prompts)
        voxels = torch.from_numpy(at.astype(np.int64)).to(device)
        logits = judge(voxels, torch.from_numpy(places).to(device, torch.float32))
    values: NDArray[np.float32] = logits.cpu().numpy()
    return values


def with_stand_ins(window: WindowFeatures, points: WindowPoints, reach: float) -> WindowPoints:
    """Points, with negative ones added that no answer could contain.

    The mask head learns from several negative points anywhere outside the object and judges a
    voxel beside them; a first click comes without any. Voxels of a fixed lattice that are
    farther than `reach` in embedding from every positive point take their place.

    Args:
        window: features and embedding.
        points: of the annotator.
        reach: embedding distance beyond which no voxel is a candidate.
    """
    missing = STAND_INS - len(points.negative)
    if missing <= 0:
        return points
    shape = box_shape(window.box)
    marks = [
        np.unique(np.linspace(0.1 * n, 0.9 * n, k).astype(np.int64).clip(0, n - 1))
        for n, k in zip(shape, LATTICE, strict=True)
    ]
    places = np.stack(np.meshgrid(*marks, indexing="ij"), -1).reshape(-1, 3)
    at, own = (
        window.embedding[torch.from_numpy(np.ravel_multi_index(tuple(p.T), shape))].float()
        for p in (places, points.positive)
    )
    far = np.flatnonzero((torch.cdist(at, own).amin(1) > reach).cpu().numpy())
    if not len(far):
        return points
    chosen = np.unique(np.linspace(0, len(far) - 1, missing).astype(np.int64))
    negative = np.concatenate((points.negative, places[far[chosen]]))
    return WindowPoints(points.positive, negative, points.class_id, points.instance)


def _samples(ids: Ids) -> tuple[Points, NDArray[np.int64]]:
    """A few voxels (M, 3) of each piece, evenly drawn, and whose they are (M,)."""
    flat = np.flatnonzero(ids)
    owners = ids.ravel()[flat].astype(np.int64)
    order = np.argsort(owners, kind="stable")
    flat, owners = flat[order], owners[order]
    first = np.searchsorted(owners, owners)
    counts = np.bincount(owners)[owners] if len(owners) else owners
    rank = np.arange(len(owners)) - first
    # the ranks k * count / ASKED, rounded up: ASKED of each piece, or all
    step = np.maximum(counts / ASKED, 1.0)
    chosen = np.floor(rank / step) != np.floor((rank - 1) / step)
    voxels = np.stack(np.unravel_index(flat[chosen], ids.shape), 1).astype(np.int64)
    return voxels, owners[chosen]
