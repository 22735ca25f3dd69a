"""Axons and their sheaths: diameters, thickness of the myelin, g-ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from osteoid import Skeleton
from scipy import ndimage

from lib.shapes.skeletons import cross_section, stations


@dataclass(frozen=True)
class Fibre:
    """An axon along its skeleton; medians over its cross-sections, nan where there is none.

    Args:
        diameter_nm: of the circle with the area of the axon's cross-section.
        fibre_diameter_nm: the same of axon and sheath together.
        myelin_nm: thickness of the sheath: half the difference of the two.
        g_ratio: diameter of the axon by that of the fibre.

    Source: equivalent circles and g-ratio as in AxonDeepSeg (Zaimi et al. 2018).
    """

    diameter_nm: float
    fibre_diameter_nm: float = math.nan
    myelin_nm: float = math.nan
    g_ratio: float = math.nan


def fibre(
    ids: NDArray[np.uint32],
    axon: int,
    inside: Sequence[int],
    around: Sequence[int],
    skeleton: Skeleton,
    voxel_size_nm: Sequence[float],
) -> Fibre:
    """Measure one axon.

    Args:
        ids: (X, Y, Z).
        axon: its id.
        inside: ids of what lies in it: its organelles.
        around: ids of its sheath, tongues included; none: no myelin.
        skeleton: of the axon.
        voxel_size_nm: (x, y, z).
    """
    own = np.isin(ids, [axon, *inside])
    whole = own | np.isin(ids, list(around)) if around else own
    whole = ndimage.binary_fill_holes(whole) if around else whole
    axons, fibres = [], []
    for station in stations(skeleton, voxel_size_nm):
        area = cross_section(own, station, voxel_size_nm)
        outer = cross_section(whole, station, voxel_size_nm) if around else area
        if area > 0 and outer > 0:
            axons.append(_diameter(area))
            fibres.append(_diameter(outer))
    if not axons:
        return Fibre(math.nan)
    if not around:
        return Fibre(float(np.median(axons)))
    inner, outer_all = np.array(axons), np.array(fibres)
    return Fibre(
        float(np.median(inner)),
        float(np.median(outer_all)),
        float(np.median((outer_all - inner) / 2)),
        float(np.median(inner / outer_all)),
    )


def _diameter(area: float) -> float:
    return 2.0 * math.sqrt(area / math.pi)
