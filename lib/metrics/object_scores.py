"""Object scores on known voxels only: adapted Rand error, variation of information, AP.

All come from the sparse contingency table of true and predicted ids, so the cost follows the
voxels once and the pairs of touching objects afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Contingency:
    """How many voxels each pair of a true and a predicted object shares.

    Args:
        truth: (P,) int64 true ids, 0 is "no object".
        guess: (P,) int64 predicted ids, 0 is "no object".
        counts: (P,) int64 shared voxels; each pair occurs once.
    """

    truth: NDArray[np.int64]
    guess: NDArray[np.int64]
    counts: NDArray[np.int64]

    def of_objects(self, min_voxels: int = 0) -> Contingency:
        """Only voxels of true objects, and of those only objects of at least `min_voxels`."""
        keep = self.truth > 0
        if min_voxels > 1:
            ids, sizes = _sum_by(self.truth, self.counts)
            keep &= np.isin(self.truth, ids[sizes >= min_voxels])
        return Contingency(self.truth[keep], self.guess[keep], self.counts[keep])


def contingency(truth: NDArray[np.integer[Any]], guess: NDArray[np.integer[Any]]) -> Contingency:
    """Count the pairs of ids over known voxels.

    Args:
        truth: true ids, any shape; 0 no object, negative unknown (left out).
        guess: predicted ids, same shape; 0 no object (negative counts as 0).

    Raises:
        ValueError: the shapes differ.
    """
    truth, guess = np.asarray(truth), np.asarray(guess)
    if truth.shape != guess.shape:
        raise ValueError(f"truth of shape {truth.shape}, prediction of shape {guess.shape}")
    known = truth >= 0
    t, g = truth[known].astype(np.int64), np.maximum(guess[known].astype(np.int64), 0)
    if not t.size:
        empty = np.zeros(0, np.int64)
        return Contingency(empty, empty, empty)
    # compact ids first: two of them always fit one 64-bit key, whatever the ids were
    t_ids, t_index = fastremap.unique(t, return_inverse=True)
    g_ids, g_index = fastremap.unique(g, return_inverse=True)
    keys = (
        t_index.astype(np.uint64).ravel() * np.uint64(len(g_ids))
        + g_index.astype(np.uint64).ravel()
    )
    pairs, counts = fastremap.unique(keys, return_counts=True)
    rows, columns = np.divmod(pairs.astype(np.int64), len(g_ids))
    return Contingency(t_ids[rows], g_ids[columns], counts.astype(np.int64))


def adapted_rand_error(table: Contingency) -> float:
    """1 - F score of the Rand index over the voxels of true objects; NaN without any.

    Predicted 0 counts as one segment, so unassigned voxels cost.

    Source: Arganda-Carreras et al. 2015 (SNEMI3D), as in skimage.metrics.adapted_rand_error
        with ignore_labels=(0,).
    """
    objects = table.of_objects()
    total = float(objects.counts.sum())
    if total == 0:
        return float("nan")
    joint = _sum_squares(objects.counts) - total
    of_truth = _sum_squares(_sum_by(objects.truth, objects.counts)[1]) - total
    of_guess = _sum_squares(_sum_by(objects.guess, objects.counts)[1]) - total
    if of_truth + of_guess == 0:
        return 0.0  # all objects are single voxels on both sides: nothing to get wrong
    return 1.0 - 2.0 * joint / (of_truth + of_guess)


def variation_of_information(table: Contingency) -> tuple[float, float]:
    """(split, merge) in bits over the voxels of true objects; NaN without any.

    Split is H(prediction | truth), merge is H(truth | prediction).

    Source: Meila 2007; CREMI. As in skimage.metrics.variation_of_information.
    """
    objects = table.of_objects()
    total = float(objects.counts.sum())
    if total == 0:
        return float("nan"), float("nan")
    joint = _entropy(objects.counts, total)
    truth = _entropy(_sum_by(objects.truth, objects.counts)[1], total)
    guess = _entropy(_sum_by(objects.guess, objects.counts)[1], total)
    return max(joint - truth, 0.0), max(joint - guess, 0.0)


@dataclass(frozen=True)
class Matches:
    """Objects matched at one IoU threshold."""

    matched: int
    false_alarms: int
    missed: int

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN); NaN without any object.

        Source: the Data Science Bowl 2018 figure (also StarDist's): predictions carry no
        confidence, so there is one operating point.
        """
        whole = self.matched + self.false_alarms + self.missed
        return self.matched / whole if whole else float("nan")

    def __add__(self, other: Matches) -> Matches:
        return Matches(
            self.matched + other.matched,
            self.false_alarms + other.false_alarms,
            self.missed + other.missed,
        )


def match_objects(table: Contingency, threshold: float, min_voxels: int = 0) -> Matches:
    """Match true and predicted objects one to one, best IoU first.

    Args:
        table: contingency over known voxels, background included.
        threshold: least IoU of a match.
        min_voxels: smaller true objects are left out with their voxels; smaller predicted
            objects (measured on the remaining voxels) are left out too.
    """
    table = _without_small(table, min_voxels)
    true_ids, true_sizes = _sum_by(table.truth, table.counts)
    guess_ids, guess_sizes = _sum_by(table.guess, table.counts)
    large = guess_sizes[np.searchsorted(guess_ids, table.guess)] >= min_voxels
    pairs = (table.truth > 0) & (table.guess > 0) & large
    shared = table.counts[pairs].astype(np.float64)
    t = np.searchsorted(true_ids, table.truth[pairs])
    g = np.searchsorted(guess_ids, table.guess[pairs])
    iou = shared / (true_sizes[t] + guess_sizes[g] - shared)
    matched = _one_to_one(iou, t, g, threshold)
    objects = int((true_ids > 0).sum())
    guesses = int(((guess_ids > 0) & (guess_sizes >= min_voxels)).sum())
    return Matches(matched, guesses - matched, objects - matched)


def best_overlaps(table: Contingency, min_voxels: int = 0) -> dict[int, float]:
    """For each true object the IoU of the predicted object that covers it best; 0 for none.

    Args:
        table: contingency over known voxels, background included.
        min_voxels: smaller true objects are left out, but not their voxels.
    """
    true_ids, true_sizes = _sum_by(table.truth, table.counts)
    guess_ids, guess_sizes = _sum_by(table.guess, table.counts)
    t = np.searchsorted(true_ids, table.truth)
    whole = true_sizes[t] + guess_sizes[np.searchsorted(guess_ids, table.guess)] - table.counts
    iou = np.where(table.guess > 0, table.counts / whole, 0.0)
    best = np.zeros(len(true_ids))
    np.maximum.at(best, t, iou)
    wanted = (true_ids > 0) & (true_sizes >= min_voxels)
    return dict(zip(true_ids[wanted].tolist(), best[wanted].tolist(), strict=True))


@dataclass(frozen=True)
class ObjectReport:
    """The object figures of one volume.

    Args:
        voxels: voxels of true objects.
        true_objects: how many there are.
        predicted_objects: how many touch known voxels.
        are: adapted Rand error.
        voi_split: over-segmentation, bits.
        voi_merge: under-segmentation, bits.
        matches: by IoU threshold.
        largest_share: the largest predicted object's share of the predicted voxels; near 1
            means that everything was merged.
    """

    voxels: int
    true_objects: int
    predicted_objects: int
    are: float
    voi_split: float
    voi_merge: float
    matches: dict[float, Matches]
    largest_share: float

    def to_dict(self) -> dict[str, object]:
        """JSON form; figures without a value are null."""
        figures = {"are": self.are, "voi_split": self.voi_split, "voi_merge": self.voi_merge}
        figures["voi"] = self.voi_split + self.voi_merge
        for threshold, found in self.matches.items():
            figures[f"ap_{round(threshold * 100)}"] = found.average_precision
        figures["largest_share"] = self.largest_share
        return {
            "voxels": self.voxels,
            "true_objects": self.true_objects,
            "predicted_objects": self.predicted_objects,
            **{k: None if math.isnan(v) else v for k, v in figures.items()},
        }


def object_report(
    table: Contingency, thresholds: tuple[float, ...] = (0.5, 0.75), min_voxels: int = 0
) -> ObjectReport:
    """All object figures of one volume.

    Args:
        table: from `contingency`.
        thresholds: IoU thresholds of the average precision.
        min_voxels: smallest object that the matching (not ARE and VOI) looks at.
    """
    objects = table.of_objects()
    guess_ids, guess_sizes = _sum_by(table.guess, table.counts)
    sizes = guess_sizes[guess_ids > 0]
    split, merge = variation_of_information(table)
    return ObjectReport(
        voxels=int(objects.counts.sum()),
        true_objects=len(np.unique(objects.truth)),
        predicted_objects=len(sizes),
        are=adapted_rand_error(table),
        voi_split=split,
        voi_merge=merge,
        matches={t: match_objects(table, t, min_voxels) for t in thresholds},
        largest_share=float(sizes.max() / sizes.sum()) if len(sizes) else float("nan"),
    )


def _one_to_one(
    iou: NDArray[np.float64], t: NDArray[np.int64], g: NDArray[np.int64], threshold: float
) -> int:
    """Greedy matching by falling IoU; above 0.5 no two pairs compete anyway."""
    used_t: set[int] = set()
    used_g: set[int] = set()
    for k in np.argsort(-iou, kind="stable"):
        if iou[k] < threshold:
            break
        if int(t[k]) not in used_t and int(g[k]) not in used_g:
            used_t.add(int(t[k]))
            used_g.add(int(g[k]))
    return len(used_t)


def _without_small(table: Contingency, min_voxels: int) -> Contingency:
    if min_voxels <= 1:
        return table
    ids, sizes = _sum_by(table.truth, table.counts)
    keep = (table.truth == 0) | np.isin(table.truth, ids[sizes >= min_voxels])
    return Contingency(table.truth[keep], table.guess[keep], table.counts[keep])


def _sum_by(
    keys: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(ascending distinct keys, sum of counts of each), exact in int64."""
    ids, index = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(ids), np.int64)
    np.add.at(sums, index, counts)
    return ids, sums


def _sum_squares(counts: NDArray[np.int64]) -> float:
    return float(np.square(counts.astype(np.float64)).sum())


def _entropy(counts: NDArray[np.int64], total: float) -> float:
    p = counts.astype(np.float64) / total
    return float(-(p * np.log2(p)).sum())
