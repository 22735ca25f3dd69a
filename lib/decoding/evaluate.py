"""Measure weights on annotated items: every figure of the model card comes from here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lib.data.splits import split_item
from lib.decoding.click_sessions import app_answers, measure_clicks
from lib.decoding.predictor import Predictor
from lib.labels.hierarchy import IGNORE_INDEX
from lib.metrics.class_scores import ClassScores
from lib.metrics.click_scores import ClickScores
from lib.metrics.object_scores import Matches, ObjectReport, contingency, object_report
from lib.volumes.boxes import box_slices, whole_box
from lib.volumes.study import Study, StudyItem

Split = Literal["val", "train", "all"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What to measure.

    Args:
        split: voxels that validate, that train, or all that are known.
        val_fraction: share of validation blocks in items without a declared split.
        min_voxels: smallest object that matching and clicks look at.
        clicks: sessions of clicks for each item with true objects, at most; 0 for none.
        items: only these items; all when empty.
    """

    split: Split = "val"
    val_fraction: float = 0.2
    min_voxels: int = 0
    clicks: int = 0
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class ItemFigures:
    """The figures of one item.

    Args:
        item: its id.
        data_set: what it is pooled with.
        classes: counts of true and predicted classes; None when no class is known.
        objects: None without true objects.
        clicks: None unless asked for.
    """

    item: str
    data_set: str
    classes: ClassScores | None
    objects: ObjectReport | None
    clicks: ClickScores | None = None


@dataclass
class Evaluation:
    """The figures of all items, and pooled by data set."""

    items: list[ItemFigures] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: `items` and `data_sets`, the same keys in both."""
        by_set: dict[str, list[ItemFigures]] = {}
        for item in self.items:
            by_set.setdefault(item.data_set, []).append(item)
        return {
            "data_sets": {name: _figures(members) for name, members in by_set.items()},
            "items": {i.item: {"data_set": i.data_set, **_figures([i])} for i in self.items},
        }


def evaluate(
    predictor: Predictor,
    studies: Sequence[Study],
    options: EvaluationOptions,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Predict and measure the annotated items of studies.

    Args:
        predictor: the weights.
        studies: items without any known voxel in the split are passed over.
        options: what to measure.
        progress: called with (item, windows done, windows in all).

    Raises:
        ValueError: nothing to measure.
    """
    found = Evaluation()
    for study in studies:
        for item in study.items():
            if options.items and item.id not in options.items:
                continue
            figures = evaluate_item(predictor, item, options, progress)
            if figures is not None:
                found.items.append(figures)
    if not found.items:
        wanted = f" among {', '.join(options.items)}" if options.items else ""
        raise ValueError(
            f"no item{wanted} with a known voxel in split {options.split!r}; annotate some, or "
            "choose --split all"
        )
    return found


def evaluate_item(
    predictor: Predictor,
    item: StudyItem,
    options: EvaluationOptions,
    progress: Callable[[str, int, int], None] | None = None,
) -> ItemFigures | None:
    """The figures of one item; None when the split has no known voxel of it."""
    truth = read_truth(predictor, item, options)
    if truth is None:
        return None
    image, voxel = item.open_image(), item.voxel_size_nm

    def step(done: int, total: int) -> None:
        if progress is not None:
            progress(item.id, done, total)

    classes = objects = clicks = None
    if truth.classes_known:
        classes = ClassScores(predictor.hierarchy)
        # predict_classes stores class c as c + 1
        predicted = predictor.classes(image, voxel, "fine", step).astype(np.int16) - 1
        classes.update(truth.class_sets, predicted)
    if truth.objects_known:
        ids = predictor.objects(image, voxel, step).ids
        objects = object_report(contingency(truth.instances, ids), min_voxels=options.min_voxels)
        if options.clicks:
            clicks = measure_clicks(
                app_answers(predictor, item),
                predictor.frame(item.shape, voxel),
                truth.instances,
                item.id,
                options.clicks,
                options.min_voxels,
            )
    return ItemFigures(item.id, data_set_of(item), classes, objects, clicks)


@dataclass(frozen=True)
class Truth:
    """What is known of an item in a split; everything else is unknown.

    Args:
        class_sets: (X, Y, Z) int32 bit masks.
        instances: (X, Y, Z) int64, -1 unknown.
        classes_known: whether any voxel's class set says something.
        objects_known: whether there are objects that count in 3D.
    """

    class_sets: NDArray[np.int32]
    instances: NDArray[np.int64]
    classes_known: bool
    objects_known: bool


def read_truth(predictor: Predictor, item: StudyItem, options: EvaluationOptions) -> Truth | None:
    """An item's labels with everything outside the split unknown; None when nothing is left."""
    if not item.has_label("final") and not item.has_label("instance"):
        return None
    inside = split_mask(predictor, item, options)
    if inside is not None and not inside.any():
        return None
    sets, ids = item.read_class_sets(), item.read_instances()
    unknown = item.study.hierarchy.unknown
    if inside is not None:
        sets[~inside], ids[~inside] = unknown, IGNORE_INDEX
    classes_known = bool((sets != unknown).any())
    objects_known = item.record.true_instances and bool((ids > 0).any())
    if not classes_known and not objects_known:
        return None
    return Truth(sets, ids, classes_known, objects_known)


def split_mask(
    predictor: Predictor, item: StudyItem, options: EvaluationOptions
) -> NDArray[np.bool_] | None:
    """(X, Y, Z) where the split's voxels are, as training cuts it; None for everywhere."""
    if options.split == "all":
        return None
    frame = predictor.frame(item.shape, item.voxel_size_nm)
    shape = frame.network_shape
    split = split_item(item.id, shape, item.record.split, options.val_fraction)
    if split.whole is not None:
        return None if split.whole == options.split else np.zeros(item.shape, bool)
    whole = whole_box(shape)
    if options.split == "val":
        inside = split.validating(whole)
    else:
        inside = np.ones(shape, bool)
        for blocked in split.blocked(whole):
            inside[blocked] = False
    on_image = frame.mask_to_viewer(inside, whole)
    return np.asarray(on_image[box_slices(whole_box(item.shape))], bool)


def data_set_of(item: StudyItem) -> str:
    """What an item is pooled with: `data_set` of its record, else its id up to a dash."""
    named = item.record.extra.get("data_set")
    return str(named) if named else re.split(r"[-_]", item.id)[0]


def _figures(items: Sequence[ItemFigures]) -> dict[str, Any]:
    """Classes and clicks pooled over voxels and sessions; objects averaged by their voxels."""
    figures: dict[str, Any] = {}
    classes = [i.classes for i in items if i.classes is not None]
    if classes:
        pooled = ClassScores(classes[0].hierarchy)
        for scores in classes:
            pooled.merge(scores)
        figures["classes"] = pooled.result().to_dict()
    objects = [i.objects for i in items if i.objects is not None]
    if objects:
        figures["objects"] = pool_objects(objects).to_dict()
    sessions = ClickScores()
    for item in items:
        if item.clicks is not None:
            sessions.merge(item.clicks)
    if sessions.sessions:
        figures["clicks"] = sessions.result().to_dict()
    return figures


def pool_objects(reports: Sequence[ObjectReport]) -> ObjectReport:
    """One report of several volumes: ARE and VOI weighted by voxels, matches added up."""
    weights = [r.voxels for r in reports]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)

    thresholds = reports[0].matches
    return ObjectReport(
        voxels=sum(weights),
        true_objects=sum(r.true_objects for r in reports),
        predicted_objects=sum(r.predicted_objects for r in reports),
        are=mean([r.are for r in reports]),
        voi_split=mean([r.voi_split for r in reports]),
        voi_merge=mean([r.voi_merge for r in reports]),
        matches={t: sum((r.matches[t] for r in reports), Matches(0, 0, 0)) for t in thresholds},
        largest_share=max(r.largest_share for r in reports),
    )
