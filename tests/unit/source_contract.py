"""What every reader keeps to. A new format is tested by subclassing `SourceContract`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from volume_files import SIZE_NM, volume

from lib.volumes.boxes import Box, box_slices, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source
from lib.volumes.source import Source

Index = tuple[Any, ...]

INDICES: tuple[Index, ...] = (
    (slice(None), slice(None), slice(3, 4)),
    (slice(None, None, 3), slice(5, 1, -2), 4),
    (..., slice(2, 5)),
    (3,),
    (-1, -2, -3),
    (slice(4, 4), slice(None), slice(None)),
    (slice(-3, None), slice(0, 100)),
)


def inner_boxes(shape: tuple[int, ...], count: int = 8) -> list[Box]:
    """Boxes of a volume: its corners and random ones."""
    rng = np.random.default_rng(0)
    x, y, z = shape
    boxes: list[Box] = [((0, 1), (0, 1), (0, 1)), ((x - 1, x), (y - 1, y), (z - 1, z))]
    for _ in range(count):
        spans = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in shape]
        boxes.append(tuple((a, b) for a, b in spans))  # type: ignore[arg-type]
    return boxes


class SourceContract(ABC):
    """Tests of one format; a subclass writes a volume in it.

    Attributes:
        dtypes: that the format can hold.
        sized: whether its files hold a voxel size.
    """

    dtypes: ClassVar[tuple[Any, ...]] = (np.uint8, np.uint16)
    sized: ClassVar[bool] = True

    @abstractmethod
    def write(self, folder: Path, data: Any) -> str:
        """Write (X, Y, Z) voxels of SIZE_NM; give what a user would name."""

    def open(self, folder: Path, data: Any) -> Source:
        return open_source(self.write(folder, data))

    def test_voxels_type_and_size_are_those_that_were_written(self, tmp_path: Path) -> None:
        for dtype in self.dtypes:
            folder = tmp_path / np.dtype(dtype).name
            folder.mkdir()
            data = volume(dtype=dtype)
            source = self.open(folder, data)
            assert source.shape == data.shape and source.dtype == dtype and source.ndim == 3
            assert (np.asarray(source) == data).all()
            size = source.info.voxel_size_nm
            assert size == pytest.approx(SIZE_NM) if self.sized else size is None
            source.close()

    def test_boxes_in_any_order(self, tmp_path: Path) -> None:
        data = volume(dtype=self.dtypes[-1])
        source = self.open(tmp_path, data)
        for box in inner_boxes(data.shape):
            assert (source.read(box) == data[box_slices(box)]).all(), box

    def test_it_slices_like_an_array(self, tmp_path: Path) -> None:
        data = volume(dtype=self.dtypes[0])
        source = self.open(tmp_path, data)
        for index in INDICES:
            found, expected = source[index], data[index]
            assert found.shape == expected.shape and (found == expected).all(), index

    def test_a_single_section_has_depth_one(self, tmp_path: Path) -> None:
        data = volume((6, 5, 1), dtype=self.dtypes[0])
        source = self.open(tmp_path, data)
        assert source.shape == (6, 5, 1)
        assert (source.read(((1, 4), (2, 3), (0, 1))) == data[1:4, 2:3]).all()

    def test_threads_read_it_at_once(self, tmp_path: Path) -> None:
        data = volume(dtype=self.dtypes[0])
        source = self.open(tmp_path, data)
        boxes = inner_boxes(data.shape, 24)
        with ThreadPoolExecutor(4) as pool:
            for box, found in zip(boxes, pool.map(source.read, boxes), strict=True):
                assert (found == data[box_slices(box)]).all(), box

    def test_reading_changes_nothing_on_the_disk(self, tmp_path: Path) -> None:
        text = self.write(tmp_path, volume(dtype=self.dtypes[0]))
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        source = open_source(text)
        np.asarray(source)
        source.close()
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before

    def test_all_that_was_written_is_stored(self, tmp_path: Path) -> None:
        source = self.open(tmp_path, volume(dtype=self.dtypes[0]))
        told = source.stored(whole_box(source.shape))
        assert told.found == told.total >= 1

    def test_a_cut_file_is_told_by_name(self, tmp_path: Path) -> None:
        text = self.write(tmp_path, volume((40, 40, 20), dtype=self.dtypes[-1]))
        largest = max(
            (p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
        )
        os.truncate(largest, largest.stat().st_size * 2 // 3)
        with pytest.raises(VolumeError) as caught:
            np.asarray(open_source(text))
        assert str(tmp_path) in str(caught.value)

    def test_what_is_not_there_is_told_by_name(self, tmp_path: Path) -> None:
        text = self.write(tmp_path, volume(dtype=self.dtypes[0]))
        gone = next(tmp_path.iterdir()).rename(tmp_path / "elsewhere")
        with pytest.raises(VolumeError, match="no such file"):
            open_source(text)
        assert gone.exists()
