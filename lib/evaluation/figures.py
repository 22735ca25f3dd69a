"""The figures of an evaluation: of each item, and pooled by data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.evaluation.worst_cases import WorstCases
from lib.metrics.class_scores import ClassScores
from lib.metrics.click_scores import ClickScores
from lib.metrics.object_scores import Matches, ObjectReport
from lib.metrics.speckle import Speckle
from lib.metrics.spread import spread_of


@dataclass(frozen=True)
class ItemFigures:
    """The figures of one item.

    Args:
        item: its id.
        data_set: what it is pooled with.
        classes: counts of true and predicted classes; None when no class is known.
        objects: None without true objects.
        clicks: None unless asked for.
        class_parts: the counts of each part with known voxels.
        are_parts: adapted Rand error of each part with objects.
        overlaps: IoU of the best found object for each true one.
        speckle: of the class map in true objects; None without any.
    """

    item: str
    data_set: str
    classes: ClassScores | None
    objects: ObjectReport | None
    clicks: ClickScores | None = None
    class_parts: tuple[ClassScores, ...] = ()
    are_parts: tuple[float, ...] = ()
    overlaps: tuple[float, ...] = ()
    speckle: Speckle | None = None


@dataclass
class Evaluation:
    """The figures of all items, and pooled by data set; the worst cases.

    Args:
        items: what was measured.
        worst: pictures.
        left_out: files that could not be read, with the reason.
    """

    items: list[ItemFigures] = field(default_factory=list)
    worst: WorstCases = field(default_factory=WorstCases)
    left_out: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: `items` and `data_sets`, the same keys in both, and `left_out`."""
        by_set: dict[str, list[ItemFigures]] = {}
        for item in self.items:
            by_set.setdefault(item.data_set, []).append(item)
        return {
            "data_sets": {name: _figures(members) for name, members in by_set.items()},
            "items": {i.item: {"data_set": i.data_set, **_figures([i])} for i in self.items},
            "left_out": list(self.left_out),
        }


def _figures(items: Sequence[ItemFigures]) -> dict[str, Any]:
    """Classes and clicks pooled over voxels and sessions; objects averaged by their voxels."""
    figures: dict[str, Any] = {}
    classes = [i.classes for i in items if i.classes is not None]
    if classes:
        pooled = ClassScores(classes[0].hierarchy)
        for scores in classes:
            pooled.merge(scores)
        parts = [p for i in items for p in i.class_parts]
        figures["classes"] = {**pooled.result().to_dict(), "spread": _class_spread(parts)}
    objects = [i.objects for i in items if i.objects is not None]
    if objects:
        spread = {
            "are": [v for i in items for v in i.are_parts],
            "best_iou": [v for i in items for v in i.overlaps],
        }
        figures["objects"] = {**pool_objects(objects).to_dict(), "spread": _spreads(spread)}
    speckle = sum((i.speckle for i in items if i.speckle), Speckle())
    if speckle.voxels:
        figures["speckle"] = speckle.share
    sessions = ClickScores()
    for item in items:
        if item.clicks is not None:
            sessions.merge(item.clicks)
    if sessions.sessions:
        spread = {f"iou_{n}": sessions.after(n) for n in (1, 3)}
        spread["noc_85"] = [float(n) for n in sessions.needed(0.85)]
        figures["clicks"] = {**sessions.result().to_dict(), "spread": _spreads(spread)}
    return figures


def _class_spread(parts: Sequence[ClassScores]) -> dict[str, Any]:
    """Each class's IoU and Dice over the parts where it surely occurs, and their means."""
    values: dict[str, dict[str, list[float]]] = {}
    means = []
    for report in (p.result() for p in parts):
        means.append(report.mean_iou)
        for name, score in report.by_class.items():
            if score.support:
                found = values.setdefault(name, {"iou": [], "dice": []})
                found["iou"].append(score.iou)
                found["dice"].append(score.dice)
    return {
        **_spreads({"mean_iou": means}),
        "classes": {name: _spreads(found) for name, found in values.items()},
    }


def _spreads(values: dict[str, list[float]]) -> dict[str, Any]:
    found = {name: spread_of(v) for name, v in values.items()}
    return {name: s.to_dict() for name, s in found.items() if s is not None}


def pool_objects(reports: Sequence[ObjectReport]) -> ObjectReport:
    """One report of several volumes: ARE and VOI weighted by voxels, matches added up."""
    weights = [r.voxels for r in reports]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)

    thresholds = reports[0].matches
    shares = [r.largest_share for r in reports if not math.isnan(r.largest_share)]
    return ObjectReport(
        voxels=sum(weights),
        true_objects=sum(r.true_objects for r in reports),
        predicted_objects=sum(r.predicted_objects for r in reports),
        are=mean([r.are for r in reports]),
        voi_split=mean([r.voi_split for r in reports]),
        voi_merge=mean([r.voi_merge for r in reports]),
        matches={t: sum((r.matches[t] for r in reports), Matches(0, 0, 0)) for t in thresholds},
        largest_share=max(shares, default=math.nan),
    )
