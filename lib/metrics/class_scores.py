"""Class scores on known voxels only, for labels that are class sets.

Everything is derived from one small table: how many voxels with this true class set were
given this predicted class set. It accumulates over patches, volumes and processes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy

NOT_A_NUMBER = float("nan")


@dataclass(frozen=True)
class SetScore:
    """How well one class (or set of classes) was found.

    Args:
        hits: voxels surely in the set and predicted in it.
        false_alarms: voxels surely outside the set and predicted in it.
        misses: voxels surely in the set and predicted outside it.

    Voxels whose label leaves open whether they are in the set count nowhere.
    """

    hits: int
    false_alarms: int
    misses: int

    @property
    def support(self) -> int:
        """Voxels surely in the set."""
        return self.hits + self.misses

    @property
    def iou(self) -> float:
        """Intersection over union; NaN where the set is neither true nor predicted."""
        return _ratio(self.hits, self.hits + self.false_alarms + self.misses)

    @property
    def dice(self) -> float:
        """Dice; NaN where the set is neither true nor predicted."""
        return _ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)


@dataclass(frozen=True)
class ClassReport:
    """The figures of one data set.

    Args:
        voxels: known voxels that were scored.
        accuracy: share of right voxels among those with exactly one class; NaN without any.
        set_accuracy: share of right voxels among all known ones; a voxel known by a set of
            classes is right when the prediction is in the set.
        confusion: (C, C) int64, rows truth, columns prediction; voxels of exactly one class
            with a prediction of exactly one class.
        exact: for each class, scored on voxels of exactly one class only.
        by_class: for each class, scored wherever the label decides about the class
            (set-aware; the figure to report for partly known data).
        by_set: for each label that is a set of several classes, and for each group.
        against_rest: for each class, scored on all labelled voxels: those that are not surely
            of the class count as the rest, though a label that is a set may leave it open.
            What users see painted; too strict by what such voxels truly hold of the class.
    """

    voxels: int
    accuracy: float
    set_accuracy: float
    confusion: NDArray[np.int64]
    exact: dict[str, SetScore]
    by_class: dict[str, SetScore]
    by_set: dict[str, SetScore]
    against_rest: dict[str, SetScore]

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes present in the truth, set-aware."""
        return _mean(s.iou for s in self.by_class.values() if s.support)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes present in the truth, set-aware."""
        return _mean(s.dice for s in self.by_class.values() if s.support)

    def to_dict(self) -> dict[str, object]:
        """JSON form; classes without any voxel in truth and prediction are left out."""
        return {
            "voxels": self.voxels,
            "accuracy": _json(self.accuracy),
            "set_accuracy": _json(self.set_accuracy),
            "mean_iou": _json(self.mean_iou),
            "mean_dice": _json(self.mean_dice),
            "classes": _scores_to_dict(self.by_class),
            "sets": _scores_to_dict(self.by_set),
            "against_rest": _scores_to_dict(
                {n: s for n, s in self.against_rest.items() if self.by_class[n].support}
            ),
            "confusion": self.confusion.tolist(),
        }


@dataclass
class ClassScores:
    """Counts of (true class set, predicted class set), accumulated.

    Args:
        hierarchy: gives classes and groups their names and bits.
    """

    hierarchy: LabelHierarchy
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)

    def update(
        self, class_sets: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]]
    ) -> None:
        """Count a patch of fine classes.

        Args:
            class_sets: true class sets (bit masks), any shape.
            prediction: fine class indices 0..C-1, same shape; negative: not predicted, which
                counts as wrong for every class.

        Raises:
            ValueError: the shapes differ or a class index is too large.
        """
        prediction = np.asarray(prediction)
        if prediction.size and prediction.max() >= self.hierarchy.num_classes:
            raise ValueError(
                f"predicted class {prediction.max()} is outside 0..{self.hierarchy.num_classes - 1}"
            )
        bits = np.left_shift(1, np.maximum(prediction, 0), dtype=np.int64)
        self.update_sets(class_sets, np.where(prediction < 0, 0, bits))

    def update_sets(
        self, class_sets: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]
    ) -> None:
        """Count a patch whose prediction is a class set too (a class, or a group).

        Args:
            class_sets: true class sets, any shape.
            predicted: predicted class sets, same shape; 0: not predicted.
        """
        truth, guess = np.asarray(class_sets), np.asarray(predicted)
        if truth.shape != guess.shape:
            raise ValueError(f"truth of shape {truth.shape}, prediction of shape {guess.shape}")
        known = truth != self.hierarchy.unknown
        keys = (truth[known].astype(np.uint64) << np.uint64(32)) | guess[known].astype(np.uint64)
        if not keys.size:
            return
        values, counts = fastremap.unique(keys, return_counts=True)
        for key, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.counts[(key >> 32, key & 0xFFFFFFFF)] += count

    def merge(self, other: ClassScores) -> None:
        """Add the counts of another accumulator of the same hierarchy."""
        assert self.hierarchy.class_names == other.hierarchy.class_names
        self.counts.update(other.counts)

    def rows(self) -> NDArray[np.int64]:
        """(N, 3) of true set, predicted set, count: to gather counts between processes."""
        rows = [(t, p, n) for (t, p), n in sorted(self.counts.items())]
        return np.array(rows, np.int64).reshape(-1, 3)

    def add_rows(self, rows: NDArray[np.int64]) -> None:
        """Add what another process gave by `rows`."""
        for truth, guess, count in rows.tolist():
            self.counts[(truth, guess)] += count

    def score(self, class_set: int) -> SetScore:
        """Hits, false alarms and misses of one class set."""
        hits = alarms = misses = 0
        for (truth, guess), count in self.counts.items():
            inside, outside = truth & ~class_set == 0, truth & class_set == 0
            claimed = guess != 0 and guess & ~class_set == 0
            hits += count * (inside and claimed)
            misses += count * (inside and not claimed)
            alarms += count * (outside and claimed)
        return SetScore(hits, alarms, misses)

    def against_rest(self, class_set: int) -> SetScore:
        """One class set against everything else that is labelled, surely outside or not."""
        hits = alarms = misses = 0
        for (truth, guess), count in self.counts.items():
            inside = truth & ~class_set == 0
            claimed = guess != 0 and guess & ~class_set == 0
            hits += count * (inside and claimed)
            misses += count * (inside and not claimed)
            alarms += count * (not inside and claimed)
        return SetScore(hits, alarms, misses)

    def result(self) -> ClassReport:
        """All figures of what was counted so far."""
        h = self.hierarchy
        singles = {1 << c: c for c in range(h.num_classes)}
        exact = ClassScores(h, Counter({k: n for k, n in self.counts.items() if k[0] in singles}))
        confusion = np.zeros((h.num_classes, h.num_classes), np.int64)
        for (truth, guess), count in exact.counts.items():
            if guess in singles:
                confusion[singles[truth], singles[guess]] += count
        sets = {t for t, _ in self.counts if t not in singles} | set(h.group_sets)
        return ClassReport(
            voxels=sum(self.counts.values()),
            accuracy=_right_share(exact.counts),
            set_accuracy=_right_share(self.counts),
            confusion=confusion,
            exact={n: exact.score(1 << c) for c, n in enumerate(h.class_names)},
            by_class={n: self.score(1 << c) for c, n in enumerate(h.class_names)},
            by_set={h.describe(s): self.score(s) for s in sorted(sets) if s not in singles},
            against_rest={n: self.against_rest(1 << c) for c, n in enumerate(h.class_names)},
        )


def _right_share(counts: Counter[tuple[int, int]]) -> float:
    """Share of voxels whose truth and prediction are nested sets (equal, for single classes)."""
    right = sum(
        n for (t, p), n in counts.items() if p != 0 and (p & ~t == 0 or (t & ~p == 0 and t != 0))
    )
    return _ratio(right, sum(counts.values()))


def _scores_to_dict(scores: dict[str, SetScore]) -> dict[str, object]:
    return {
        name: {"iou": _json(s.iou), "dice": _json(s.dice), "support": s.support}
        for name, s in scores.items()
        if s.support or s.false_alarms
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else NOT_A_NUMBER


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else NOT_A_NUMBER


def _json(value: float) -> float | None:
    """NaN has no JSON form; null says "no figure"."""
    return None if math.isnan(value) else value
