"""How strongly each voxel of one window belongs to the clicked object.

Features come from the cache; a click costs the heads on the blocks that the object reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib.clicks.flood import flood
from lib.clicks.judge import ClickJudge
from lib.networks.model import NeuropilNet
from lib.prediction.affinities import embedding_affinities
from lib.prediction.boundary import pair_slices
from lib.prediction.feature_cache import WindowFeatures
from lib.prediction.features import Precision, use_bfloat16
from lib.prompts.points import PointPrompts
from lib.targets.pairs import NEAREST, Offset
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, minus, shift_box

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

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    class_id: int
    instance: bool

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


def compute_features(
    net: NeuropilNet, box: Box, patch: NDArray[np.float32], precision: Precision
) -> WindowFeatures:
    """The backbone on one window, in half precision for the cache.

    Args:
        net: in evaluation mode.
        box: the window.
        patch: (x, y, z) normalised image of it.
        precision: of the computation.
    """
    device = next(net.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(patch)).to(device)[None, None]
    if net.spatial_dims == 2:
        assert patch.shape[2] == 1, "a two-dimensional network sees one section at a time"
        image = image.squeeze(-1)
    half = use_bfloat16(precision, device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        volume = net.features(image)[0]
    with torch.inference_mode():
        # The heads of the automatic mode read features in this type as well.
        kept = torch.bfloat16 if half else torch.float16
        features = volume.movedim(0, -1).reshape(-1, volume.shape[0]).to(kept)
        embedding = [
            net.task_heads.rows(part.float(), ("instance",))["instance"].half()
            for part in torch.split(features, 1 << 16)
        ]
        return WindowFeatures(box, features, torch.cat(embedding))


def window_logits(
    net: NeuropilNet,
    window: WindowFeatures,
    points: WindowPoints,
    voxel_size_nm: tuple[float, float, float],
    also: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """(x, y, z) logit of belonging to the clicked object, as far as it reaches in one window.

    Args:
        net: in evaluation mode.
        window: its features.
        points: in it.
        voxel_size_nm: (x, y, z).
        also: (x, y, z) voxels to judge wherever the object ends.

    Returns:
        UNREACHED where nothing needed to be judged (lib/clicks/flood.py).
    """
    device = window.features.device
    if net.mask_head is not None:
        points = with_stand_ins(window, points, 2 * net.delta_d)
    prompts = points.prompts(voxel_size_nm, net.spatial_dims).to(device)
    with torch.inference_mode():
        judge = ClickJudge(net, window, prompts)
        logits = flood(box_shape(window.box), points.positive, judge, device, also)
    values: NDArray[np.float32] = logits.cpu().numpy()
    return values


def groups_at(
    net: NeuropilNet, window: WindowFeatures, voxels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(N,) most probable group of classes of some voxels, as the automatic mode says.

    The fine class, where there are no groups.

    Args:
        net: in evaluation mode.
        window: its features.
        voxels: (N,) flat.
    """
    with torch.inference_mode():
        rows = window.features[torch.from_numpy(voxels).to(window.features.device)].float()
        head = "coarse" if "coarse" in net.task_heads.layers else "semantic"
        found = net.task_heads.rows(rows, (head,))[head].argmax(1)
    values: NDArray[np.int64] = found.cpu().numpy()
    return values


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
