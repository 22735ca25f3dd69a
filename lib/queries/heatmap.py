"""Heat maps as label volumes: a viewer loads them over the image they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.queries.scores import HEAT_MAPS, ItemScores
from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import slabs, whole_box
from lib.volumes.nifti import nifti_header
from lib.volumes.study import StudyItem
from lib.volumes.writing import GzipStream, label_file

SLAB_BYTES = 1 << 25


def heat_tag(name: str) -> str:
    """The tag under which a heat map lies in the study: "heat-uncertainty"."""
    return f"heat-{name}"


def write_heat_map(item: StudyItem, scores: ItemScores, name: str = "uncertainty") -> Path:
    """Write one of HEAT_MAPS on the image's own grid, in percent (uint8, 0..100).

    Args:
        item: the image.
        scores: of this image.
        name: one of HEAT_MAPS.

    Returns:
        `labels/heat-<name>/<id>.nii.gz` in the study.

    Raises:
        ValueError: an unknown name, or scores of another image.
    """
    if name not in HEAT_MAPS:
        raise ValueError(f"heat map {name!r}: expected one of {', '.join(HEAT_MAPS)}")
    grid = scores.heat_grid
    if grid.shape != item.shape:
        raise ValueError(
            f"heat map of {item.id}: the scores are of an image of {grid.shape} voxels, this "
            f"one has {item.shape}; run the scoring method `uncertainty` again"
        )
    heat = scores.heat[HEAT_MAPS.index(name)]
    cell = [np.repeat(np.arange(len(e) - 1), np.diff(e)) for e in grid.edges]
    path = label_file(item.study.root, heat_tag(name), item.id)
    with StagedFiles() as staged:
        stream = GzipStream(staged.create(path))
        stream.write(nifti_header(item.shape, np.dtype(np.uint8), item.voxel_size_nm))
        for x, y, z in slabs(whole_box(item.shape), 1, SLAB_BYTES):
            at = [c[low:high] for c, (low, high) in zip(cell, (x, y, z), strict=True)]
            stream.write(np.ascontiguousarray(heat[np.ix_(*at)].T).data.cast("B"))
        stream.finish()
        staged.commit()
    return path
