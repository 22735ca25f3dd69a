"""The class map at the level of objects is told once for the objects as they stand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lib.prediction.feature_cache import FeatureCache
from lib.proofread.object_level import ObjectLevel

SHAPE = (4, 3, 2)
IMAGE: Any = SimpleNamespace(
    path=Path("s/a.nii"), key="a", shape=SHAPE, seen=np.zeros(SHAPE), voxel_size_nm=(1, 1, 1)
)


class Predicted:
    """Counts what is asked of it; a cell's class is its id."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def objects(self, *_: Any, box: Any = None) -> Any:
        self.asked.append("objects")
        return SimpleNamespace(ids=np.full(SHAPE, 7, np.uint32))

    def object_classes(self, *given: Any) -> Any:
        self.asked.append("classes")
        return given[-1].astype(np.uint8)


class Current:
    """Objects with a log of edits."""

    def __init__(self) -> None:
        self.machine = SimpleNamespace(version="m1")
        self.edits: list[int] = []
        self.log = SimpleNamespace(edits=lambda: self.edits)

    def read(self, box: Any) -> Any:
        return np.full([b - a for a, b in box], 2 + len(self.edits), np.uint32)


def level(cache: FeatureCache, predicted: Predicted, current: Any, limits: Any = None) -> Any:
    objects: Any = SimpleNamespace(
        holds=lambda _: current is not None, open=lambda *_: (current, [])
    )
    loaded: Any = SimpleNamespace(version="w1", heads="", fragments="", predictor=predicted)
    return ObjectLevel(objects, cache, loaded, IMAGE, limits)


def test_without_objects_they_are_found_once_and_told_once() -> None:
    cache, predicted = FeatureCache(10**6), Predicted()
    for _ in range(3):
        asked = level(cache, predicted, None)
        assert (asked.classes(asked.cells()) == 7).all()
    assert predicted.asked == ["objects", "classes"]


def test_an_edit_tells_the_map_anew_and_a_part_is_told_for_itself() -> None:
    cache, predicted, current = FeatureCache(10**6), Predicted(), Current()
    for edits, value in ((0, 2), (1, 3), (1, 3), (2, 4)):
        current.edits = [0] * edits
        asked = level(cache, predicted, current)
        assert (asked.classes(asked.cells()) == value).all()
    assert predicted.asked == ["classes"] * 3
    part = level(cache, predicted, current, ((0, 2), (0, 3), (1, 2)))
    assert part.classes(part.cells()).shape == (2, 3, 1)
    current.machine.version = "m2"
    asked = level(cache, predicted, current)
    asked.classes(asked.cells())
    assert predicted.asked == ["classes"] * 5
