"""Colours of classes and objects over a grey image."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.labels.hierarchy import LabelHierarchy

Rgb = NDArray[np.float32]
"""(..., 3) in [0, 1]."""

LABEL_OPACITY = 0.6


def overlay(grey: Rgb, colors: Rgb, where: NDArray[np.bool_]) -> Rgb:
    """Colours over an image where they say something, the bare image elsewhere.

    Args:
        grey, colors: (X, Y, 3).
        where: (X, Y).
    """
    mixed: Rgb = np.where(
        where[..., None], (1 - LABEL_OPACITY) * grey + LABEL_OPACITY * colors, grey
    )
    return mixed


def set_colors(sets: NDArray[np.integer[Any]], hierarchy: LabelHierarchy) -> Rgb:
    """The mean colour of the classes of each set (bit masks, any shape)."""
    table = np.array([c.color for c in hierarchy.classes], np.float32) / 255
    colors = np.zeros((*sets.shape, 3), np.float32)
    for value in np.unique(sets):
        colors[sets == value] = table[list(hierarchy.members(int(value)))].mean(0)
    return colors


def id_colors(ids: NDArray[np.integer[Any]]) -> Rgb:
    """A colour for each id above 0; neighbouring ids differ in hue (golden ratio)."""
    colors = np.zeros((*ids.shape, 3), np.float32)
    for value in np.unique(ids[ids > 0]):
        hue = int(value) * 0.618034 % 1.0
        shade = 0.95 - 0.25 * (int(value) % 3) / 2
        colors[ids == value] = colorsys.hsv_to_rgb(hue, 0.75, shade)
    return colors
