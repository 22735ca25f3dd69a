"""Other ways of answering the very clicks that the app's sessions made.

Used by `proofread.py`: the figures differ by the way of answering alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.clicks import answer, prompted
from lib.clicks.meaning import PLAIN
from lib.clicks.source import Kind
from lib.evaluation.click_sessions import Answers, app_answers_on
from lib.metrics.click_scores import AFTER
from lib.metrics.clicks import Click, Mask, mask_iou
from lib.prediction.objects import Fragments
from lib.prediction.predictor import Predictor
from lib.volumes.contrast import LazyImage

Session = tuple[int, list[Click]]
"""A true object and the clicks made on it."""


def variants(
    predictor: Predictor,
    image: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    automatic: LazyImage,
    fragments: Fragments,
    kind: Kind,
) -> dict[str, Answers]:
    """Name -> a way of answering clicks on an image in the network's frame.

    Args:
        predictor: network and settings.
        image: in the network's frame.
        voxel_size_nm: of it.
        automatic: (X, Y, Z) ids of the objects found without clicks.
        fragments: that they are made of.
        kind: of object that is clicked on.
    """

    def app(*given: Any) -> Answers:
        return app_answers_on(predictor, image, voxel_size_nm, "variant", *given, kind=kind)

    return {
        "the app's": app(automatic, fragments),
        "fragments made anew around the clicks": app(automatic),
        "no automatic objects": app(),
        "without the network's answer": _with(app(automatic, fragments), prompted, "WEIGHT", 0.0),
        "its answer ten times as heavy": _with(
            app(automatic, fragments), prompted, "WEIGHT", 10 * prompted.WEIGHT
        ),
        "the middle means all, the border a ball": _with(
            app(automatic, fragments), answer, "meaning_of", lambda net: PLAIN
        ),
    }


def _with(answers: Answers, module: Any, name: str, value: Any) -> Answers:
    """A way of answering with another constant, or function, of a module."""

    @contextmanager
    def other() -> Any:
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            yield
        finally:
            setattr(module, name, before)

    def answered(clicks: Sequence[Click]) -> Mask:
        with other():
            return answers(clicks)

    return answered


def replay(
    answer: Callable[[Sequence[Click]], Mask], sessions: Sequence[Session], ids: NDArray[np.int64]
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
    return {n: float(np.mean(values)) for n, values in quality.items()}
