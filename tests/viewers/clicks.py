"""Where the tests click: known voxels of known objects."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from lib.labels.hierarchy import load_hierarchy
from lib.synthetic.generate import SyntheticVolume


def inner_voxel(truth: SyntheticVolume, label: str) -> list[int]:
    """The voxel deepest inside the largest object of a class."""
    inside = (truth.fine == load_hierarchy().class_names.index(label)) & (truth.instance > 0)
    ids, sizes = np.unique(truth.instance[inside], return_counts=True)
    mask = inside & (truth.instance == ids[sizes.argmax()])
    depth = distance_transform_edt(np.pad(mask, 1), sampling=truth.voxel_size_nm)
    return [int(v) for v in np.unravel_index(depth[1:-1, 1:-1, 1:-1].argmax(), mask.shape)]
