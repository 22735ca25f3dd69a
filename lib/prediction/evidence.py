"""What the network says about a volume, kept for the grouping into objects.

Affinities are blended as affinities: embeddings of two windows need not share a frame of
reference. They are kept at two bytes a number, on disk where they are large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import MAX_CLASSES, LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import BOUNDARY, CLASSES, StudyHeads, with_study_heads
from lib.prediction.affinities import (
    boundary_affinities,
    kinds_apart,
    mirrored_correction,
    pair_affinities,
    said_by_both,
)
from lib.prediction.classes import FINE_VALUE, Progress
from lib.prediction.dense import DensePass
from lib.prediction.features import Shelf
from lib.prediction.forward import View
from lib.prediction.scratch import Scratch
from lib.prediction.ways import Way
from lib.targets.pairs import NEAREST, Offset, pair_offsets
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, minus, shift_box, whole_box
from lib.volumes.contrast import LazyImage

HEADS = (CLASSES, "instance", "affinity", BOUNDARY)
"""What the grouping asks of the network; heads that it has not are left out."""


@dataclass(frozen=True)
class Evidence:
    """What the network says about a volume, as the grouping needs it.

    Args:
        affinities: (A, X, Y, Z) float16.
        offsets: A partner offsets.
        classes: (X, Y, Z) uint8, fine class + 1.
        foreground: (X, Y, Z) bool, voxels that can be objects.
        class_values: how many values the class map can have.
    """

    affinities: NDArray[np.float16]
    offsets: tuple[Offset, ...]
    classes: NDArray[np.uint8]
    foreground: NDArray[np.bool_]
    class_values: int = MAX_CLASSES + FINE_VALUE

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = self.classes.shape
        return x, y, z

    def nearest(self, box: Box) -> tuple[NDArray[np.float16], tuple[Offset, ...]]:
        """Affinities (A', *box) and offsets of next neighbours only."""
        channels = [i for i, o in enumerate(self.offsets) if o in NEAREST]
        where = box_slices(box)
        values = (
            np.stack([self.affinities[(i, *where)] for i in channels])
            if channels
            else (np.zeros((0, *self.foreground[where].shape), np.float16))
        )
        return values, tuple(self.offsets[i] for i in channels)

    def write_classes(
        self,
        where: tuple[slice, slice, slice],
        semantic: Tensor,
        can_be_object: Tensor,
        threshold: float,
        kept: NDArray[np.bool_] | None = None,
    ) -> None:
        """Put down the classes of a part.

        Args:
            where: the part, of shape (x, y, z).
            semantic: (C, x, y, z) probabilities of the fine classes.
            can_be_object: (C,) bool, classes whose voxels can be objects.
            threshold: their probability that makes foreground.
            kept: (x, y, z) voxels that are written; None: all.
        """
        best = (semantic.argmax(0) + FINE_VALUE).to(torch.uint8)
        _write(self.classes[where], best, kept)
        _write(self.foreground[where], semantic[can_be_object].sum(0) >= threshold, kept)

    def write_pairs(
        self,
        where: tuple[slice, slice, slice],
        pairs: Tensor,
        kept: NDArray[np.bool_] | None = None,
    ) -> None:
        """Put down the affinities (A, x, y, z) of a part; see `write_classes`."""
        for target, values in zip(
            self.affinities[(slice(None), *where)], pairs.half(), strict=True
        ):
            _write(target, values, kept)


def _write(target: NDArray[Any], values: Tensor, kept: NDArray[np.bool_] | None) -> None:
    if kept is None:
        target[...] = values.cpu().numpy()
    else:
        target[kept] = values.cpu().numpy()[kept]


def affinities_of(
    outputs: Mapping[str, Tensor],
    probabilities: Tensor,
    offsets: Sequence[Offset],
    hierarchy: LabelHierarchy,
    inference: InferenceSettings,
    voxel_size_nm: Sequence[float],
    mirrored: Sequence[int] = (),
    alone: bool = False,
) -> Tensor:
    """(B, A, X, Y, Z) affinities: by the network, a boundary head, or both (`said_by_both`).

    Args:
        outputs: of `HEADS`, as far as the network has them.
        probabilities: (B, C, X, Y, Z) of the fine classes.
        offsets: A partner offsets.
        hierarchy: of the network.
        inference: see `pair_affinities`.
        voxel_size_nm: (x, y, z).
        mirrored: axes of (B, C, X, Y, Z) that the network saw mirrored.
        alone: a boundary head is asked without the network, see `Way`.
    """
    boundary = outputs.get(BOUNDARY)
    if boundary is not None and alone:
        pairs = boundary_affinities(boundary, offsets)
    else:
        correction = outputs.get("affinity")
        if correction is not None and mirrored:
            correction = mirrored_correction(correction, mirrored, voxel_size_nm)
        pairs = pair_affinities(
            outputs["instance"], offsets, inference.affinity_margin, correction, voxel_size_nm
        )
        if boundary is not None:
            pairs = said_by_both(pairs, boundary_affinities(boundary, offsets))
    return kinds_apart(pairs, probabilities, offsets, hierarchy, inference)


def collect_evidence(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    hierarchy: LabelHierarchy,
    scratch: Scratch,
    progress: Progress | None = None,
    shelf: Shelf | None = None,
    box: Box | None = None,
) -> Evidence:
    """Run the network over a volume and keep affinities, classes and foreground.

    Args:
        box: the part that is wanted, with the very values that a run over everything gives;
            None: all.
    """
    (found,) = collect_ways(
        net, [Way.of(net)], volume, voxel_size_nm, inference, hierarchy, scratch, progress, shelf,
        box,
    )  # fmt: skip
    return found


def collect_ways(
    net: NeuropilNet,
    ways: Sequence[Way],
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    hierarchy: LabelHierarchy,
    scratch: Scratch,
    progress: Progress | None = None,
    shelf: Shelf | None = None,
    box: Box | None = None,
) -> list[Evidence]:
    """The evidence of several ways from one run over a volume, as `collect_evidence` gives each.

    Args:
        net: its own study heads, if it has any, are left out.
        ways: what their evidence has in common is computed once.
        box: the part that is wanted; None: all.
    """
    heads = HEADS if any(way.asks_network for way in ways) else (CLASSES,)
    plain = with_study_heads(net, None)
    dense = DensePass(plain, volume, voxel_size_nm, inference, heads, shelf=shelf)
    grid = dense.grid
    offsets = pair_offsets(voxel_size_nm, inference.long_range, grid.window)
    part = whole_box(grid.shape) if box is None else box
    shape = box_shape(part)
    kinds = list(dict.fromkeys(way.classes for way in ways))  # modules are one by identity
    asked = (study for way in ways for study in (way.classes, way.boundary))
    studies = list(dict.fromkeys(study for study in asked if study is not None))
    index = [kinds.index(way.classes) for way in ways]
    classes = [(scratch.array(shape, np.uint8), scratch.array(shape, np.bool_)) for _ in kinds]
    evidence = [
        Evidence(
            scratch.array((len(offsets), *shape), np.float16),
            offsets,
            *classes[kind],
            hierarchy.num_classes + FINE_VALUE,
        )
        for kind in index
    ]
    can_be_object = torch.tensor([c.object for c in hierarchy.classes], device=dense.forward.device)

    def decode(view: View) -> dict[str, Tensor]:
        beside = None
        if any(study.beside for study in studies):
            beside = dense.forward.features.responses(view.boxes, voxel_size_nm)
        said: dict[StudyHeads | None, dict[str, Tensor]] = {None: view.outputs}
        for study in studies:
            features = view.features.flip(view.mirrored) if view.mirrored else view.features
            said[study] = said_by(study, view.outputs, features, beside)
        found = {f"{CLASSES} {n}": said[kind][CLASSES].softmax(1) for n, kind in enumerate(kinds)}
        for n, (way, kind) in enumerate(zip(ways, index, strict=True)):
            own = view.outputs if way.boundary is None else said[way.boundary]
            found[f"pairs {n}"] = affinities_of(
                own, found[f"{CLASSES} {kind}"], offsets, hierarchy, inference, voxel_size_nm,
                view.mirrored, way.alone,
            )  # fmt: skip
        return found

    def consume(done: Box, outputs: Mapping[str, Tensor]) -> None:
        where = box_slices(shift_box(done, minus(box_origin(part))))
        for n in range(len(kinds)):
            evidence[index.index(n)].write_classes(
                where, outputs[f"{CLASSES} {n}"], can_be_object, inference.object_threshold
            )
        for n, each in enumerate(evidence):
            each.write_pairs(where, outputs[f"pairs {n}"])

    channels = len(kinds) * hierarchy.num_classes + len(ways) * len(offsets)
    pairs = {f"pairs {n}": offsets for n in range(len(ways))}
    dense.run(decode, consume, channels, box=part, pair_offsets=pairs, progress=progress)
    return evidence


def said_by(
    study: StudyHeads, outputs: Mapping[str, Tensor], features: Tensor, beside: Tensor | None
) -> dict[str, Tensor]:
    """A network's outputs, changed by a study's heads, and what is their own.

    Args:
        study: the heads.
        outputs: head -> (B, channels, x, y, z) float32.
        features: (B, F, x, y, z) behind them.
        beside: (B, x, y, z, COUNT) filter responses, where the heads see them.
    """
    kind = features.dtype  # in which the heads answer
    logits = {name: values.movedim(1, -1).to(kind) for name, values in outputs.items()}
    seen = beside if study.beside else None
    said = study(features.movedim(1, -1), logits, (*logits, BOUNDARY), seen)
    return {name: values.movedim(-1, 1).float() for name, values in said.items()}
