"""What a blockwise run writes is OME-Zarr to the reference validators, where they are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from block_cases import case, command

from lib.commands import main
from lib.volumes.readers.opening import open_source


def test_the_reference_models_take_what_is_written(tmp_path: Path) -> None:
    models = pytest.importorskip("ome_zarr_models.v05", reason="ome-zarr-models is not in the lock")
    zarr = pytest.importorskip("zarr")
    folder = case(tmp_path)
    assert main(command(folder)) == 0
    group = zarr.open_group(str(folder / "seg.zarr" / "classes"), mode="r")
    image = models.Image.from_zarr(group)
    (scales,) = image.ome_attributes.multiscales
    assert [axis.name for axis in scales.axes] == ["z", "y", "x"]
    assert len(scales.datasets) > 1, "several resolutions"
    labels = models.ImageLabel.from_zarr(group).ome_attributes.image_label
    assert labels.properties[0].label_value == 1
    # Its own library reads the voxels that tensorstore wrote.
    finest = np.asarray(group[scales.datasets[0].path]).T
    source = open_source(str(folder / "seg.zarr" / "classes"))
    np.testing.assert_array_equal(finest, np.asarray(source))
