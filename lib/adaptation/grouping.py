"""What marked objects of a study teach the grouping: boundaries, and how fragments join.

A boundary head sees filter responses beside the network's features. It is judged on what it did
not see without a second network pass: each half of the marks is grouped by the head that was
fitted to the other half. All but the ways that need the classes' heads is done beside their refit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lib.adaptation.annotated import Annotated, annotated
from lib.adaptation.boundaries import fit_boundary
from lib.adaptation.marks import Marks, boundary_rows
from lib.adaptation.network import Network
from lib.adaptation.objects import Arm, LearnedObjects, best_joining, learn_objects
from lib.configs.settings import AdaptationSettings
from lib.networks.study_heads import StudyHeads, together
from lib.prediction.evidence import collect_ways
from lib.prediction.filters import COUNT as FILTERS
from lib.prediction.grouping import group_volume
from lib.prediction.scratch import Scratch
from lib.prediction.ways import Way, boundary_of

GAP = 5.0
"""Voxels of the halves' border that teach neither."""
MARKS = "the marks"
"""Name of the way whose boundary head was fitted to them."""


@dataclass(frozen=True)
class Grouping:
    """What was learned about a study's objects.

    Args:
        learned: figures, and how fragments join.
        heads: study heads that the grouping uses; None: the published network alone.
    """

    learned: LearnedObjects
    heads: StudyHeads | None


@dataclass(frozen=True)
class Boundaries:
    """Boundary heads of a study.

    Args:
        lower, upper: fitted to each half of the marks.
        whole: fitted to all of them.
    """

    lower: StudyHeads
    upper: StudyHeads
    whole: StudyHeads


@dataclass(frozen=True)
class Prepared:
    """What is known of a study's objects before its classes are.

    Args:
        marks: of its items.
        boundaries: None where the marks do not say what a boundary is.
        published: the fragments of each item by the published network.
    """

    marks: Sequence[Marks]
    boundaries: Boundaries | None
    published: Sequence[Annotated]


def prepare_grouping(
    marks: Sequence[Marks], network: Network, settings: AdaptationSettings
) -> Prepared:
    """Fit the boundary heads and find the published network's fragments.

    Args:
        marks: of the study's items.
        network: the published network.
        settings: of the refit.
    """
    way = Way(None, boundary_of(network.net))
    published = [_grouped(m, network, [way], False)[0] for m in marks]
    boundaries = _fitted(marks, network, settings) if marks else None
    return Prepared(marks, boundaries, published)


def learn_grouping(prepared: Prepared, network: Network, heads: StudyHeads | None) -> Grouping:
    """Learn boundaries and joins from marked objects; the classes' heads are used if they help.

    Args:
        prepared: by `prepare_grouping`.
        network: the published network.
        heads: of the classes, in use; None: none are.
    """
    crumb, boundaries = network.inference.min_object_voxels, prepared.boundaries
    names: list[str] = []
    uses: list[StudyHeads | None] = [None]
    ways: list[Way] = []
    if heads is not None:
        names, uses = ["classes"], [None, heads]
        ways.append(Way(heads, boundary_of(network.net)))
    if boundaries is not None:
        names.append(MARKS)
        uses.append(boundaries.whole if heads is None else together(heads, boundaries.whole))
        heads_in_turn = (boundaries.upper, boundaries.lower, boundaries.whole)
        ways += [Way(heads, boundary, alone=True) for boundary in heads_in_turn]
    found = [_grouped(m, network, ways, boundaries is not None) for m in prepared.marks]
    arms = [Arm("", prepared.published)]
    arms += [
        Arm(name, list(v), name == MARKS)
        for name, v in zip(names, zip(*found, strict=True), strict=False)
    ]
    corrections = any(marks.corrections for marks in prepared.marks)
    learned = learn_objects(arms, network.joining, network.hierarchy, crumb, corrections)
    if learned.used and boundaries is not None and learned.arm == len(arms) - 1:
        # Fragments of the head that is used differ a little from those that judged it.
        final = Arm("", [volumes[-1] for volumes in found])
        how = best_joining(learned, final, network.joining, network.hierarchy, crumb)
        learned = replace(learned, joining=how)
    if not learned.objects or learned.reason.endswith("to tell"):
        return Grouping(learned, heads)
    return Grouping(learned, uses[learned.arm] if learned.used else None)


def _grouped(
    marks: Marks, network: Network, ways: Sequence[Way], by_halves: bool
) -> list[Annotated]:
    """The fragments around the marks, by each way.

    Args:
        ways: where boundaries are learned, the last three are by the head of the upper half, of
            the lower half and of all marks.
        by_halves: whether they are. The first two are made one then, in which each half is
            found by the head that did not see it.
    """
    if not ways:
        return []
    inference, hierarchy = network.inference, network.hierarchy
    with Scratch(inference.tile_bytes) as scratch:
        evidence = collect_ways(
            network.net, ways, marks.image, marks.voxel_size_nm, inference, hierarchy, scratch,
            shelf=marks.shelf, box=marks.box,
        )  # fmt: skip
        if by_halves:
            below, beyond, _ = evidence[-3:]
            other = np.broadcast_to(marks.side() > 0, below.shape)
            for own, theirs in zip(below.affinities, beyond.affinities, strict=True):
                own[other] = theirs[other]
            del evidence[-2]
        grouped = [
            group_volume(each, marks.voxel_size_nm, inference, network.call) for each in evidence
        ]
    return [
        annotated(g.graph, g.ids, marks.ids, marks.sets, hierarchy, marks.sectionwise)
        for g in grouped
    ]


def _fitted(
    marks: Sequence[Marks], network: Network, settings: AdaptationSettings
) -> Boundaries | None:
    """Boundary heads, where both halves of the marks show what is a boundary and what is none."""
    rows = [boundary_rows(m, network) for m in marks]
    features, between, side = (torch.cat([r[i] for r in rows]) for i in range(3))
    choices = [side < -GAP, side > GAP, torch.ones(len(side), dtype=torch.bool)]
    if not all(bool((between[c] == k).any()) for c in choices for k in (False, True)):
        return None
    steps, width = settings.steps, settings.width
    return Boundaries(*fit_boundary(features, between, choices, steps, width, beside=FILTERS))
