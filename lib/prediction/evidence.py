"""What the network says about a volume, kept for the grouping into objects.

Affinities are blended as affinities: embeddings of two windows need not share a frame of
reference. They are kept at two bytes a number, on disk where they are large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import MAX_CLASSES, LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.networks.study_heads import BOUNDARY
from lib.prediction.affinities import boundary_affinities, mirrored_correction, pair_affinities
from lib.prediction.classes import FINE_VALUE, Progress
from lib.prediction.dense import DensePass
from lib.prediction.features import Shelf
from lib.prediction.forward import View
from lib.prediction.scratch import Scratch
from lib.targets.pairs import NEAREST, Offset, pair_offsets
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, minus, shift_box, whole_box
from lib.volumes.contrast import LazyImage

HEADS = ("semantic", "instance", "affinity", BOUNDARY)
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

    def write(
        self,
        where: tuple[slice, slice, slice],
        semantic: Tensor,
        pairs: Tensor,
        can_be_object: Tensor,
        threshold: float,
        kept: NDArray[np.bool_] | None = None,
    ) -> None:
        """Put down what the network says of a part.

        Args:
            where: the part, of shape (x, y, z).
            semantic: (C, x, y, z) probabilities of the fine classes.
            pairs: (A, x, y, z) affinities.
            can_be_object: (C,) bool, classes whose voxels can be objects.
            threshold: their probability that makes foreground.
            kept: (x, y, z) voxels that are written; None: all.
        """
        found = (
            (self.classes[where], (semantic.argmax(0) + FINE_VALUE).to(torch.uint8)),
            (self.foreground[where], semantic[can_be_object].sum(0) >= threshold),
            *zip(self.affinities[(slice(None), *where)], pairs.half(), strict=True),
        )
        for target, values in found:
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
) -> Tensor:
    """(B, A, X, Y, Z) affinities: by a study's own boundaries where it has learned some.

    Args:
        outputs: of `HEADS`, as far as the network has them.
        probabilities: (B, C, X, Y, Z) of the fine classes.
        offsets: A partner offsets.
        hierarchy: of the network.
        inference: see `pair_affinities`.
        voxel_size_nm: (x, y, z).
        mirrored: axes of (B, C, X, Y, Z) that the network saw mirrored.
    """
    if BOUNDARY in outputs:
        return boundary_affinities(outputs[BOUNDARY], offsets)
    correction = outputs.get("affinity")
    if correction is not None and mirrored:
        correction = mirrored_correction(correction, mirrored, voxel_size_nm)
    return pair_affinities(
        outputs["instance"],
        probabilities,
        offsets,
        hierarchy,
        inference,
        correction,
        voxel_size_nm,
    )


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
    dense = DensePass(net, volume, inference, HEADS, shelf=shelf)
    grid = dense.grid
    offsets = pair_offsets(voxel_size_nm, inference.long_range, grid.window)
    part = whole_box(grid.shape) if box is None else box
    shape = box_shape(part)
    evidence = Evidence(
        scratch.array((len(offsets), *shape), np.float16),
        offsets,
        scratch.array(shape, np.uint8),
        scratch.array(shape, np.bool_),
        hierarchy.num_classes + FINE_VALUE,
    )
    can_be_object = torch.tensor([c.object for c in hierarchy.classes], device=dense.forward.device)

    def decode(view: View) -> dict[str, Tensor]:
        p = view.outputs["semantic"].softmax(1)
        pairs = affinities_of(
            view.outputs, p, offsets, hierarchy, inference, voxel_size_nm, view.mirrored
        )
        return {"semantic": p, "pairs": pairs}

    def consume(done: Box, outputs: Mapping[str, Tensor]) -> None:
        where = box_slices(shift_box(done, minus(box_origin(part))))
        threshold = inference.object_threshold
        evidence.write(where, outputs["semantic"], outputs["pairs"], can_be_object, threshold)

    channels = hierarchy.num_classes + len(offsets)
    pairs = {"pairs": offsets}
    dense.run(decode, consume, channels, box=part, pair_offsets=pairs, progress=progress)
    return evidence
