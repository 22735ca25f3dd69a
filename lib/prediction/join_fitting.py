"""Fit a join model to contacts whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import block_diag
from torch import Tensor, nn
from torch.nn import functional

from lib.metrics.object_scores import contingency
from lib.prediction.graph import FragmentGraph
from lib.prediction.joining import FEATURES, JoinModel, clusters, join_features, odds
from lib.prediction.perceptron import Perceptron

Layers = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
"""Weight and bias of each layer."""

HIDDEN = 32
MEMBERS = 3
"""Networks whose log odds are averaged: fits from other seeds err in other places."""
PURE = 0.7
"""A fragment is of the object that holds so much of its known voxels, else of none; a contact of
clusters is what so much of it is known to be."""


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
    known: Sequence[KnownJoins],
    steps: int = 1000,
    batch: int = 2048,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> JoinModel:
    """Fit a model to contacts whose truth is known.

    Args:
        known: of several volumes.
        steps: of Adam, at a cosine rate from 3e-3; more of them learn these volumes by heart.
        batch: contacts of a step.
        seed: of weights and batches.
        groups: the data set of each volume; a set's say grows with the root of the contacts that
            it knows, shared alike among its volumes. None: all are of one.

    Raises:
        ValueError: no known contact.
    """
    if not any((each.together >= 0).any() for each in known):
        raise ValueError("no contact of two fragments with known objects to fit to")
    names = list(groups or ["all"] * len(known))
    told = np.array([int((each.together >= 0).sum()) for each in known])
    of_set = {name: told[[n == name for n in names]].sum() for name in names}
    shares = [float(of_set[name] ** 0.5 / names.count(name)) for name in names]
    first = _fit(known, shares, steps, batch, seed)
    joined = [clustered(each, clusters(each.graph, odds(first, each.graph))) for each in known]
    if not any((each.together >= 0).any() for each in joined):
        return JoinModel(first)
    return JoinModel(first, _fit(joined, shares, steps, batch, seed + MEMBERS))


def clustered(known: KnownJoins, cells: NDArray[np.int64]) -> KnownJoins:
    """What is known of the contacts of clusters, from those of their fragments.

    Args:
        known: of fragments.
        cells: (N + 1,) cluster of each fragment, without gaps.
    """
    graph, between, index = known.graph.contracted(cells)
    truth, contact = known.together[between], known.graph.contact[between]
    count = len(graph.edges)
    one = np.bincount(index, contact * (truth == 1), count)
    two = np.bincount(index, contact * (truth == 0), count)
    least = PURE * (one + two)
    told = (one + two) > 0
    together = np.select([told & (one >= least), told & (two >= least)], [1, 0], -1)
    return KnownJoins(graph, together.astype(np.int8))


def _fit(
    known: Sequence[KnownJoins], shares: Sequence[float], steps: int, batch: int, seed: int
) -> Perceptron:
    """A contact weighs by the root of its pairs: large ones decide more voxels, and are rarer."""
    rows, truths, weights = [], [], []
    for each, share in zip(known, shares, strict=True):
        use = each.together >= 0
        weight = np.sqrt(each.graph.contact[use])
        rows.append(join_features(each.graph)[use])
        truths.append(each.together[use])
        weights.append(share * weight / max(float(weight.sum()), 1e-9))
    features = np.concatenate(rows)
    shift, scale = features.mean(0), features.std(0) + 1e-3
    x = torch.from_numpy((features - shift) / scale)
    y = torch.from_numpy(np.concatenate(truths).astype(np.float32))
    w = torch.from_numpy(np.concatenate(weights).astype(np.float32))
    w = w / w.mean()

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        pick = torch.randint(len(x), (batch,), generator=generator)
        return functional.binary_cross_entropy_with_logits(net(x[pick])[:, 0], y[pick], w[pick])

    members = [fitted_layers(FEATURES, loss, steps, seed + n) for n in range(MEMBERS)]
    return Perceptron(averaged(members), shift.astype(np.float32), scale.astype(np.float32))


def fitted_layers(
    width: int,
    loss: Callable[[nn.Module, torch.Generator], Tensor],
    steps: int,
    seed: int,
    decay: float = 1e-3,
) -> Layers:
    """The layers of a small network that makes a loss as small as it gets.

    Args:
        width: features of a row.
        loss: of the network on a batch that it draws.
        steps: of AdamW, at a cosine rate from 3e-3.
        seed: of weights and batches.
        decay: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    net = _network(width, seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(net, generator).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return tuple(
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in net
        if isinstance(layer, nn.Linear)
    )


def averaged(members: Sequence[Layers]) -> Layers:
    """The layers of one network whose output is the mean of several of the same depth.

    Args:
        members: (weight, bias) of each layer of each network, ReLU between them.
    """
    made: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for depth, layer in enumerate(zip(*members, strict=True)):
        weights, biases = zip(*layer, strict=True)
        if depth == 0:  # all see the same
            made.append((np.concatenate(weights), np.concatenate(biases)))
        elif depth < len(members[0]) - 1:  # each goes on from its own
            made.append((block_diag(*weights).astype(np.float32), np.concatenate(biases)))
        else:
            share = np.float32(1.0 / len(members))
            made.append((np.concatenate(weights, 1) * share, np.sum(biases, 0) * share))
    return tuple(made)


def _network(width: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(width, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        )
