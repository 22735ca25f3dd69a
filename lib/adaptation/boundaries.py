"""Where objects end, learned from marked objects: a head of the study's own.

What marks say of boundaries needs no painted membrane: a voxel that nobody labelled, close to two
objects, lies between them, and so do the rims of objects that touch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from lib.adaptation.stack import Stack
from lib.networks.study_heads import BOUNDARY, StudyHeads
from lib.prediction.boundary import has_thick_sections

REACH = 3.0
"""Voxels of the finest axis: two objects so close to a voxel have it between them."""
UNKNOWN, INSIDE, BETWEEN = -1, 0, 1
BATCH, RATE = 1024, 1e-2
LARGEST = 1 << 53
"""Above every id, and exact in the floats that SciPy's filters reckon in: the largest int64 is not,
and came back from them as the smallest."""


def boundary_targets(
    ids: NDArray[np.int64], unlabelled: NDArray[np.bool_], voxel_size_nm: Sequence[float]
) -> NDArray[np.int8]:
    """What marked objects say of boundaries.

    Args:
        ids: (X, Y, Z) objects, 0 surely none, negative unknown.
        unlabelled: (X, Y, Z) voxels of which nothing is known, not even a class.
        voxel_size_nm: (x, y, z); across thick sections, and across those that are marked one by
            one, nothing is asked.

    Returns:
        (X, Y, Z): BETWEEN two objects, INSIDE one, UNKNOWN.
    """
    within = has_thick_sections(voxel_size_nm) or not goes_on(ids)
    finest = min(voxel_size_nm)
    reach = [max(1, round(REACH * finest / v)) for v in voxel_size_nm]
    wide = [2 * r + 1 for r in reach]
    close = [3, 3, 3]
    if within:
        wide[2] = close[2] = 1
    known = ids > 0
    least = np.where(known, ids, LARGEST)
    most = np.where(known, ids, 0)

    def objects(size: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        low = ndimage.minimum_filter(least, size, mode="nearest")
        return low, ndimage.maximum_filter(most, size, mode="nearest")

    low, high = objects(wide)
    two, one = (high > 0) & (low != high), high > 0
    out = np.full(ids.shape, UNKNOWN, np.int8)
    out[(unlabelled & two) | ((ids == 0) & one)] = BETWEEN
    low, high = objects(close)
    touches = known & (low != high)
    whole = ndimage.minimum_filter(ids, close, mode="nearest") == ids
    out[known & whole & ~touches] = INSIDE
    out[touches] = BETWEEN
    return out


def goes_on(ids: NDArray[np.int64]) -> bool:
    """Whether any object goes on in the next section; else each is marked in one section."""
    return bool(((ids[..., 1:] > 0) & (ids[..., 1:] == ids[..., :-1])).any())


def fit_boundary(
    features: Tensor,
    between: Tensor,
    trains: Sequence[Tensor],
    steps: int,
    width: int,
    seed: int = 0,
    beside: int = 0,
) -> list[StudyHeads]:
    """Boundary heads from rows, one for each choice of rows; both kinds are drawn alike.

    Args:
        features: (N, F), filter responses last.
        between: (N,) bool.
        trains: (N,) bool each, the rows that a head learns from; some of both kinds.
        steps, width: of the optimiser and the hidden layer.
        seed: of every draw.
        beside: how many filter responses.

    Returns:
        modules without gradients.
    """
    stack = Stack(features, {BOUNDARY: 1}, len(trains), width, seed, beside)
    standard, truth = stack.standard(features), between.float()
    kinds = [[torch.nonzero(t & (between == kind))[:, 0] for kind in (False, True)] for t in trains]
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(stack.parameters, RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    with torch.enable_grad():
        for _ in range(steps):
            draws = torch.rand((2, BATCH // 2), generator=generator)
            index = torch.stack([
                torch.cat([k[(d * len(k)).long()] for k, d in zip(both, draws, strict=True)])
                for both in kinds
            ])  # fmt: skip
            logits = stack(standard[index])[..., 0]
            loss = functional.binary_cross_entropy_with_logits(
                logits, truth[index], reduction="none"
            ).mean(1)
            optimiser.zero_grad()
            torch.autograd.backward([loss.sum()])
            optimiser.step()
            schedule.step()
    return stack.modules()
