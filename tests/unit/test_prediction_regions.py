"""A region is answered for alone, with what lies around it as the network's context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from block_cases import make_volume, make_weights
from engine_cases import tiny_settings

from lib.configs.settings import Settings
from lib.infers.region import in_region
from lib.prediction.predictor import Predictor, load_predictor
from lib.volumes.boxes import Box, box_slices
from lib.volumes.contrast import intensity_window
from lib.volumes.crop import Crop
from lib.volumes.opened import RequestImage
from lib.volumes.readers.opening import open_source
from lib.volumes.readers.region import RegionSource

VOXEL = (8.0, 8.0, 40.0)
BOX: Box = ((9, 30), (5, 21), (3, 11))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("regions")
    make_volume(root / "em.zarr", (60, 50, 20))
    make_weights(root / "tiny.pt")
    return root


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    inference = {"window": (16, 16, 8), "min_object_voxels": 1, "precision": "float32"}
    settings = Settings.model_validate({**tiny_settings().model_dump(), "inference": inference})
    return load_predictor(folder / "tiny.pt", settings)


def test_a_part_of_an_image_has_the_classes_of_the_whole(
    folder: Path, predictor: Predictor
) -> None:
    image = open_source(str(folder / "em.zarr"))
    whole = predictor.classes(image, VOXEL)
    assert (predictor.classes(image, VOXEL, box=BOX) == whole[box_slices(BOX)]).all()


def test_binned_voxels_may_begin_outside_the_part(folder: Path, predictor: Predictor) -> None:
    image, fine = open_source(str(folder / "em.zarr")), (4.0, 4.0, 40.0)
    assert predictor.frame(image.shape, fine).bins == (2, 2, 1)
    whole = predictor.classes(image, fine)
    assert (predictor.classes(image, fine, box=BOX) == whole[box_slices(BOX)]).all()


def test_a_region_of_a_volume_is_seen_with_its_surroundings(
    folder: Path, predictor: Predictor
) -> None:
    image = open_source(str(folder / "em.zarr"))
    contrast = intensity_window(image)
    region = RegionSource(image, BOX, contrast)
    wide = RegionSource(image, ((1, 38), (0, 29), (0, 15)), contrast)
    inside: Box = ((8, 29), (5, 21), (3, 11))
    everything: Box = ((0, 37), (0, 29), (0, 15))
    expected = predictor.classes(Crop(wide, everything, contrast), VOXEL)
    lone = predictor.classes(Crop(region, ((0, 21), (0, 16), (0, 8)), contrast), VOXEL)
    found = predictor.classes(region, VOXEL)
    assert (found == expected[box_slices(inside)]).all(), "half a window on each side"
    assert (found != lone).any(), "without surroundings the borders look otherwise"


def test_objects_of_a_part_are_numbered_anew(folder: Path, predictor: Predictor) -> None:
    image = open_source(str(folder / "em.zarr"))
    found = predictor.objects(image, VOXEL, box=BOX)
    assert found.ids.shape == (21, 16, 8)
    present = np.unique(found.ids[found.ids > 0])
    assert present.tolist() == list(range(1, found.count + 1))
    assert found.sizes.tolist() == np.bincount(found.ids.ravel()).tolist()
    assert len(found.classes) == found.count + 1


def test_an_answer_lies_in_its_place_or_tells_where(folder: Path) -> None:
    affine = np.diag([8.0, 8.0, 40.0, 1.0])
    image = RequestImage(folder, np.zeros((60, 50, 20), np.uint8), affine, VOXEL, "k")
    values = np.ones((21, 16, 8), np.uint8)
    whole, same, told = in_region(values, image, BOX, {})
    assert whole.shape == (60, 50, 20) and whole.sum() == values.size
    assert whole[box_slices(BOX)].all() and (same == affine).all()
    assert told == {"region": [9, 30, 5, 21, 3, 11], "alone": False}
    alone, placed, told = in_region(values, image, BOX, {"result_region": True})
    assert alone is values and placed[:3, 3].tolist() == [72.0, 40.0, 120.0] and told["alone"]
    assert in_region(values, image, None, {})[2] == {}
