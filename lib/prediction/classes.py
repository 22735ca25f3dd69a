"""Automatic class maps: fine classes, coarse groups, or groups where classes are uncertain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.configs.settings import InferenceSettings
from lib.labels.hierarchy import LabelHierarchy
from lib.networks.model import NeuropilNet
from lib.prediction.dense import DensePass
from lib.prediction.features import Shelf
from lib.prediction.forward import View
from lib.volumes.boxes import Box, box_origin, box_shape, box_slices, minus, shift_box, whole_box
from lib.volumes.contrast import LazyImage

Level = Literal["fine", "coarse", "fallback"]
Progress = Callable[[int, int], None]

FINE_VALUE = 1
"""Fine class c is stored as c + 1, as in the `final` label."""
GROUP_VALUE = 101
"""Group k is stored as k + 101, as in the `final` label."""


def predict_classes(
    net: NeuropilNet,
    volume: LazyImage,
    voxel_size_nm: tuple[float, float, float],
    inference: InferenceSettings,
    *,
    hierarchy: LabelHierarchy,
    level: Level | None = None,
    progress: Progress | None = None,
    out: NDArray[np.uint8] | None = None,
    shelf: Shelf | None = None,
    box: Box | None = None,
) -> NDArray[np.uint8]:
    """The class map of a volume, or of a part of it.

    Args:
        net: in evaluation mode, on the device that computes.
        volume: (X, Y, Z) image in the network's frame, read window by window.
        voxel_size_nm: (x, y, z) of the volume.
        inference: window, overlap, precision and the fallback's thresholds.
        hierarchy: of the network.
        level: "fine", "coarse" or "fallback"; None: the settings', voxel by voxel.
        progress: called with (windows done, windows in all).
        out: where to write, for instance a memory map; made when not given.
        shelf: where the backbone's features are kept for the next run; None: nowhere.
        box: the part that is wanted, with the very values that a run over everything gives;
            None: all.

    Returns:
        (X, Y, Z) uint8 of the box: fine class + 1, or group + 101.

    Raises:
        ValueError: a level that needs groups from a hierarchy without any.
    """
    level = level or inference.voxel_level
    if level != "fine" and not hierarchy.num_groups:
        raise ValueError(
            f"level {level!r} needs coarse groups and this hierarchy has none; use level 'fine'"
        )
    heads = ["semantic"] if level == "fine" else ["semantic", "coarse"]
    dense = DensePass(net, volume, voxel_size_nm, inference, heads, shelf=shelf)
    part = whole_box(dense.grid.shape) if box is None else box
    result = np.zeros(box_shape(part), np.uint8) if out is None else out

    def consume(done: Box, outputs: Mapping[str, Tensor]) -> None:
        values = decode_level(outputs, level, hierarchy, inference)
        result[box_slices(shift_box(done, minus(box_origin(part))))] = values.cpu().numpy()

    channels = hierarchy.num_classes + (hierarchy.num_groups if level != "fine" else 0)
    dense.run(class_probabilities, consume, channels, box=part, progress=progress)
    return result


def class_probabilities(view: View) -> dict[str, Tensor]:
    """Probabilities of classes ("semantic") and, where asked for, of groups ("coarse")."""
    found = {"semantic": view.outputs["semantic"].softmax(1)}
    if "coarse" in view.outputs:
        found["coarse"] = view.outputs["coarse"].sigmoid()
    return found


def decode_level(
    outputs: Mapping[str, Tensor],
    level: Level,
    hierarchy: LabelHierarchy,
    inference: InferenceSettings,
) -> Tensor:
    """Probabilities to label values.

    Fine: the likeliest class. Coarse: the likeliest group by both heads (the root of a group's
    probability times its classes'), or a class that is in no group where that is likelier: a group
    that no label of real tissue ever denied is told by the classes. Fallback: the likeliest class;
    a group where the class is below `fallback_fine` and the group is at or above
    `fallback_coarse`.

    Args:
        outputs: "semantic" (C, *S) and, for the other levels, "coarse" (K, *S).

    Returns:
        (*S) uint8.

    Source: spec/hierarchical-supervision.md, "Inference and interpretation".
    """
    fine_p, fine = outputs["semantic"].max(0)
    values = fine + FINE_VALUE
    if level == "fine":
        return values.to(torch.uint8)
    if level == "fallback":
        group_p, group = outputs["coarse"].max(0)
        vague = (fine_p < inference.fallback_fine) & (group_p >= inference.fallback_coarse)
        return torch.where(vague, group + GROUP_VALUE, values).to(torch.uint8)
    lut = torch.from_numpy(hierarchy.coarse_lut).to(fine_p)
    implied = torch.einsum("c...,ck->k...", outputs["semantic"], lut)
    group_p, group = (outputs["coarse"] * implied).sqrt().max(0)
    alone = torch.from_numpy(hierarchy.coarse_lut.sum(1) == 0).to(fine.device)
    if not alone.any():
        return (group + GROUP_VALUE).to(torch.uint8)
    alone_p = torch.where(alone[:, None, None, None], outputs["semantic"], 0.0)
    best_p, best = alone_p.max(0)
    return torch.where(best_p > group_p, best + FINE_VALUE, group + GROUP_VALUE).to(torch.uint8)
