"""Measure weights on annotated items: every figure of the model card comes from here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.evaluation.click_sessions import app_answers, click_sessions
from lib.evaluation.figures import Evaluation, ItemFigures
from lib.evaluation.truth import Part, Split, Truth, parts_of, read_truth
from lib.evaluation.worst_cases import WorstCases, class_picture, click_picture, object_picture
from lib.labels.class_sets import cells_only
from lib.labels.hierarchy import LabelHierarchy
from lib.metrics.class_scores import ClassScores
from lib.metrics.click_scores import ClickScores
from lib.metrics.object_scores import (
    adapted_rand_error,
    best_overlaps,
    contingency,
    object_report,
)
from lib.metrics.speckle import speckle_of
from lib.prediction.objects import Objects
from lib.prediction.predictor import Predictor
from lib.volumes.boxes import box_slices
from lib.volumes.errors import DiskError, VolumeError
from lib.volumes.study import Study, StudyItem

LEAST_SHARE = 0.005
"""Classes with less of a part's known voxels do not make it a worst case."""

WORST_AFTER = 3
"""Worst sessions are those with the lowest IoU after so many clicks."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What to measure.

    Args:
        split: voxels that validate, that train, or all that are known.
        val_fraction: share of validation blocks in items without a declared split.
        min_voxels: smallest object that matching looks at.
        clicks: sessions of clicks for each item with true objects, at most; 0 for none.
        click_voxels: smallest object that is clicked on; None: as `min_voxels`.
        items: only these items; all when empty.
        worst: keep the worst cases of each data set and figure as pictures, so many.
    """

    split: Split = "val"
    val_fraction: float = 0.2
    min_voxels: int = 0
    clicks: int = 0
    click_voxels: int | None = None
    items: tuple[str, ...] = ()
    worst: int = 0


Progress = Callable[[str, int, int], None]


def evaluate(
    predictor: Predictor,
    studies: Sequence[Study],
    options: EvaluationOptions,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict and measure the annotated items of studies that can be read.

    Args:
        predictor: the weights.
        studies: items without any known voxel in the split are passed over.
        options: what to measure.
        progress: called with (item, windows or sessions done, windows or sessions in all).

    Returns:
        The figures, and what is left out of them.

    Raises:
        ValueError: nothing to measure, or an item that was named cannot be read.
    """
    found = Evaluation(worst=WorstCases(options.worst))
    for study in studies:
        listing = study.listing()
        if not options.items:
            found.left_out += [f"{study.root / s.name}: {s.reason}" for s in listing.skipped]
        for item in study.items_of(listing):
            if options.items and item.id not in options.items:
                continue
            try:
                figures = evaluate_item(predictor, item, options, progress, found.worst)
            except VolumeError as error:
                if options.items or isinstance(error, DiskError):
                    raise
                found.left_out.append(str(error))
                continue
            if figures is not None:
                found.items.append(figures)
    if not found.items:
        wanted = f" among {', '.join(options.items)}" if options.items else ""
        told = "".join(f"; left out: {reason}" for reason in found.left_out[:3])
        raise ValueError(
            f"no item{wanted} with a known voxel in split {options.split!r}; annotate some, or "
            f"choose --split all{told}"
        )
    return found


def evaluate_item(
    predictor: Predictor,
    item: StudyItem,
    options: EvaluationOptions,
    progress: Progress | None = None,
    worst: WorstCases | None = None,
) -> ItemFigures | None:
    """The figures of one item; None when the split has no known voxel of it."""
    frame = predictor.frame(item.shape, item.voxel_size_nm)
    truth = read_truth(item, frame, options.split, options.val_fraction)
    if truth is None:
        return None
    image, voxel = item.open_seen(), item.voxel_size_nm
    parts = parts_of(item.shape, frame.order[2])
    worst = worst or WorstCases(0)

    def step(done: int, total: int) -> None:
        if progress is not None:
            progress(item.id, done, total)

    classes = objects = clicks = None
    class_parts: tuple[ClassScores, ...] = ()
    are_parts: tuple[float, ...] = ()
    overlaps: dict[int, float] = {}
    speckle = None
    # predict_classes stores class c as c + 1
    predicted = predictor.classes(image, voxel, "fine", step).astype(np.int16) - 1
    if truth.classes_known:
        classes = ClassScores(predictor.hierarchy)
        class_parts = _measure_classes(item, truth, predicted, parts, predictor.hierarchy, worst)
        for scores in class_parts:
            classes.merge(scores)
    if truth.objects_known:
        found = predictor.objects(image, voxel, step)
        ids = found.ids
        cells = cells_only(truth.instances, truth.class_sets, predictor.hierarchy)
        table = contingency(cells, ids)
        objects = object_report(table, min_voxels=options.min_voxels)
        overlaps = best_overlaps(table, options.min_voxels)
        speckle = speckle_of(truth.instances, predicted, predictor.hierarchy)
        are_parts = _measure_sections(item, truth, ids, parts, worst)
        if options.clicks:
            clicks = _measure_clicks(predictor, item, cells, found, options, step, worst)
    return ItemFigures(
        item.id, data_set_of(item), classes, objects, clicks,
        class_parts, are_parts, tuple(overlaps.values()), speckle,
    )  # fmt: skip


def _measure_classes(
    item: StudyItem,
    truth: Truth,
    predicted: NDArray[np.int16],
    parts: Iterable[Part],
    hierarchy: LabelHierarchy,
    worst: WorstCases,
) -> tuple[ClassScores, ...]:
    """The counts of each part with a known voxel."""
    measured, image = [], item.open_image()
    for part in parts:
        box = box_slices(part.box)
        sets, guess = truth.class_sets[box], predicted[box]
        scores = ClassScores(hierarchy)
        scores.update(sets, guess)
        voxels = sum(scores.counts.values())
        if not voxels:
            continue
        measured.append(scores)
        found = [s for s in scores.result().by_class.values() if s.support]
        large = [s.iou for s in found if s.support >= LEAST_SHARE * voxels]
        worst.offer(
            data_set_of(item),
            "class IoU",
            float(np.mean(large)) if large else math.nan,
            item.id,
            part.name,
            lambda box=box: class_picture(  # type: ignore[misc]
                np.asarray(image[box]), truth.class_sets[box], predicted[box], hierarchy
            ),
        )
    return tuple(measured)


def _measure_sections(
    item: StudyItem,
    truth: Truth,
    ids: NDArray[np.uint32],
    parts: Iterable[Part],
    worst: WorstCases,
) -> tuple[float, ...]:
    """The adapted Rand error of each part with objects, by the objects' ids in 3D."""
    measured, image = [], item.open_image()
    for part in parts:
        box = box_slices(part.box)
        cells = cells_only(truth.instances[box], truth.class_sets[box], item.study.hierarchy)
        error = adapted_rand_error(contingency(cells, ids[box]))
        if math.isnan(error):
            continue
        measured.append(error)
        worst.offer(
            data_set_of(item),
            "objects 1 - ARE",
            1 - error,
            item.id,
            part.name,
            lambda box=box: object_picture(  # type: ignore[misc]
                np.asarray(image[box]), truth.instances[box], ids[box]
            ),
        )
    return tuple(measured)


def _measure_clicks(
    predictor: Predictor,
    item: StudyItem,
    cells: NDArray[np.int64],
    found: Objects,
    options: EvaluationOptions,
    step: Callable[[int, int], None],
    worst: WorstCases,
) -> ClickScores:
    """Sessions on the true cells of an item, from the objects that were found in it."""
    frame = predictor.frame(item.shape, item.voxel_size_nm)
    view = frame.view(item.open_image())
    answer = app_answers(predictor, item, found.ids, found.fragments)
    least = options.min_voxels if options.click_voxels is None else options.click_voxels
    scores = ClickScores()
    for session in click_sessions(answer, frame, cells, item.id, options.clicks, least, step):
        scores.update(session.quality)
        clicks = session.clicks[:WORST_AFTER]
        worst.offer(
            data_set_of(item),
            f"IoU after {WORST_AFTER} clicks",
            session.quality[len(clicks) - 1],
            item.id,
            f"object {session.instance}",
            lambda s=session, clicks=clicks: click_picture(  # type: ignore[misc]
                view, s.truth, answer(clicks), clicks
            ),
        )
    return scores


def data_set_of(item: StudyItem) -> str:
    """What an item is pooled with: `data_set` of its record, else its id up to a dash."""
    named = item.record.extra.get("data_set")
    return str(named) if named else re.split(r"[-_]", item.id)[0]
