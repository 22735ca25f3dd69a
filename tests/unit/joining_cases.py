"""Fragment graphs of tests."""

from __future__ import annotations

import numpy as np

from lib.prediction.graph import COUNT, LEAST, MEAN, MOST, FragmentGraph


def chain(means: list[float], pairs: int = 10, sizes: int = 100) -> FragmentGraph:
    """Fragments in a row; the contacts' mean affinities."""
    count = len(means) + 1
    edges = np.stack([np.arange(1, count), np.arange(2, count + 1)], 1)
    stats = np.zeros((len(means), 4, 5))
    stats[:, 0, COUNT] = pairs
    for column in (MEAN, LEAST, MOST):
        stats[:, 0, column] = means
    votes = np.zeros((count + 1, 13), np.int64)
    votes[1:, 4] = sizes
    return FragmentGraph(edges, stats, votes)
