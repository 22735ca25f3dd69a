"""Clicks that name classes -> the class map of the whole image, updated everywhere.

Four things change the automatic map, in this order:

- the prompts' residual: one background vector for the whole image, corrections at the points;
- likeness: voxels whose shared features are like those of a point that was misjudged move
  towards the point's class, wherever they are;
- the clicked objects: what the automatic mode called the same class in the same object as a
  misjudged point gets the point's class;
- the points themselves.

Everywhere else the map is the automatic one, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.clicks.answer import segment_clicked
from lib.clicks.class_residuals import ClassResiduals
from lib.clicks.judge import prompted_rows
from lib.clicks.points import Points, clean_points
from lib.clicks.source import Clicks, ClickSource
from lib.clicks.windows import window_at
from lib.labels.hierarchy import LabelHierarchy
from lib.prediction.classes import FINE_VALUE, Progress, predict_classes
from lib.prediction.feature_cache import ClassMap, WindowKey
from lib.prediction.features import Shelf
from lib.prediction.window_grid import window_grid
from lib.prompts.encoder import flat_index
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, whole_box

OVERLAP = 0.125
MARGIN = 2.0
"""By how much the clicked class should lead at a point, in logits."""
LIKENESS = 0.1
"""Squared width of the likeness kernel, as a share of the features' variance."""
CACHE_SHARE = 0.75
"""Of the cache's budget that one image's features may take."""


@dataclass(frozen=True)
class ClassAnswer:
    """A class map.

    Args:
        classes: (X, Y, Z) uint8, fine class + 1, network frame.
        warnings: for the annotator, sentences.
    """

    classes: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Lessons:
    """What the misjudged points teach about voxels like them.

    Args:
        hidden: (P, H) shared features at the points.
        lift: (P,) logits to add to the point's class.
        class_ids: (P,) int64.
        width: squared kernel width.
    """

    hidden: Tensor
    lift: Tensor
    class_ids: Tensor
    width: float

    def teach(self, hidden: Tensor, semantic: Tensor) -> Tensor:
        """(V, C) logits, moved by likeness of (V, H) features to the points'."""
        if not len(self.lift):
            return semantic
        apart = torch.cdist(hidden, self.hidden).square()
        lift = torch.exp(-apart / (2 * self.width)) * self.lift  # (V, P)
        moved = semantic.clone()
        for c in torch.unique(self.class_ids).tolist():
            moved[:, c] += lift[:, self.class_ids == c].amax(1)
        return moved


def segment_classes(
    source: ClickSource,
    clicks: Mapping[int, Sequence[Sequence[int]]],
    hierarchy: LabelHierarchy,
    progress: Progress | None = None,
) -> ClassAnswer:
    """The class map that the clicks ask for.

    Args:
        source: network, image and cache.
        clicks: fine class -> points on it, network voxels.
        hierarchy: of the network.
        progress: of the automatic map, the first time: (windows done, windows in all).

    Returns:
        The automatic map itself when there is no point inside the image.
    """
    points, class_ids, warnings = _points(clicks, source)
    result = _automatic(source, hierarchy, progress).copy()
    if not len(points):
        return ClassAnswer(result, tuple(warnings))
    with torch.inference_mode():
        residuals = ClassResiduals(source, points, class_ids)
        lessons, misjudged, was = _judge(source, points, class_ids, residuals)
        tiles, left_out = _tiles(source, points)
        for core, box in tiles:
            _update(source, result, core, box, residuals, lessons)
    if left_out:
        warnings.append(
            f"the image is larger than the cache: {left_out} windows far from the points keep "
            "their automatic classes (inference.cache_bytes)"
        )
    _paint_objects(source, hierarchy, result, points, class_ids, misjudged, was)
    result[tuple(points.T)] = class_ids + FINE_VALUE
    return ClassAnswer(result, tuple(warnings))


def _points(
    clicks: Mapping[int, Sequence[Sequence[int]]], source: ClickSource
) -> tuple[Points, NDArray[np.int64], list[str]]:
    """All points in order of class: (N, 3), their classes (N,), warnings."""
    chosen: dict[tuple[int, ...], int] = {}
    warnings: list[str] = []
    for class_id in sorted(clicks):
        rows, more = clean_points(clicks[class_id], source.shape, "class")
        warnings += [w for w in more if w not in warnings]
        for row in rows:
            before = chosen.setdefault(tuple(int(v) for v in row), class_id)
            if before != class_id:
                warnings.append(
                    f"voxel {tuple(int(v) for v in row)} was clicked for two classes; "
                    "the first of the label list was taken"
                )
    points = np.array(list(chosen), np.int64).reshape(-1, 3)
    return points, np.array(list(chosen.values()), np.int64), warnings


def _automatic(
    source: ClickSource, hierarchy: LabelHierarchy, progress: Progress | None
) -> NDArray[np.uint8]:
    """The automatic map, computed once for an image and these weights."""

    def compute() -> ClassMap:
        return ClassMap(
            predict_classes(
                source.net,
                source.image,
                source.voxel_size_nm,
                source.inference,
                hierarchy=hierarchy,
                level="fine",
                progress=progress,
                shelf=Shelf(source.cache, source.weights, source.image_key),
            )
        )

    kind = f"classes {source.heads}"
    key = WindowKey(source.weights, source.image_key, whole_box(source.shape), kind)
    return source.cache.get(key, compute).classes


def _judge(
    source: ClickSource,
    points: Points,
    class_ids: NDArray[np.int64],
    residuals: ClassResiduals,
) -> tuple[_Lessons, NDArray[np.bool_], NDArray[np.int64]]:
    """What the network says at the points.

    Returns:
        Lessons; (N,) which points were misjudged in the automatic mode; (N,) as which class.
    """
    hidden, prompted, plain, spread = [], [], [], []
    for point in points:
        box = window_at(point, source.window, source.shape)
        features = source.features(box).features
        local = torch.from_numpy(point - np.array(box_origin(box)))
        at = flat_index(local, box_shape(box)).view(1).to(features.device)
        residual = residuals.inside(box)
        seen = source.beside_rows(box)
        here = None if seen is None else seen[at]
        rows = prompted_rows(features, at, residual)
        out = source.net.task_heads.rows(rows, ("semantic",), here)
        hidden.append(out["hidden"])
        prompted.append(out["semantic"])
        alone = source.net.task_heads.rows(features[at].float(), ("semantic",), here)
        plain.append(alone["semantic"])
        some = features[:: max(1, len(features) // 4096)].float()
        sample = source.net.task_heads.rows(some + residual.background, ())["hidden"]
        spread.append(sample.var(0, correction=0).sum())
    logits = torch.cat(prompted)
    device = logits.device
    ids = torch.from_numpy(class_ids).to(device)
    own = logits.gather(1, ids.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, ids.unsqueeze(1), -math.inf).amax(1)
    lift = (others - own + MARGIN).clamp(min=0.0)
    width = max(LIKENESS * float(torch.stack(spread).mean()), 1e-6)
    was = torch.cat(plain).argmax(1).cpu().numpy()
    return _Lessons(torch.cat(hidden), lift, ids, width), was != class_ids, was


def _tiles(source: ClickSource, points: Points) -> tuple[list[tuple[Box, Box]], int]:
    """(core, window) pairs whose cores cover the image, nearest to the points first.

    Returns:
        As many as fit the cache, and how many do not.
    """
    grid = window_grid(source.shape, source.window, OVERLAP)
    pairs = [(core, window) for window, core in grid.cores()]

    def distance(pair: tuple[Box, Box]) -> float:
        middle = np.array([(a + b) / 2 for a, b in pair[0]])
        return float(np.abs(points - middle).max(1).min())

    pairs.sort(key=lambda pair: (distance(pair), pair))
    channels = source.net.feature_channels + source.net.embedding_size
    one = 2 * channels * math.prod(grid.window)
    most = max(1, int(source.cache.budget * CACHE_SHARE) // one)
    return pairs[:most], max(0, len(pairs) - most)


def _update(
    source: ClickSource,
    result: NDArray[np.uint8],
    core: Box,
    box: Box,
    residuals: ClassResiduals,
    lessons: _Lessons,
) -> None:
    """Write what the prompts change in one window's core."""
    features, seen = source.features(box).features, source.beside_rows(box)
    inside = residuals.inside(box)
    index = torch.arange(len(features), device=features.device)
    before, after = [], []
    for part in torch.split(index, 1 << 16):
        heads, here = source.net.task_heads, None if seen is None else seen[part]
        plain = heads.rows(features[part].float(), ("semantic",), here)
        out = heads.rows(prompted_rows(features, part, inside), ("semantic",), here)
        before.append(plain["semantic"].argmax(1))
        after.append(lessons.teach(out["hidden"], out["semantic"]).argmax(1))
    low = box_origin(box)
    local = tuple(slice(a - o, b - o) for (a, b), o in zip(core, low, strict=True))
    shape = box_shape(box)
    old = torch.cat(before).view(shape)[local].cpu().numpy()
    new = torch.cat(after).view(shape)[local].cpu().numpy()
    target = result[box_slices(core)]
    changed = old != new
    target[changed] = new[changed] + FINE_VALUE


def _paint_objects(
    source: ClickSource,
    hierarchy: LabelHierarchy,
    result: NDArray[np.uint8],
    points: Points,
    class_ids: NDArray[np.int64],
    misjudged: NDArray[np.bool_],
    was: NDArray[np.int64],
) -> None:
    """Give each misjudged object its class, where the automatic mode made the same mistake."""
    for i in np.flatnonzero(misjudged):
        if not hierarchy.classes[class_ids[i]].object:
            continue
        against = points[class_ids != class_ids[i]].tolist()
        answer = segment_clicked(source, Clicks([points[i].tolist()], against, int(class_ids[i])))
        target = result[box_slices(answer.box)]
        target[answer.mask & (target == was[i] + FINE_VALUE)] = class_ids[i] + FINE_VALUE
