"""Other ways to turn prompted predictions into the clicked object, on the clicks of the app.

Used by `proofread.py`: every variant answers the very clicks that the app's sessions made, so
the figures differ by the decoding alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lib.clicks.evidence import WindowPoints, with_stand_ins
from lib.clicks.judge import ClickJudge
from lib.clicks.sessions import Answers, app_answers_on, as_points
from lib.clicks.source import ClickSource
from lib.clicks.windows import click_windows
from lib.metrics.click_scores import AFTER
from lib.metrics.clicks import Click, Mask, mask_iou
from lib.prediction.feature_cache import FeatureCache
from lib.prediction.predictor import Predictor
from lib.volumes.boxes import Box, box_shape, box_slices
from lib.volumes.contrast import LazyImage

Session = tuple[int, list[Click]]
"""A true object and the clicks made on it."""


def variants(
    predictor: Predictor,
    image: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    automatic: LazyImage,
) -> dict[str, Answers]:
    """Name -> a way of answering clicks on an image in the network's frame.

    Args:
        predictor: network and settings.
        image: in the network's frame.
        voxel_size_nm: of it.
        automatic: (X, Y, Z) ids of the objects found without clicks.
    """
    found = {}
    rule = replace(predictor, net=copy.deepcopy(predictor.net))
    rule.net.mask_head = None
    heads = {"embedding distance": rule}
    if predictor.net.mask_head is not None:
        heads["mask head"] = predictor
    for name, way in heads.items():
        found[name] = app_answers_on(way, image, voxel_size_nm, name)
        found[f"{name}, from the automatic objects"] = app_answers_on(
            way, image, voxel_size_nm, name, automatic
        )
        found[f"{name}, without connectivity"] = Unconnected(way, image, voxel_size_nm)
    return found


class Unconnected:
    """All voxels with a positive logit in the windows of the points, connected or not.

    Args:
        predictor: network and settings.
        image: in the network's frame.
        voxel_size_nm: of it.
    """

    def __init__(
        self, predictor: Predictor, image: LazyImage, voxel_size_nm: tuple[float, float, float]
    ) -> None:
        cache = FeatureCache(predictor.inference.cache_bytes)
        self.source = ClickSource(
            predictor.net, "variant", image, "image", voxel_size_nm, cache, predictor.inference
        )

    def __call__(self, clicks: Sequence[Click]) -> Mask:
        """(X, Y, Z) over the whole volume."""
        source, asked = self.source, as_points(clicks)
        mask = np.zeros(source.shape, bool)
        for box in click_windows(asked.positive, source.window, source.shape):
            positive, negative = (_inside(p, box) for p in (asked.positive, asked.negative))
            mask[box_slices(box)] |= self._window(box, positive, negative)
        return mask

    def _window(self, box: Box, positive: NDArray[np.int64], negative: NDArray[np.int64]) -> Mask:
        source, net, shape = self.source, self.source.net, box_shape(box)
        window = source.features(box)
        points = WindowPoints(positive, negative, -1, True)
        if net.mask_head is not None:
            points = with_stand_ins(window, points, 2 * net.delta_d)
        prompts = points.prompts(source.voxel_size_nm, net.spatial_dims)
        places = torch.from_numpy(np.argwhere(np.ones(shape, bool)))
        with torch.inference_mode():
            judge = ClickJudge(net, window, prompts.to(window.features.device))
            logits = judge(torch.arange(len(places)), places.float())
        return (logits.view(shape) > 0).cpu().numpy()


def replay(
    answer: Answers, sessions: Sequence[Session], ids: NDArray[np.int64]
) -> Mapping[int, float]:
    """Mean IoU after some clicks, when a method answers clicks that were made before.

    Args:
        answer: the method.
        sessions: objects and clicks; a shorter session keeps its last answer.
        ids: (X, Y, Z) true objects, -1 unknown.
    """
    quality: dict[int, list[float]] = {n: [] for n in AFTER}
    known = ids >= 0
    for instance, clicks in sessions:
        truth = ids == instance
        seen: dict[int, float] = {}
        for n in AFTER:
            used = min(n, len(clicks))
            if used not in seen:
                seen[used] = mask_iou(truth, answer(clicks[:used]), known)
            quality[n].append(seen[used])
    return {n: float(np.mean(q)) for n, q in quality.items()}


def _inside(points: Sequence[Sequence[int]], box: Box) -> NDArray[np.int64]:
    rows = np.asarray(points, np.int64).reshape(-1, 3)
    low, high = np.array(box).T
    return rows[((rows >= low) & (rows < high)).all(1)] - low
