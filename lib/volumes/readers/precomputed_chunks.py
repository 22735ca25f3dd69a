"""The chunks of a Precomputed scale on a local disk: which there are, and unpacking them.

CloudVolume leaves NAME.gz beside the metadata. Web servers give such files out under their
plain names; on a disk nobody does. A box's chunks are unpacked into memory and read there by
tensorstore, whatever their encoding.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

import imagecodecs
import tensorstore as ts

from lib.volumes.errors import VolumeError
from lib.volumes.source import Stored

_UNPACK: dict[str, Callable[[bytes], bytes | bytearray]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".br": imagecodecs.brotli_decode,
    ".zst": imagecodecs.zstd_decode,
    ".zstd": imagecodecs.zstd_decode,
    ".xz": lzma.decompress,
    ".lzma": lzma.decompress,
    ".bz2": bz2.decompress,
}
_PACKED = frozenset(_UNPACK) - {""}


LOOKED_AT = 10_000
"""Files of a folder that are looked at to see how its chunks are named."""
_SPAN = r"-?\d+--?\d+"
_SUFFIXES = "|".join(re.escape(s) for s in _UNPACK)
_NAME = re.compile(rf"{_SPAN}_{_SPAN}_{_SPAN}({_SUFFIXES})|[0-9a-f]+\.shard")


class PrecomputedChunks:
    """The chunks of one scale.

    Args:
        root: the volume's folder.
        info: the volume's metadata.
        index: which scale it is.

    Raises:
        VolumeError: none of the scale's chunks is there.
    """

    def __init__(self, root: Path, info: Mapping[str, Any], index: int) -> None:
        scale = info["scales"][index]
        self._info, self._index = dict(info), index
        self._key = str(scale["key"])
        self._folder = root / self._key
        self._low = [int(v) for v in scale.get("voxel_offset", (0, 0, 0))]
        self._high = [a + int(n) for a, n in zip(self._low, scale["size"], strict=True)]
        self._chunk = [int(n) for n in scale["chunk_sizes"][0]]
        self._sharded = "sharding" in scale
        names = self._first_names()
        if not any(_NAME.fullmatch(n) for n in names):
            total = math.prod(
                -(-int(n) // c) for n, c in zip(scale["size"], self._chunk, strict=True)
            )
            there = f", but {len(names)} other files, such as {names[0]}" if names else ""
            raise VolumeError(
                self._folder, f"0 of its {total} chunks{there}", "a volume that was written",
                "fetch or write it again",
            )  # fmt: skip
        self.packed = not self._sharded and any(Path(n).suffix in _PACKED for n in names)

    def _first_names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(p.name for p in islice(self._folder.iterdir(), LOOKED_AT))

    def stored(self, low: Sequence[int], high: Sequence[int]) -> Stored:
        """How many of a box's chunks there are, under any name; of shards it is not told."""
        if self._sharded:
            return Stored(1, 1)
        found = [self._path(name) is not None for name in self._names(low, high)]
        return Stored(sum(found), len(found))

    def unpack(self, low: Sequence[int], high: Sequence[int]) -> Any:
        """A tensorstore array that holds the chunks of a box, in memory.

        Raises:
            OSError, ValueError: a chunk that cannot be unpacked.
        """
        context = ts.Context()
        base = {"driver": "memory", "path": "pc/"}
        kept = ts.KvStore.open(base, context=context).result()
        kept.write("info", json.dumps(self._info)).result()
        for name in self._names(low, high):
            path = self._path(name)
            if path is None:
                continue
            unpack = _UNPACK[path.name.removeprefix(name)]
            try:
                data = unpack(path.read_bytes())
            except Exception as error:  # every codec has errors of its own
                raise ValueError(f"chunk {path.name}: {error}") from error
            kept.write(f"{self._key}/{name}", bytes(data)).result()
        spec = {"driver": "neuroglancer_precomputed", "scale_index": self._index, "kvstore": base}
        return ts.open(spec, open=True, read=True, context=context).result()

    def _names(self, low: Sequence[int], high: Sequence[int]) -> Iterator[str]:
        spans = [
            range((a - o) // c, -(-(b - o) // c))
            for a, b, c, o in zip(low[:3], high[:3], self._chunk, self._low, strict=True)
        ]
        for cell in product(*spans):
            ends = [
                (o + i * c, min(o + (i + 1) * c, end))
                for i, c, o, end in zip(cell, self._chunk, self._low, self._high, strict=True)
            ]
            yield "_".join(f"{a}-{b}" for a, b in ends)

    def _path(self, name: str) -> Path | None:
        for suffix in _UNPACK:
            path = self._folder / (name + suffix)
            if path.is_file():
                return path
        return None
