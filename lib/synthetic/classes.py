"""The twelve classes of the default hierarchy, by name, for the generator's own code."""

from __future__ import annotations

from enum import IntEnum


class Tissue(IntEnum):
    """Index of each fine class.

    Source: spec/hierarchical-supervision.md, "Fine classes".
    """

    EXTRACELLULAR = 0
    TEAR = 1
    DENDRITE = 2
    AXON = 3
    SOMA = 4
    GLIA = 5
    MYELIN = 6
    INNER_TONGUE = 7
    OUTER_TONGUE = 8
    NUCLEUS = 9
    MITOCHONDRIA = 10
    FAT_GLOBULE = 11


CELLS = (Tissue.DENDRITE, Tissue.AXON, Tissue.SOMA, Tissue.GLIA)
"""Classes that are the body of a cell and can hold organelles."""

ORGANELLES = (Tissue.NUCLEUS, Tissue.MITOCHONDRIA, Tissue.FAT_GLOBULE)
