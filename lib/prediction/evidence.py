"""What the network says about a volume, kept for the grouping into objects.

Affinities are blended as affinities: embeddings of two windows need not share a frame of
reference. They are kept at two bytes a number, on disk where they are large.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    heads = ("semantic", "instance", "affinity", BOUNDARY)
    dense = DensePass(net, volume, inference, heads, shelf=shelf)
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
        correction = view.outputs.get("affinity")
        if correction is not None and view.mirrored:
            correction = mirrored_correction(correction, view.mirrored, voxel_size_nm)
        if BOUNDARY in view.outputs:  # a study's own
            return {"semantic": p, "pairs": boundary_affinities(view.outputs[BOUNDARY], offsets)}
        embedding = view.outputs["instance"]
        pairs = pair_affinities(
            embedding, p, offsets, hierarchy, inference, correction, voxel_size_nm
        )
        return {"semantic": p, "pairs": pairs}

    def consume(done: Box, outputs: Mapping[str, Tensor]) -> None:
        where = box_slices(shift_box(done, minus(box_origin(part))))
        semantic = outputs["semantic"]
        evidence.classes[where] = (semantic.argmax(0) + FINE_VALUE).to(torch.uint8).cpu().numpy()
        of_objects = semantic[can_be_object].sum(0) >= inference.object_threshold
        evidence.foreground[where] = of_objects.cpu().numpy()
        evidence.affinities[(slice(None), *where)] = outputs["pairs"].half().cpu().numpy()

    channels = hierarchy.num_classes + len(offsets)
    pairs = {"pairs": offsets}
    dense.run(decode, consume, channels, box=part, pair_offsets=pairs, progress=progress)
    return evidence
