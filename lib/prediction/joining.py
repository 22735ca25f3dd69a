"""Do two fragments that touch belong to one cell? A probability for each contact of a graph.

A small network on the statistics of a contact, fitted on contacts whose truth is known. Its
answers are probabilities, so the same threshold fits images whose affinities differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lib.metrics.object_scores import contingency
from lib.networks.model import NeuropilNet
from lib.prediction.graph import COUNT, LEAST, MEAN, MOST, REACHES, SQUARES, FragmentGraph

FEATURES = 6 * len(REACHES) + 3
HIDDEN = 32
PURE = 0.7
"""A fragment is of the object that holds so much of its known voxels, else of none."""
PLAIN_SLOPE = 12.0
"""Without a fitted model: log odds for each unit of mean affinity above PLAIN_MIDDLE."""
PLAIN_MIDDLE = 0.7
LARGEST_LOGIT = 8.0


def join_features(graph: FragmentGraph) -> NDArray[np.float32]:
    """(E, FEATURES) what is known of each contact.

    By reach: mean, standard deviation, least and largest affinity, log of the number of pairs,
    and whether there are none. Then the logarithms of the smaller and the larger fragment's
    voxels, and how alike the classes of the two are (Bhattacharyya coefficient, 1 alike).
    """
    columns: list[NDArray[np.float64]] = []
    for reach in range(len(REACHES)):
        stats = graph.stats[:, reach]
        count, none = stats[:, COUNT], stats[:, COUNT] == 0
        spread = np.sqrt(np.maximum(stats[:, SQUARES], 0.0) / np.maximum(count, 1.0))
        for values in (stats[:, MEAN], spread, stats[:, LEAST], stats[:, MOST]):
            columns.append(np.where(none, 0.5, values))
        columns += [np.log1p(count), none.astype(np.float64)]
    sizes = graph.sizes[graph.edges]
    shares = np.sqrt(graph.votes / np.maximum(graph.sizes, 1)[:, None])
    columns += [np.log1p(sizes.min(1)), np.log1p(sizes.max(1))]
    columns.append((shares[graph.edges[:, 0]] * shares[graph.edges[:, 1]]).sum(1))
    return np.stack(columns, 1).astype(np.float32)


@dataclass(frozen=True)
class JoinModel:
    """Log odds that the two fragments of a contact belong together.

    Args:
        layers: (weight, bias) of each layer, ReLU between them; without layers the mean
            affinity alone decides.
        shift, scale: of the features, before the first layer.
        slope, offset: calibration on top: slope * log odds + offset.
    """

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...] = ()
    shift: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    slope: float = 1.0
    offset: float = 0.0

    def logits(self, graph: FragmentGraph) -> NDArray[np.float64]:
        """(E,) log odds of "together", within +-LARGEST_LOGIT."""
        return self.calibrated(self.raw(graph))

    def raw(self, graph: FragmentGraph) -> NDArray[np.float64]:
        """(E,) the same before any calibration."""
        if not self.layers:
            return np.asarray(PLAIN_SLOPE * (graph.mean_affinity() - PLAIN_MIDDLE))
        assert self.shift is not None and self.scale is not None
        values = (join_features(graph) - self.shift) / self.scale
        for i, (weight, bias) in enumerate(self.layers):
            values = values @ weight.T + bias
            if i + 1 < len(self.layers):
                values = np.maximum(values, 0.0)
        return values[:, 0].astype(np.float64)

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(E,) log odds of what `raw` gave."""
        return np.asarray(np.clip(self.slope * raw + self.offset, -LARGEST_LOGIT, LARGEST_LOGIT))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as weights files and study heads keep them."""
        assert self.shift is not None and self.scale is not None
        return {
            "layers": [[w.tolist(), b.tolist()] for w, b in self.layers],
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "slope": self.slope,
            "offset": self.offset,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> JoinModel:
        """The model of `to_dict`.

        Raises:
            ValueError: it is for other features than this version computes.
        """
        layers = tuple(
            (np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in data["layers"]
        )
        if layers[0][0].shape[1] != FEATURES:
            raise ValueError(
                f"join model for {layers[0][0].shape[1]} features of a contact, this version "
                f"has {FEATURES}; fit it again with benchmarks/fit_joining.py"
            )
        shift, scale = (np.asarray(data[k], np.float32) for k in ("shift", "scale"))
        return JoinModel(layers, shift, scale, float(data["slope"]), float(data["offset"]))


PLAIN = JoinModel()
"""Mean affinity alone."""


def joining_of(net: NeuropilNet) -> JoinModel:
    """The model that goes with a network's weights; the plain one where none was fitted."""
    data = getattr(net, "joining", None)
    return PLAIN if data is None else JoinModel.from_dict(data)


@dataclass(frozen=True)
class KnownJoins:
    """A graph and what labels say of its contacts.

    Args:
        graph: of a volume.
        together: (E,) int8: 1 one object, 0 two, -1 not known.
    """

    graph: FragmentGraph
    together: NDArray[np.int8]


def known_joins(
    graph: FragmentGraph,
    fragments: NDArray[np.uint32],
    labels: NDArray[np.int64],
    class_sets: NDArray[np.int32] | None = None,
) -> KnownJoins:
    """What labels say of a graph's contacts.

    Args:
        graph: of the volume.
        fragments: (X, Y, Z) ids.
        labels: (X, Y, Z) true ids of cells; 0 no object and negative unknown: a fragment that
            lies mostly there says nothing.
        class_sets: (X, Y, Z) bit masks of the classes that a cell can have, 0 where nothing
            is known: fragments whose sets rule each other out are of two cells, an axon and
            its myelin for instance. None: objects alone decide.
    """
    owner = owners(graph.count, fragments, labels)
    one, other = owner[graph.edges[:, 0]], owner[graph.edges[:, 1]]
    together = np.where((one > 0) & (other > 0), one == other, -1)
    if class_sets is not None:
        sets = owners(graph.count, fragments, class_sets.astype(np.int64))
        one, other = sets[graph.edges[:, 0]], sets[graph.edges[:, 1]]
        together[(one > 0) & (other > 0) & ((one & other) == 0)] = 0
    return KnownJoins(graph, together.astype(np.int8))


def owners(
    count: int, fragments: NDArray[np.uint32], labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(count + 1,) the object that holds most of each fragment's labelled voxels, 0 none."""
    table = contingency(labels, fragments)  # unknown voxels are left out
    known, best, most = (np.zeros(count + 1, np.int64) for _ in range(3))
    np.add.at(known, table.guess, table.counts)
    order = np.argsort(table.counts, kind="stable")
    best[table.guess[order]] = table.truth[order]
    most[table.guess[order]] = table.counts[order]
    best[(most < PURE * known) | (np.arange(count + 1) == 0)] = 0
    return best


def fit_joining(
    known: Sequence[KnownJoins], steps: int = 1500, batch: int = 2048, seed: int = 0
) -> JoinModel:
    """Fit a model to contacts whose truth is known, every graph weighing alike.

    A contact weighs by the square root of its pairs: large contacts decide more voxels, and
    are rarer.

    Args:
        known: of several volumes.
        steps: of Adam, at a cosine rate from 3e-3.
        batch: contacts of a step.
        seed: of weights and batches.

    Raises:
        ValueError: no known contact.
    """
    rows, truths, weights = [], [], []
    for each in known:
        use = each.together >= 0
        weight = np.sqrt(each.graph.contact[use])
        rows.append(join_features(each.graph)[use])
        truths.append(each.together[use])
        weights.append(weight / max(float(weight.sum()), 1e-9))
    features = np.concatenate(rows) if rows else np.zeros((0, FEATURES), np.float32)
    if not len(features):
        raise ValueError("no contact of two fragments with known objects to fit to")
    shift, scale = features.mean(0), features.std(0) + 1e-3
    generator = torch.Generator().manual_seed(seed)
    net = _network(seed)
    x = torch.from_numpy((features - shift) / scale)
    y = torch.from_numpy(np.concatenate(truths).astype(np.float32))
    w = torch.from_numpy(np.concatenate(weights).astype(np.float32))
    w = w / w.mean()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        pick = torch.randint(len(x), (batch,), generator=generator)
        loss = functional.binary_cross_entropy_with_logits(net(x[pick])[:, 0], y[pick], w[pick])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    layers = tuple(
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in net
        if isinstance(layer, nn.Linear)
    )
    return JoinModel(layers, shift.astype(np.float32), scale.astype(np.float32))


def calibrated(model: JoinModel, known: Sequence[KnownJoins], prior: float = 20.0) -> JoinModel:
    """The model with slope and offset fitted to a study's own contacts.

    Args:
        model: fitted elsewhere.
        known: of the study.
        prior: how many contacts the present slope and offset are worth.

    Source: Platt 1999, with a Gaussian prior at the present calibration.
    """
    plain = replace(model, slope=1.0, offset=0.0)
    logits, truth = [], []
    for each in known:
        use = each.together >= 0
        logits.append(plain.logits(each.graph)[use])
        truth.append(each.together[use])
    x = torch.from_numpy(np.concatenate(logits)) if logits else torch.zeros(0)
    y = torch.from_numpy(np.concatenate(truth).astype(np.float64)) if truth else torch.zeros(0)
    start = torch.tensor([model.slope, model.offset], dtype=torch.float64)
    found = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([found], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        fit = functional.binary_cross_entropy_with_logits(
            found[0] * x + found[1], y, reduction="sum"
        )
        total = fit + prior / 8 * ((found - start) ** 2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    if len(x):
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    slope, offset = (float(v) for v in found.detach())
    return replace(model, slope=max(slope, 0.05), offset=offset)


def _network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(FEATURES, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        )
