"""Labels that are kept as they are: one of another shape than its image is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from submission_cases import SHAPE, seg_nrrd, upload
from volume_files import volume

from lib.server.uploads import uneven_label


@pytest.fixture
def app(tmp_path: Path) -> Any:
    """An app whose only image has SHAPE."""
    image = upload(tmp_path, volume(SHAPE), "one.nii.gz")
    store = SimpleNamespace(get_image_uri=lambda _: str(image))
    return SimpleNamespace(datastore=lambda: store)


def test_a_kept_label_of_another_shape_is_told_with_both(tmp_path: Path, app: Any) -> None:
    small = upload(tmp_path, np.ones((10, 17, 9), np.uint8))
    told = uneven_label(small, app, "one")
    assert "the label has 10 x 17 x 9 voxels, the image 13 x 17 x 9" in told
    assert uneven_label(upload(tmp_path, np.ones(SHAPE, np.uint8)), app, "one") == ""


def test_what_is_cut_by_design_or_cannot_be_read_says_nothing(tmp_path: Path, app: Any) -> None:
    layers = [np.ones((4, 5, 3), np.uint8)]
    cut = seg_nrrd(tmp_path / "up.seg.nrrd", layers, [("axon", 1, 0)])
    junk = tmp_path / "junk.nii.gz"
    junk.write_bytes(b"junk")
    assert uneven_label(cut, app, "one") == uneven_label(junk, app, "one") == ""
