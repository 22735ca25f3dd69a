"""Scratch arrays: zeroed, on the disk when large, gone afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.prediction.scratch import Scratch


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
