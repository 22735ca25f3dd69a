"""Speckle of a class map."""

import math

import numpy as np

from lib.labels.hierarchy import load_hierarchy
from lib.metrics.speckle import Speckle, speckle_of

HIERARCHY = load_hierarchy()
AXON, GLIA, MITO = (HIERARCHY.class_names.index(n) for n in ("axon", "glia", "mitochondria"))


def test_voxels_off_the_majority_of_their_object_count_and_organelles_do_not() -> None:
    ids = np.array([1] * 10 + [2] * 6 + [0] * 3 + [-1] * 2)
    classes = np.array(
        [AXON] * 7 + [GLIA] * 2 + [MITO] + [GLIA] * 6 + [AXON, GLIA, MITO] * 1 + [0, 1]
    )
    found = speckle_of(ids, classes, HIERARCHY)
    assert found == Speckle(2, 15)
    assert (found + Speckle(1, 5)).share == 3 / 20
    nothing = speckle_of(np.zeros(4, np.int64), np.zeros(4, np.int64), HIERARCHY)
    assert nothing == Speckle() and math.isnan(nothing.share)
