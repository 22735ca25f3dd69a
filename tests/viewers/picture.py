"""A picture of what Slicer's scene holds: the volume in three planes, and its segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch

LISTED = 18
DARK, LIGHT = "#202124", "#e8eaed"


def draw_scene(
    volume: NDArray[np.uint8],
    segments: list[dict[str, Any]],
    masks: NDArray[np.bool_],
    voxel_size_nm: tuple[float, float, float],
    path: Path,
) -> None:
    """Draw axial, coronal and sagittal planes with the segments over them, and their names.

    Args:
        volume: (X, Y, Z) grey values.
        segments: name, colour and number of voxels of each, as Slicer holds them.
        masks: (N, X, Y, Z), one for each segment.
    """
    colors = np.zeros((*volume.shape, 4), np.float32)
    for segment, mask in zip(segments, masks, strict=True):
        colors[mask] = [*(c / 255 for c in segment["color"]), 0.45]
    middle = [n // 2 for n in volume.shape]
    x, y, z = voxel_size_nm
    planes = [
        ("axial", (slice(None), slice(None), middle[2]), y / x),
        ("coronal", (slice(None), middle[1], slice(None)), z / x),
        ("sagittal", (middle[0], slice(None), slice(None)), z / y),
    ]
    figure, axes = plt.subplot_mosaic(
        [["plain", "axial", "names"], ["coronal", "sagittal", "names"]],
        figsize=(11, 6.4),
        width_ratios=[1, 1, 0.55],
        facecolor=DARK,
        layout="constrained",
    )
    for axis in axes.values():
        axis.set_axis_off()
    for name, plane, aspect in [("plain", planes[0][1], y / x), *planes]:
        axis = axes[name]
        axis.imshow(volume[plane].T, cmap="gray", aspect=aspect, interpolation="nearest")
        if name != "plain":
            over = colors[plane].transpose(1, 0, 2)
            axis.imshow(over, aspect=aspect, interpolation="nearest")
        label = "axial, grey values" if name == "plain" else name
        axis.set_title(label, color=LIGHT, fontsize=9, loc="left")
    shown = sorted(segments, key=lambda s: -s["voxels"])[:LISTED]
    chips = [Patch(color=[c / 255 for c in s["color"]], label=s["name"]) for s in shown]
    more = len([s for s in segments if s["voxels"]]) - len(chips)
    title = "segments" if more <= 0 else f"segments ({more} more)"
    legend = axes["names"].legend(
        handles=chips, loc="upper left", frameon=False, labelcolor=LIGHT, fontsize=9, title=title
    )
    legend.get_title().set_color(LIGHT)
    figure.savefig(path, dpi=110, facecolor=DARK)
    plt.close(figure)
