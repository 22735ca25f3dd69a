"""What marked objects of a study teach the grouping: boundaries, and how fragments join.

A boundary head sees filter responses beside the network's features. It is judged on what it did
not see without a second network pass: each half of the marks is grouped by the head that was
fitted to the other half.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.adaptation.boundaries import BETWEEN, INSIDE, boundary_targets, fit_boundary, goes_on
from lib.adaptation.network import Network, data_item
from lib.adaptation.objects import (
    Annotated,
    Arm,
    LearnedObjects,
    annotated,
    best_joining,
    learn_objects,
    longer_axes,
    middles,
)
from lib.configs.settings import AdaptationSettings
from lib.data.items import DataItem
from lib.networks.study_heads import StudyHeads, together
from lib.prediction.evidence import Way, boundary_of, collect_ways
from lib.prediction.features import FeatureSource, Shelf
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.forward import window_size
from lib.prediction.grouping import group_volume
from lib.prediction.scratch import Scratch
from lib.prediction.window_grid import window_grid
from lib.volumes.boxes import box_slices
from lib.volumes.contrast import LazyImage
from lib.volumes.study import StudyItem

GAP = 5.0
"""Voxels of the halves' border that teach neither."""
ROWS = 6000
"""Of each kind, of one window, at most."""


@dataclass(frozen=True)
class Marks:
    """An item with marked objects, in the network's frame.

    Args:
        name: of the item.
        image: (X, Y, Z), lazy.
        voxel_size_nm: (x, y, z).
        ids: (X, Y, Z) objects, 0 none, -1 unknown.
        sets: (X, Y, Z) class sets.
        sectionwise: the ids say nothing of what belongs together across sections.
        axis, middle: the plane that halves the objects.
        shelf: where features are kept.
    """

    name: str
    image: LazyImage
    voxel_size_nm: tuple[float, float, float]
    ids: NDArray[np.int64]
    sets: NDArray[np.int32]
    sectionwise: bool
    axis: int
    middle: float
    shelf: Shelf | None

    def side(self) -> NDArray[np.float64]:
        """Signed distance to the plane, in voxels, broadcast along the other axes."""
        shape = [1, 1, 1]
        shape[self.axis] = -1
        return (np.arange(self.ids.shape[self.axis]) - self.middle).reshape(shape)


def marks_of(
    items: Sequence[StudyItem],
    network: Network,
    most_voxels: int,
    shelf: Callable[[StudyItem], Shelf | None],
) -> list[Marks]:
    """The items in which objects are marked, as long as they have no more voxels together."""
    found: list[Marks] = []
    for item in items:
        if not item.has_label("instance"):
            continue
        data = data_item(item, network)
        if math.prod(data.shape) <= most_voxels:
            marks = _marks(data, shelf(item))
            if marks is not None:
                most_voxels -= math.prod(data.shape)
                found.append(marks)
    return found


def _marks(data: DataItem, shelf: Shelf | None) -> Marks | None:
    labels = data.load_labels()
    ids = labels.ids.astype(np.int64)
    numbers, middle = middles(ids)
    if len(numbers) < 2:
        return None
    axis = int(longer_axes(middle)[0])
    item = cast(StudyItem, data.source)
    return Marks(
        data.id, data.frame.view(item.open_image()), data.voxel_size_nm, ids,
        labels.palette[labels.codes], _sectionwise(data, ids), axis,
        float(np.median(middle[:, axis])), shelf,
    )  # fmt: skip


def _sectionwise(data: DataItem, ids: NDArray[np.int64]) -> bool:
    """Whether numbers hold within a section: declared, or no object goes on in the next one."""
    return not data.flat and not (data.true_instances and goes_on(ids))


@dataclass(frozen=True)
class Grouping:
    """What was learned about a study's objects.

    Args:
        learned: figures, and how fragments join.
        heads: study heads that the grouping uses; None: the published network alone.
    """

    learned: LearnedObjects
    heads: StudyHeads | None


def learn_grouping(
    marks: Sequence[Marks],
    network: Network,
    heads: StudyHeads | None,
    settings: AdaptationSettings,
) -> Grouping:
    """Learn boundaries and joins from marked objects; the classes' heads are used if they help.

    Args:
        marks: of the study's items.
        network: the published network.
        heads: of the classes, in use; None: none are.
        settings: of the refit.
    """
    crumb = network.inference.min_object_voxels
    published = boundary_of(network.net)
    names, ways, uses = [""], [Way(None, published)], [cast(StudyHeads | None, None)]
    if heads is not None:
        names, uses = [*names, "classes"], [*uses, heads]
        ways.append(Way(heads, published))
    boundary = _fitted(marks, network, settings)
    if boundary is not None:
        lower, upper, whole = boundary
        names.append("the marks")
        uses.append(whole if heads is None else together(heads, whole))
        ways += [Way(heads, upper), Way(heads, lower), Way(heads, whole)]
    found = [_volumes(m, network, ways, len(names)) for m in marks]
    arms = [Arm(name, list(v)) for name, v in zip(names, zip(*found, strict=True), strict=False)]
    learned = learn_objects(arms, network.joining, network.hierarchy, crumb)
    if learned.used and boundary is not None and learned.arm == len(arms) - 1:
        # Fragments of the head that is used differ a little from those that judged it.
        final = Arm("", [volumes[-1] for volumes in found])
        how = best_joining(learned, final, network.joining, network.hierarchy, crumb)
        learned = replace(learned, joining=how)
    if not learned.objects or learned.reason.endswith("to tell"):
        return Grouping(learned, heads)
    return Grouping(learned, uses[learned.arm] if learned.used else None)


def _volumes(marks: Marks, network: Network, ways: Sequence[Way], arms: int) -> list[Annotated]:
    """The fragments of each arm, and those by the head of all marks where there is one.

    Args:
        ways: of the arms; where boundaries are learned, the last arm's are those of the head
            of the upper half, then of the lower half, which say what they did not see, and of
            the head of all marks.
        arms: how many.
    """
    inference, hierarchy = network.inference, network.hierarchy
    with Scratch(inference.tile_bytes) as scratch:
        evidence = collect_ways(
            network.net, ways, marks.image, marks.voxel_size_nm, inference, hierarchy, scratch,
            shelf=marks.shelf,
        )  # fmt: skip
        if len(ways) > arms:
            below, beyond, _ = evidence[arms - 1 :]
            other = np.broadcast_to(marks.side() > 0, below.shape)
            for own, theirs in zip(below.affinities, beyond.affinities, strict=True):
                own[other] = theirs[other]
            del evidence[arms]
        grouped = [
            group_volume(each, marks.voxel_size_nm, inference, network.call) for each in evidence
        ]
    return [
        annotated(g.graph, g.ids, marks.ids, marks.sets, hierarchy, marks.sectionwise)
        for g in grouped
    ]


def _fitted(
    marks: Sequence[Marks], network: Network, settings: AdaptationSettings
) -> list[StudyHeads] | None:
    """Boundary heads of the lower half of the marks, of the upper one, and of all."""
    rows = [_rows(m, network) for m in marks]
    features, between, side = (
        torch.cat([r[i] for r in rows]) if rows else torch.zeros(0) for i in range(3)
    )
    choices = [side < -GAP, side > GAP, torch.ones(len(side), dtype=torch.bool)]
    kinds = [bool((between[c] == k).any()) for c in choices for k in (False, True)]
    if not kinds or not all(kinds):
        return None
    steps, width = settings.steps, settings.width
    return fit_boundary(features, between, choices, steps, width, beside=FILTERS)


def _rows(marks: Marks, network: Network) -> tuple[Tensor, Tensor, Tensor]:
    """What the heads see of voxels, whether they lie between objects, and on which side."""
    hierarchy, inference = network.hierarchy, network.inference
    targets = boundary_targets(marks.ids, marks.sets == hierarchy.unknown, marks.voxel_size_nm)
    side = np.broadcast_to(marks.side(), targets.shape)
    seed = hashlib.blake2b(marks.name.encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(seed, "big"))
    grid = window_grid(marks.image.shape, window_size(network.net, inference), inference.overlap)
    source = FeatureSource(network.net, marks.image, inference.precision, marks.shelf).fitting(grid)
    features = [torch.zeros((0, network.net.feature_channels + FILTERS))]
    between, sides = [np.zeros(0, np.bool_)], [np.zeros(0)]
    for window, core in grid.cores():
        part = targets[box_slices(core)]
        for kind in (INSIDE, BETWEEN):
            flat = np.flatnonzero(part == kind)
            if not len(flat):
                continue
            flat = generator.permutation(flat)[:ROWS]
            inside = np.stack(np.unravel_index(flat, part.shape), 1)
            voxels = inside + np.array([low for low, _ in core])
            at = voxels - np.array([low for low, _ in window])
            x, y, z = (torch.from_numpy(a).to(source.device) for a in at.T)
            with torch.inference_mode():
                own = source([window])[0][:, x, y, z].T.float()
                beside = source.responses([window], marks.voxel_size_nm)[0, x, y, z].float()
                found = torch.cat([own, beside], 1).cpu()
            features.append(found.clone())
            between.append(np.full(len(flat), kind == BETWEEN))
            sides.append(side[tuple(voxels.T)])
    return (
        torch.cat(features),
        torch.from_numpy(np.concatenate(between)),
        torch.from_numpy(np.concatenate(sides)),
    )
