"""OME-Zarr 0.5 label images: what is written block by block reads back whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.volumes.boxes import Triple, box_slices, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.chunked import read_json
from lib.volumes.readers.opening import open_source
from lib.volumes.writers.ome_zarr import LabelImage


def image(folder: Path, shape: Triple = (37, 20, 9), **changed: object) -> LabelImage:
    fields: dict[str, object] = {
        "shape": shape, "dtype": np.dtype(np.uint64), "chunk": (8, 8, 4), "shard": (16, 16, 8),
        "voxel_size_nm": (8.0, 8.0, 40.0), "offset_nm": (80.0, 0.0, 400.0), "name": "objects",
    }  # fmt: skip
    return LabelImage(folder / "objects", **{**fields, **changed})  # type: ignore[arg-type]


def filled(target: LabelImage) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 2**40, target.shape, np.uint64)
    target.create()
    for index in target.blocks(0):
        target.write(index, values[box_slices(target.block_box(0, index))])
    return values


def test_blocks_read_back_with_size_and_place(tmp_path: Path) -> None:
    target = image(tmp_path)
    values = filled(target)
    assert (target.read(whole_box(target.shape)) == values).all()
    source = open_source(str(tmp_path / "objects"))
    assert source.shape == target.shape and source.info.voxel_size_nm == (8.0, 8.0, 40.0)
    assert (source[:] == values).all()


def test_each_shard_is_one_file(tmp_path: Path) -> None:
    target = image(tmp_path)
    filled(target)
    files = [p for p in (tmp_path / "objects" / "0" / "c").rglob("*") if p.is_file()]
    assert len(files) == len(target.blocks(0)) == 3 * 2 * 2


def test_long_voxels_stay_until_the_others_have_caught_up(tmp_path: Path) -> None:
    target = image(tmp_path, (400, 300, 40), shard=(16, 16, 8))
    assert [level.factors for level in target.levels] == [
        (1, 1, 1), (2, 2, 1), (4, 4, 1), (8, 8, 2), (16, 16, 4), (32, 32, 8),
    ]  # fmt: skip
    assert target.levels[-1].shape == (13, 10, 5)


def test_coarser_resolutions_have_the_commonest_value(tmp_path: Path) -> None:
    target = image(tmp_path)
    values = np.zeros(target.shape, np.uint64)
    values[:, 3:, :] = 7
    target.create()
    for index in target.blocks(0):
        target.write(index, values[box_slices(target.block_box(0, index))])
    for index in target.blocks(1):
        target.coarsen(1, index)
    coarse = target.read(whole_box(target.levels[1].shape), 1)
    assert (coarse[:, 0] == 0).all() and (coarse[:, 2:] == 7).all()


def test_metadata_says_where_each_resolution_lies(tmp_path: Path) -> None:
    target = image(tmp_path)
    target.create({"image-label": {"version": "0.5"}})
    ome = (read_json(tmp_path / "objects" / "zarr.json") or {})["attributes"]["ome"]
    assert ome["version"] == "0.5" and ome["image-label"] == {"version": "0.5"}
    first, second = ome["multiscales"][0]["datasets"][:2]
    assert first["coordinateTransformations"][0]["scale"] == [40.0, 8.0, 8.0]
    assert first["coordinateTransformations"][1]["translation"] == [400.0, 0.0, 80.0]
    assert second["coordinateTransformations"][0]["scale"] == [40.0, 16.0, 16.0]
    assert second["coordinateTransformations"][1]["translation"] == [400.0, 4.0, 84.0]


def test_a_section_has_one_plane(tmp_path: Path) -> None:
    target = image(tmp_path, (40, 33, 1), shard=(16, 16, 1), chunk=(8, 8, 1))
    values = filled(target)
    assert {level.shape[2] for level in target.levels} == {1}
    assert (target.read(whole_box(target.shape)) == values).all()


def test_an_array_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="objects"):
        image(tmp_path).open()
