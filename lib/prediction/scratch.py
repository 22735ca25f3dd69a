"""Arrays that are too large for memory live in files that vanish."""

from __future__ import annotations

import math
import mmap
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch:
    """Zeroed arrays, in memory up to a size and in temporary files beyond.

    Args:
        memory_bytes: arrays up to this size stay in memory; `math.inf`: all.
        folder: where the files go; the system's temporary folder when not given.
    """

    def __init__(self, memory_bytes: float, folder: Path | None = None) -> None:
        self.memory_bytes, self.folder = memory_bytes, folder
        self.files: list[Any] = []

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self.files:
            file.close()

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A zeroed array; valid until the scratch is left."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self.memory_bytes:
            return np.zeros(shape, dtype)
        file = tempfile.TemporaryFile(dir=self.folder, prefix="neuropil-")  # noqa: SIM115
        self.files.append(file)
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def forget(array: NDArray[Any]) -> None:
    """Let go of the memory by which an array in a file was read or written; its values stay."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)
