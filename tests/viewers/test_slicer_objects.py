"""Every object in Slicer's own plugin, on a study in which nobody has corrected any yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.volumes.study import Study
from tests.conftest import Server
from tests.viewers.conftest import SHAPE, VOXEL_NM
from tests.viewers.picture import draw_scene
from tests.viewers.test_slicer import (
    HIERARCHY,
    STRATEGY,
    check_object_map,
    only_object,
    run_session,
    sample_of,
    whole_map,
)

pytestmark = pytest.mark.viewers


def test_objects(
    tmp_path: Path, slicer_python: Path, study_server: Server, artifacts: Path
) -> None:
    steps: list[list[Any]] = [["connect", {}], ["next_sample", {"strategy": STRATEGY}]]
    steps += [["segment", {"model": "instances", "show": "segments", "max_segments": 5000}]]
    steps += [["submit", {}]]
    held = run_session(slicer_python, study_server, tmp_path / "named", ".seg.nrrd", steps)
    image = sample_of(held)
    segments = held[2].report["segments"]
    stack = np.unpackbits(np.load(tmp_path / "named" / "2.npz")["masks"], axis=-1, count=SHAPE[2])
    volume = np.load(tmp_path / "named" / "volume.npy")
    draw_scene(volume, segments, stack.astype(bool), VOXEL_NM, artifacts / "slicer-objects.png")
    ids = whole_map(study_server, image)
    assert ids.dtype == np.uint32
    masks = list(held[2].masks.values())
    assert len(masks) == len(np.unique(ids[ids > 0])), "every object is a segment of its own"
    for name, mask in held[2].masks.items():
        (number,) = np.unique(ids[mask])
        np.testing.assert_array_equal(mask, ids == number, err_msg=name)
    colors = {tuple(s["color"]) for s in held[2].report["segments"]}
    assert len(colors) > min(len(masks), 20) / 2, "objects must be told apart by colour"
    # back through the submission: the same objects
    back = Study(study_server.studies, HIERARCHY).item(image).read_instances(shown=True)
    for mask in masks:
        only_object(back, mask)

    steps = [["connect", {}], ["next_sample", {"strategy": STRATEGY}]]
    steps += [["segment", {"model": "instances", "show": "map"}]]
    held = run_session(slicer_python, study_server, tmp_path / "map", ".nii.gz", steps)
    check_object_map(held[2], study_server, sample_of(held))
