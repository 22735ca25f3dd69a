"""Scratch arrays: zeroed, on the disk when large, gone afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.prediction.scratch import Scratch, forget


def test_small_arrays_stay_in_memory_and_large_ones_go_to_files(tmp_path: Path) -> None:
    with Scratch(1000, tmp_path) as scratch:
        small, large = scratch.array((10, 100), np.uint8), scratch.array((10, 101), np.uint8)
        assert not isinstance(small, np.memmap) and isinstance(large, np.memmap)
        for array in (small, large):
            assert not array.any()
            array[3, 4] = 7
            assert array[3, 4] == 7 and array.sum() == 7
        assert len(scratch.files) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_files_are_gone_afterwards_also_after_a_fault(tmp_path: Path, fails: bool) -> None:
    try:
        with Scratch(0, tmp_path) as scratch:
            held = scratch.array((50, 50), np.float32)
            held[:] = 1
            assert not list(tmp_path.iterdir()), "a killed process leaves nothing either"
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert all(file.closed for file in scratch.files) and not list(tmp_path.iterdir())


def resident(name: str) -> int:
    """KiB in memory of the files of that name that this process has mapped."""
    kib, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()
        if "-" in head[0] and not head[0].endswith(":"):
            ours = name in line
        elif ours and head[0] == "Rss:":
            kib += int(head[1])
    return kib


def test_what_lies_in_a_file_can_be_forgotten_and_stays(tmp_path: Path) -> None:
    with Scratch(0, tmp_path) as scratch:
        array = scratch.array((3, 2**16, 5), np.float64)
        array[...] = np.arange(5)
        part = array.transpose(1, 0, 2)[10:20]
        assert resident(str(tmp_path)) >= array.nbytes // 1024
        forget(part)
        assert resident(str(tmp_path)) < 64
        assert (array == np.arange(5)).all()
    plain = np.ones(3)
    forget(plain)
    assert plain.all()
