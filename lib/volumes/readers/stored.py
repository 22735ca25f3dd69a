"""Which chunks of an array are stored: sparse volumes leave out what nobody wrote."""

from __future__ import annotations

import re
from typing import Any

Span = tuple[int, int]

_GRID = re.compile(r"(?:c[./])?(\d+(?:[./]\d+)*)")
_RANGES = re.compile(r"(?:.*/)?(\d+-\d+(?:_\d+-\d+)+)(?:\.gz)?")


def stored_chunks(store: Any) -> list[tuple[Span, ...]]:
    """The boxes of an array's stored chunks, from the names of their files.

    Args:
        store: a tensorstore array (Zarr, N5 or unsharded Precomputed).

    Returns:
        For each chunk its spans along the array's own dimensions, counted from the first
        voxel, in ascending order; empty where the store cannot be listed.
    """
    try:
        keys = store.kvstore.list().result()
    except (ValueError, OSError, RuntimeError, NotImplementedError):
        return []
    shape = store.chunk_layout.write_chunk.shape
    low = [int(v) for v in store.domain.inclusive_min]
    found = []
    for key in keys:
        name = key.decode()
        if match := _RANGES.fullmatch(name):
            spans = [tuple(map(int, part.split("-"))) for part in match[1].split("_")]
            if len(spans) == 3:  # Precomputed: x, y, z, and a channel
                moved = [(a - o, b - o) for (a, b), o in zip(spans, low, strict=False)]
                found.append((*moved, (0, 1)))
        elif match := _GRID.fullmatch(name):
            at = [int(part) for part in re.split(r"[./]", match[1])]
            if len(at) == len(shape):
                found.append(tuple((i * n, (i + 1) * n) for i, n in zip(at, shape, strict=True)))
    return sorted(found)
