"""Do two fragments that touch belong to one cell? A probability for each contact of a graph.

Two small networks on the statistics of a contact, fitted on contacts whose truth is known. The
first looks at fragments, and what it is sure of makes clusters; the second looks at the contacts
of these, whose evidence is the sum of many. Their answers are probabilities, so the same
threshold fits images whose affinities differ.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.networks.model import NeuropilNet
from lib.prediction.agglomeration import agglomerate
from lib.prediction.graph import (
    COUNT,
    LEAST,
    MEAN,
    MOST,
    REACHES,
    SQUARES,
    FragmentGraph,
    portions,
)
from lib.prediction.perceptron import LARGEST_LOGIT, Perceptron
from lib.prediction.scratch import forget

logger = logging.getLogger("neuropil.prediction")

FEATURES = 6 * len(REACHES) + 8
PLAIN_SLOPE = 12.0
"""Without a fitted model: log odds for each unit of mean affinity above PLAIN_MIDDLE."""
PLAIN_MIDDLE = 0.7
CAUTION = 1.8
"""Log odds taken from every contact before fragments are joined to clusters."""
WITHIN = 0.5
"""Least log odds of a contact inside a cluster, which its other contacts have spoken for."""


def join_features(graph: FragmentGraph, rows: slice = slice(None)) -> NDArray[np.float32]:
    """(E, FEATURES) what is known of each contact.

    By reach: mean, standard deviation, least and largest affinity, log of the number of pairs,
    and whether there are none. Then the logarithms of the smaller and the larger fragment's
    voxels, and how alike the classes of the two are (Bhattacharyya coefficient, 1 alike). Then
    how much there is of the contact: its share of all that the smaller touches, and the larger,
    the logarithm of its pairs, and how much either touches for its size.

    Args:
        rows: the contacts that are asked for.
    """
    edges, contact = graph.edges[rows], graph.contact[rows]
    columns: list[NDArray[np.float64]] = []
    for reach in range(len(REACHES)):
        stats = graph.stats[rows, reach]
        count, none = stats[:, COUNT], stats[:, COUNT] == 0
        spread = np.sqrt(np.maximum(stats[:, SQUARES], 0.0) / np.maximum(count, 1.0))
        for values in (stats[:, MEAN], spread, stats[:, LEAST], stats[:, MOST]):
            columns.append(np.where(none, 0.5, values))
        columns += [np.log1p(count), none.astype(np.float64)]
    votes = graph.votes[edges]
    sizes = votes.sum(2)
    columns += [np.log1p(sizes.min(1)), np.log1p(sizes.max(1))]
    shares = np.sqrt(votes / np.maximum(sizes, 1)[..., None])
    columns.append((shares[:, 0] * shares[:, 1]).sum(1))
    by_size = np.take_along_axis(graph.touched[edges], sizes.argsort(1, kind="stable"), 1)
    columns += [contact / by_size[:, 0], contact / by_size[:, 1], np.log1p(contact)]
    surface = 2.0 / 3.0 * np.log1p(np.sort(sizes, 1))  # of a ball of that size, but for a constant
    columns += list((np.log1p(by_size) - surface).T)
    forget(graph.stats)
    return np.stack(columns, 1).astype(np.float32)


def odds(judge: Perceptron, graph: FragmentGraph) -> NDArray[np.float64]:
    """(E,) log odds of all contacts of a graph, whose features are never held at once."""
    logits = np.zeros(len(graph.edges))
    for rows in portions(len(logits)):
        logits[rows] = judge(join_features(graph, rows))
    return logits


@dataclass(frozen=True)
class JoinModel:
    """Log odds that the two fragments of a contact belong together.

    Args:
        first: of the contacts of fragments; None: the mean affinity alone decides.
        second: of the contacts of the clusters that the first one makes; None: it has the say.
        slope, offset: calibration on top: slope * log odds + offset.
    """

    first: Perceptron | None = None
    second: Perceptron | None = None
    slope: float = 1.0
    offset: float = 0.0

    def logits(self, graph: FragmentGraph) -> NDArray[np.float64]:
        """(E,) log odds of "together", within +-LARGEST_LOGIT."""
        return self.calibrated(self.raw(graph))

    def raw(self, graph: FragmentGraph) -> NDArray[np.float64]:
        """(E,) the same before any calibration."""
        if self.first is None:
            return np.asarray(PLAIN_SLOPE * (graph.mean_affinity() - PLAIN_MIDDLE))
        logits = odds(self.first, graph)
        if self.second is None or not len(graph.edges):
            return logits
        clustered, between, index = graph.contracted(clusters(graph, logits))
        if len(clustered.edges):
            logits = np.where(between, logits, np.maximum(logits, WITHIN))
            logits[between] = odds(self.second, clustered)[index]
        return logits

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(E,) log odds of what `raw` gave."""
        return np.asarray(np.clip(self.slope * raw + self.offset, -LARGEST_LOGIT, LARGEST_LOGIT))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as weights files and study heads keep them."""
        assert self.first is not None, "the plain model is not kept"
        return {
            "first": self.first.to_dict(),
            "second": None if self.second is None else self.second.to_dict(),
            "slope": self.slope,
            "offset": self.offset,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> JoinModel:
        """The model of `to_dict`; also of a file from before there were two.

        Raises:
            ValueError: it is for other features than this version computes.
        """
        second = data.get("second")
        return JoinModel(
            _of_this_version(data.get("first", data)),
            None if second is None else _of_this_version(second),
            float(data["slope"]),
            float(data["offset"]),
        )


PLAIN = JoinModel()
"""Mean affinity alone."""


def _of_this_version(data: Mapping[str, Any]) -> Perceptron:
    found = Perceptron.from_dict(data)
    if found.width != FEATURES:
        raise ValueError(
            f"join model for {found.width} features of a contact, this version "
            f"has {FEATURES}; fit it again with benchmarks/fit_joining.py"
        )
    return found


def clusters(graph: FragmentGraph, logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N + 1,) what the first model is sure of: the cluster of each fragment."""
    return agglomerate(graph, np.clip(logits - CAUTION, -LARGEST_LOGIT, LARGEST_LOGIT))


def joining_of(net: NeuropilNet) -> JoinModel:
    """The model that goes with a network's weights.

    The plain one where none was fitted, and, with a warning, where it is of another version.
    """
    data = getattr(net, "joining", None)
    if data is None:
        return PLAIN
    try:
        return JoinModel.from_dict(data)
    except ValueError as error:
        logger.warning("objects are joined by their mean affinity alone: %s", error)
        return PLAIN
