"""Voxels of edits, each in a small file of its own that is named by its content."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.volumes.atomic import StagedFiles
from lib.volumes.boxes import Triple
from lib.volumes.errors import VolumeError

SUFFIX = ".z"


class Payloads:
    """A folder of compressed payloads.

    The name is the digest of the content: the same voxels are kept once, and a damaged file is
    noticed when it is read.

    Args:
        folder: made when the first payload comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: dict[str, bytes] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Payloads that are kept inside are on the disk when it ends, flushed all at once.

        They can be read meanwhile. An exception keeps none.
        """
        waiting = self._waiting = {}
        try:
            yield
            self._write(waiting)
        finally:
            self._waiting = None

    def keep_mask(self, mask: NDArray[np.bool_]) -> str:
        """Keep a mask (x, y, z); its name. It is on the disk when this returns."""
        return self._keep(np.packbits(mask.ravel(order="F")).tobytes())

    def mask(self, name: str, shape: Triple) -> NDArray[np.bool_]:
        """A mask of a shape.

        Raises:
            VolumeError: the file is missing or damaged.
        """
        data = np.frombuffer(self._content(name), np.uint8)
        count = math.prod(shape)
        if len(data) != -(-count // 8):
            raise VolumeError(self._path(name), f"{len(data)} bytes", f"a mask of {shape}")
        bits = np.unpackbits(data, count=count)
        return bits.view(np.bool_).reshape(shape, order="F")

    def keep_ids(self, ids: NDArray[np.uint32]) -> str:
        """Keep a table of ids (N,); its name."""
        return self._keep(ids.astype("<u4").tobytes())

    def ids(self, name: str) -> NDArray[np.uint32]:
        """A table of ids (N,).

        Raises:
            VolumeError: the file is missing or damaged.
        """
        return np.frombuffer(self._content(name), "<u4").astype(np.uint32)

    def _keep(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()[:40]
        if not self._path(name).exists():
            made = {name: zlib.compress(content, 1)}
            if self._waiting is None:
                self._write(made)
            else:
                self._waiting |= made
        return name

    def _write(self, made: Mapping[str, bytes]) -> None:
        with StagedFiles() as staged:
            for name, packed in made.items():
                staged.create(self._path(name)).write(packed)
            staged.commit()

    def _content(self, name: str) -> bytes:
        path = self._path(name)
        found: Any = None
        try:
            waiting = self._waiting or {}
            content = zlib.decompress(waiting.get(name) or path.read_bytes())
            if hashlib.sha256(content).hexdigest().startswith(name):
                return content
            found = "other content than when it was written"
        except (OSError, zlib.error) as error:
            found = error
        raise VolumeError(path, f"an edit's voxels cannot be read ({found})") from None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"
