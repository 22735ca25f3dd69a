"""How a figure varies over sections, objects or sessions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and quartiles of a figure over its cases."""

    count: int
    mean: float
    std: float
    min: float
    q1: float
    median: float
    q3: float
    max: float

    def to_dict(self) -> dict[str, float]:
        """JSON form."""
        return {k: v if k == "count" else round(v, 6) for k, v in asdict(self).items()}


def spread_of(values: Iterable[float]) -> Spread | None:
    """The spread of the values that are numbers; None where there is none."""
    found = np.array([v for v in values if not math.isnan(v)], np.float64)
    if not len(found):
        return None
    low, q1, median, q3, high = (float(v) for v in np.quantile(found, (0, 0.25, 0.5, 0.75, 1)))
    return Spread(len(found), float(found.mean()), float(found.std()), low, q1, median, q3, high)
