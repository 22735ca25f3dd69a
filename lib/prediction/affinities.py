"""Affinities: do two voxels a fixed offset apart belong together?

A network with an affinity head says so itself: 2 p - 1 for the probability p of one cell
(lib/networks/pair_logits.py). For other networks and other offsets an affinity is 1 - distance /
margin of the embeddings, clipped to [-1, 1]: 1 for equal ones, 0 at the margin, negative
beyond. Both signs count: the grouping joins by positive affinities and keeps apart by
negative ones.

Source: Luther & Seung 2019, Lee et al. 2021 (embedding distances as affinities, nearest and
    long-range); Wolf et al. 2018 (mutex watershed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.pair_logits import offset_logits
from lib.targets.cells import affinity_offsets, pair_ends
from lib.targets.pairs import Offset

SHEATH = "myelin"
HEARD = 3.0
"""A boundary head has its full say where the network gives a boundary a third or more; chosen on
training boxes that the joins were not fitted to (benchmarks/boundaries.md)."""


def pair_affinities(
    embedding: Tensor,
    offsets: Sequence[Offset],
    margin: float,
    correction: Tensor | None = None,
    voxel_size_nm: Sequence[float] = (),
) -> Tensor:
    """Affinities of all pairs: what the affinity head says, of other offsets the embedding.

    Args:
        embedding: (B, E, X, Y, Z).
        offsets: partner of voxel v is v + offset; components are not negative.
        margin: see `embedding_affinities`.
        correction: (B, PAIR_CHANNELS, X, Y, Z) of an affinity head, if there is one.
        voxel_size_nm: (x, y, z), by which the head's partners are known; with `correction`.

    Returns:
        (B, A, X, Y, Z) in [-1, 1]; 0 where the partner lies outside.
    """
    affinities = embedding_affinities(embedding, offsets, margin)
    if correction is not None:
        learned = affinity_offsets(voxel_size_nm)
        for channel, offset in enumerate(offsets):
            if offset in learned:
                for own, points, out in zip(correction, embedding, affinities, strict=True):
                    logits = offset_logits(own[learned.index(offset)], points, offset)
                    inside, _ = pair_ends(logits, offset)
                    pair_ends(out[channel], offset)[0].copy_(2.0 * inside.sigmoid() - 1.0)
    return affinities


def kinds_apart(
    affinities: Tensor,
    probabilities: Tensor,
    offsets: Sequence[Offset],
    hierarchy: LabelHierarchy,
    inference: InferenceSettings,
) -> Tensor:
    """Affinities (B, A, X, Y, Z), changed in place: less where the kinds of a pair differ.

    Objects of different kinds (an axon and its myelin) need not have embeddings far apart,
    since the instance loss may run for each class by itself; their classes keep them apart.

    Args:
        affinities: in [-1, 1].
        probabilities: (B, C, X, Y, Z) of the fine classes.
        offsets: partner of voxel v is v + offset; components are not negative.
        hierarchy: of the network; classes of one group are of one kind.
        inference: `class_weight` and `sheath_weight`.
    """
    pushes = (
        (inference.class_weight, hierarchy),
        (inference.sheath_weight, sheath_and_rest(hierarchy)),
    )
    for weight, told_apart in pushes:
        if weight > 0 and told_apart.num_groups != 1:
            _push_apart(affinities, weight, kind_probabilities(probabilities, told_apart), offsets)
    return affinities


def _push_apart(
    affinities: Tensor, weight: float, kinds: Tensor, offsets: Sequence[Offset]
) -> None:
    """Take from affinities (B, A, X, Y, Z) what the kinds (B, K, X, Y, Z) of a pair differ by."""
    for channel, here, there in _pairs(kinds.sqrt(), offsets):
        # Bhattacharyya: 1 for equal distributions, however vague; 0 for different kinds
        unlike = 1.0 - (here * there).sum(1)
        x, y, z = unlike.shape[1:]
        pair = affinities[:, channel, :x, :y, :z]
        pair.sub_(weight * unlike).clamp_(min=-1.0)


def sheath_and_rest(hierarchy: LabelHierarchy) -> LabelHierarchy:
    """The hierarchy with two groups: what myelin is in, and everything else.

    An axon and its sheath are two objects, however faint the boundary between them. Other kinds
    are not told apart so surely, and say nothing here.
    """
    sheath = sheath_classes(hierarchy)
    rest = tuple(c for c in range(hierarchy.num_classes) if c not in sheath)
    groups = [("the sheath", sheath), ("all else", rest)]
    return LabelHierarchy(hierarchy.classes, tuple(g for g in groups if g[1]))


def sheath_classes(hierarchy: LabelHierarchy) -> tuple[int, ...]:
    """Myelin and what is in its group; nothing where the hierarchy has no such group."""
    names = hierarchy.class_names
    return next((m for _, m in hierarchy.groups if SHEATH in [names[c] for c in m]), ())


def boundary_affinities(boundary: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """Affinities of pairs from where the boundaries are: the surest one between two voxels counts.

    Args:
        boundary: (B, 1, X, Y, Z) log odds that a voxel lies between two objects.
        offsets: partner of voxel v is v + offset; along one axis each, components not negative.

    Returns:
        (B, A, X, Y, Z) in [-1, 1]; 0 where the partner lies outside.

    Source: Beier et al. 2017 (lifted edges weighed by the boundary evidence along a line).
    """
    open_way = 1.0 - 2.0 * boundary[:, 0].sigmoid()
    out = boundary.new_zeros((boundary.shape[0], len(offsets), *boundary.shape[2:]))
    for channel, offset in enumerate(offsets):
        inside, _ = pair_ends(out[:, channel], offset)
        if inside.numel() == 0:
            continue
        axis = max(range(3), key=lambda a: offset[a])
        ways = open_way.unfold(axis + 1, offset[axis] + 1, 1)
        inside.copy_(ways.amin(-1))
    return out


def said_by_both(network: Tensor, boundary: Tensor) -> Tensor:
    """Affinities by the network and by a boundary head, of the same pairs.

    The two miss boundaries in different places, and a missed one merges two cells for good: what
    keeps a pair apart more counts. But the head sees textures for membranes in tissue that it was
    not fitted to, so it is heard the less the surer the network is that there is none.

    Args:
        network, boundary: of one shape, in [-1, 1].
    """
    apart, other = (1.0 - network) / 2.0, (1.0 - boundary) / 2.0
    heard = (HEARD * apart).clamp(max=1.0)
    return 1.0 - 2.0 * torch.maximum(apart, other * heard)


def kind_probabilities(probabilities: Tensor, hierarchy: LabelHierarchy) -> Tensor:
    """(B, K', X, Y, Z) probabilities of the groups, and of each class that is in no group."""
    first_group = torch.full((hierarchy.num_classes,), -1)
    for k in reversed(range(hierarchy.num_groups)):
        first_group[list(hierarchy.groups[k][1])] = k
    alone = (first_group < 0).cumsum(0) - 1 + hierarchy.num_groups
    kind = torch.where(first_group < 0, alone, first_group).to(probabilities.device)
    shape = (probabilities.shape[0], int(kind.max()) + 1, *probabilities.shape[2:])
    return probabilities.new_zeros(shape).index_add_(1, kind, probabilities)


def embedding_affinities(embedding: Tensor, offsets: Sequence[Offset], margin: float) -> Tensor:
    """Affinities of all pairs in a batch of windows.

    Args:
        embedding: (B, E, X, Y, Z).
        offsets: partner of voxel v is v + offset; components are not negative.
        margin: embedding distance at which a pair is undecided.

    Returns:
        (B, A, X, Y, Z) in [-1, 1]; 0 where the partner lies outside.
    """
    out = embedding.new_zeros((embedding.shape[0], len(offsets), *embedding.shape[2:]))
    for channel, here, there in _pairs(embedding, offsets):
        distance = torch.linalg.vector_norm(here - there, dim=1)
        x, y, z = distance.shape[1:]
        out[:, channel, :x, :y, :z] = (1.0 - distance / margin).clamp(-1.0, 1.0)
    return out


def _pairs(values: Tensor, offsets: Sequence[Offset]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(channel, first voxels, second voxels) of the pairs that lie inside."""
    for channel, (dx, dy, dz) in enumerate(offsets):
        x, y, z = (n - d for n, d in zip(values.shape[2:], (dx, dy, dz), strict=True))
        if min(x, y, z) > 0:
            yield channel, values[:, :, :x, :y, :z], values[:, :, dx:, dy:, dz:]


def mirrored_correction(
    correction: Tensor, axes: Sequence[int], voxel_size_nm: Sequence[float]
) -> Tensor:
    """The affinity head's output for a mirrored view, on the voxels whose pairs they speak of.

    Mirrored along an axis, the partner along it lies before the voxel instead of after it.

    Args:
        correction: (B, PAIR_CHANNELS, X, Y, Z) of the mirrored image, already turned back.
        axes: that were mirrored, of the five.
        voxel_size_nm: (x, y, z).

    Returns:
        As `correction`; 0 where the partner lies outside.
    """
    out = correction.clone()
    for channel, offset in enumerate(affinity_offsets(voxel_size_nm)):
        if any(offset[axis - 2] for axis in axes):
            _, values = pair_ends(correction[:, channel], offset)
            out[:, channel] = 0.0
            pair_ends(out[:, channel], offset)[0].copy_(values)
    return out
