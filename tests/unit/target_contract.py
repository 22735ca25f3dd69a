"""What every export target keeps to. A new one is tested by subclassing `TargetContract`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from volume_files import SIZE_NM

from lib.volumes.boxes import Box, box_origin, box_shape, box_slices
from lib.volumes.errors import VolumeError
from lib.volumes.readers.opening import open_source
from lib.volumes.source import Source
from lib.volumes.writers.target import LabelTarget, TargetSpec

FRAME: Box = ((3, 23), (2, 21), (1, 12))
ONE: Box = ((5, 14), (2, 21), (1, 7))
OTHER: Box = ((14, 23), (6, 9), (4, 12))


def labels(box: Box, dtype: Any, seed: int = 0) -> np.ndarray:
    """Random values above 0 for a box."""
    return np.random.default_rng(seed).integers(1, 200, box_shape(box)).astype(dtype)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


class TargetContract(ABC):
    """Tests of one kind of target.

    Attributes:
        kind: the class under test.
        name: file or folder to write to.
        fills_in: whether a second item can go into the same target.
        named: whether the target holds arrays by names.
        placed: whether a reader finds the frame's place in voxels.
        outside: values that voxels of no item can have.
    """

    kind: ClassVar[type[LabelTarget]]
    name: ClassVar[str]
    fills_in: ClassVar[bool] = True
    named: ClassVar[bool] = True
    placed: ClassVar[bool] = False
    outside: ClassVar[tuple[int, ...]] = (0, 7)

    @abstractmethod
    def address(self, path: Path, dataset: str) -> str:
        """What a user names to read the target back."""

    def spec(self, folder: Path, place: Box, **options: Any) -> TargetSpec:
        known: dict[str, Any] = {
            "path": folder / self.name, "dataset": "a/b", "frame": FRAME, "place": place,
            "dtype": np.dtype(np.uint8), "voxel_size_nm": SIZE_NM, "outside": 0, "replace": False,
        }  # fmt: skip
        return TargetSpec(**known | options)

    def put(self, spec: TargetSpec, values: np.ndarray, **attributes: Any) -> int:
        """Write one item; give the voxels that progress counted."""
        counted = 0

        def progress(voxels: int) -> None:
            nonlocal counted
            counted += voxels

        with self.kind(spec) as target:
            target.write(lambda box: values[box_slices(box)], progress)
            if attributes:
                target.set_attributes(attributes)
        return counted

    def back(self, spec: TargetSpec) -> Source:
        return open_source(self.address(spec.path, spec.dataset), "instance")

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
    def test_an_item_comes_back_at_its_place(self, tmp_path: Path, dtype: Any) -> None:
        for outside in self.outside:
            folder = tmp_path / str(outside)
            spec = self.spec(folder, ONE, dtype=np.dtype(dtype), outside=outside)
            values = labels(ONE, dtype)
            assert self.put(spec, values) == values.size
            source = self.back(spec)
            assert source.dtype == dtype and source.info.voxel_size_nm == pytest.approx(SIZE_NM)
            if self.placed:
                assert source.info.origin == box_origin(FRAME)
            expected = np.full(box_shape(FRAME), outside, dtype)
            expected[box_slices(spec.inner_place())] = values
            assert (np.asarray(source) == expected).all()

    def test_a_second_item_fills_in(self, tmp_path: Path) -> None:
        one, other = (self.spec(tmp_path, place) for place in (ONE, OTHER))
        first, second = labels(ONE, np.uint8), labels(OTHER, np.uint8, 1)
        self.put(one, first)
        if not self.fills_in:
            with pytest.raises(VolumeError, match="--replace"):
                self.put(other, second)
            return
        self.put(other, second)
        found = np.asarray(self.back(one))
        assert (found[box_slices(one.inner_place())] == first).all()
        assert (found[box_slices(other.inner_place())] == second).all()

    def test_replacing_forgets_what_was_there(self, tmp_path: Path) -> None:
        self.put(self.spec(tmp_path, ONE), labels(ONE, np.uint8), class_sets={"110": ["axon"]})
        spec = self.spec(tmp_path, OTHER, replace=True)
        values = labels(OTHER, np.uint8, 1)
        self.put(spec, values)
        expected = np.zeros(box_shape(FRAME), np.uint8)
        expected[box_slices(spec.inner_place())] = values
        source = self.back(spec)
        assert (np.asarray(source) == expected).all() and not source.info.attributes

    def test_what_is_replaced_stays_until_the_new_one_is_whole(self, tmp_path: Path) -> None:
        self.put(self.spec(tmp_path, ONE), labels(ONE, np.uint8), class_sets={"110": ["axon"]})
        before = content(tmp_path)

        def stops(box: Box) -> np.ndarray:
            assert before.items() <= content(tmp_path).items(), "as a kill would leave it"
            raise OSError("the disk fails")

        spec = self.spec(tmp_path, OTHER, replace=True, voxel_size_nm=(9.0, 9.0, 9.0))
        with pytest.raises(OSError, match="the disk fails"), self.kind(spec) as target:
            target.write(stops, None)
        assert content(tmp_path) == before

    def test_a_group_is_not_replaced(self, tmp_path: Path) -> None:
        """Everything in it would go."""
        if not self.named:
            return
        self.put(self.spec(tmp_path, ONE), labels(ONE, np.uint8))
        before = content(tmp_path)
        for replace in (False, True):
            with pytest.raises(VolumeError, match="another target"):
                self.kind(self.spec(tmp_path, ONE, dataset="a", replace=replace))
            assert content(tmp_path) == before

    def test_another_frame_or_type_is_refused(self, tmp_path: Path) -> None:
        self.put(self.spec(tmp_path, ONE), labels(ONE, np.uint8))
        before = content(tmp_path)
        larger = (*FRAME[:2], (1, 13))
        for change in ({"frame": larger}, {"dtype": np.dtype(np.uint32)}):
            with pytest.raises(VolumeError, match="--replace"):
                self.put(self.spec(tmp_path, ONE, **change), labels(ONE, np.uint8))
            assert content(tmp_path) == before

    def test_attributes_come_back(self, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, ONE)
        self.put(spec, labels(ONE, np.uint8), class_sets={"110": ["axon", "soma"]})
        assert self.back(spec).info.attributes["class_sets"] == {"110": ["axon", "soma"]}
        if self.fills_in:
            with self.kind(self.spec(tmp_path, OTHER)) as target:
                assert target.attributes["class_sets"] == {"110": ["axon", "soma"]}
                target.write(lambda box: np.zeros(box_shape(box), np.uint8), None)

    def test_a_fault_leaves_no_new_target(self, tmp_path: Path) -> None:
        def fail(box: Box) -> np.ndarray:
            raise OSError("the source is gone")

        with pytest.raises(OSError, match="gone"), self.kind(self.spec(tmp_path, ONE)) as target:
            target.write(fail, None)
        assert content(tmp_path) == {}
        self.put(self.spec(tmp_path, ONE), labels(ONE, np.uint8))
        before = content(tmp_path)
        again = self.spec(tmp_path, ONE, replace=not self.fills_in)
        with pytest.raises(OSError, match="gone"), self.kind(again) as target:
            target.write(fail, None)
        assert content(tmp_path) == before

    def test_what_is_there_and_no_target_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / self.name
        if path.suffix in ("", ".zarr"):
            path = path / "a" / "b" / "notes.txt" if path.suffix else path / "notes.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("these are no labels")
        before = content(tmp_path)
        with pytest.raises(VolumeError):
            self.put(self.spec(tmp_path, ONE), labels(ONE, np.uint8))
        assert content(tmp_path) == before
