"""Simulated annotators: where the next click falls, and the clicks of a whole session.

Clicks fall in the largest error component, with randomness: clicks always at the error's
centre flatter every method.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

CENTRE_PULL = 2.0
"""A voxel at the error's depth d is drawn with weight exp(CENTRE_PULL * d / deepest d)."""

FIRST_CLICK_DEPTHS = (0.2, 0.8)
"""The first click falls between these shares of the object's largest depth: inside it, away
from its border, and not at its centre."""


@dataclass(frozen=True)
class Click:
    """One point of an annotator.

    Args:
        position: voxel index (x, y, z).
        positive: on the object (True) or on what is not the object.
    """

    position: tuple[int, int, int]
    positive: bool


def seeded_generator(item: str, instance: int) -> np.random.Generator:
    """The fixed random stream of one object, the same for every method and run."""
    return np.random.default_rng([zlib.crc32(item.encode()), instance])


def first_click(
    truth: Mask, voxel_size_nm: Sequence[float], generator: np.random.Generator
) -> Click:
    """A positive click inside the object, not at its centre.

    Args:
        truth: (X, Y, Z) the object.
        voxel_size_nm: (x, y, z).
        generator: from `seeded_generator`.

    Raises:
        ValueError: the object has no voxel.
    """
    box = _bounding_box(truth)
    if box is None:
        raise ValueError("the object has no voxel in this volume")
    depth = _depth(truth[box], voxel_size_nm)
    low, high = (share * depth.max() for share in FIRST_CLICK_DEPTHS)
    candidates = truth[box] & (depth >= low) & (depth <= high)
    if not candidates.any():
        candidates = truth[box]
    return Click(_draw(candidates.astype(np.float64), box, generator), True)


def error_click(
    truth: Mask,
    answer: Mask,
    known: Mask | None,
    voxel_size_nm: Sequence[float],
    generator: np.random.Generator,
) -> Click | None:
    """The click that an annotator makes on an answer: in its largest error component.

    Args:
        truth: (X, Y, Z) the object.
        answer: (X, Y, Z) what a method gave.
        known: (X, Y, Z) where the truth is known; None: everywhere.
        voxel_size_nm: (x, y, z).
        generator: from `seeded_generator`.

    Returns:
        None when the answer has no error.
    """
    wrong = truth != answer
    if known is not None:
        wrong &= known
    box = _bounding_box(wrong)
    if box is None:
        return None
    missing_or_extra = np.where(truth[box], 1, 2) * wrong[box]
    components = cc3d.connected_components(missing_or_extra.astype(np.uint8), connectivity=6)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest = components == sizes.argmax()
    inner = _bounding_box(largest)
    assert inner is not None, "an error has voxels"
    depth = _depth(largest[inner], voxel_size_nm)
    weights = np.where(largest[inner], np.exp(CENTRE_PULL * depth / depth.max()), 0.0)
    x, y, z = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
    position = _draw(weights, (x, y, z), generator)
    return Click(position, bool(truth[position]))


def simulate_clicks(
    answer: Callable[[Sequence[Click]], Mask],
    truth: Mask,
    known: Mask | None,
    voxel_size_nm: Sequence[float],
    generator: np.random.Generator,
    max_clicks: int = 20,
    always: int = 10,
    enough: float = 0.90,
) -> tuple[list[Click], list[float]]:
    """A session on one object: clicks and the IoU after each.

    Args:
        answer: gives the (X, Y, Z) mask for a list of clicks.
        truth: (X, Y, Z) the object.
        known: (X, Y, Z) where the truth is known; None: everywhere.
        voxel_size_nm: (x, y, z).
        generator: from `seeded_generator`.
        max_clicks: the session ends after so many clicks,
        always: and does not end before so many (unless the answer is perfect),
        enough: in between it ends once this IoU is reached.

    Returns:
        (clicks, IoU after each click), of one length.
    """
    clicks = [first_click(truth, voxel_size_nm, generator)]
    quality: list[float] = []
    while True:
        mask = answer(clicks)
        quality.append(mask_iou(truth, mask, known))
        done = len(clicks) >= always and max(quality) >= enough
        following = error_click(truth, mask, known, voxel_size_nm, generator)
        if done or following is None or len(clicks) >= max_clicks:
            return clicks, quality
        clicks.append(following)


def mask_iou(truth: Mask, answer: Mask, known: Mask | None = None) -> float:
    """Intersection over union of two masks on known voxels; 1 when both are empty."""
    if known is not None:
        truth, answer = truth & known, answer & known
    union = int(np.count_nonzero(truth | answer))
    return int(np.count_nonzero(truth & answer)) / union if union else 1.0


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds all True voxels; None without any."""
    planes = mask.any(axis=2)
    spans = [planes.any(axis=1), planes.any(axis=0), mask.any(axis=(0, 1))]
    box = []
    for span in spans:
        where = np.flatnonzero(span)
        if not len(where):
            return None
        box.append(slice(int(where[0]), int(where[-1]) + 1))
    return box[0], box[1], box[2]


def _depth(mask: Mask, voxel_size_nm: Sequence[float]) -> NDArray[np.float32]:
    """Distance to the mask's border, in nm; what lies outside the box counts as outside.

    Only axes longer than one voxel count: in a 2D image no voxel is deep in z.
    """
    if mask.shape[2] == 1:
        flat = edt.edt(mask[:, :, 0], anisotropy=tuple(voxel_size_nm[:2]), black_border=True)
        return np.asarray(flat, np.float32)[:, :, None]
    depth = edt.edt(mask, anisotropy=tuple(voxel_size_nm), black_border=True)
    return np.asarray(depth, np.float32)


def _draw(
    weights: NDArray[np.float64], box: tuple[slice, slice, slice], generator: np.random.Generator
) -> tuple[int, int, int]:
    """A voxel drawn in proportion to the weights, in the coordinates of the whole volume."""
    running = np.cumsum(weights.ravel())
    flat = int(np.searchsorted(running, generator.random() * running[-1], side="right"))
    x, y, z = np.unravel_index(flat, weights.shape)
    return box[0].start + int(x), box[1].start + int(y), box[2].start + int(z)
