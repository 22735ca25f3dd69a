"""Which chunks of a chunked array exist: the others read as the fill value, without a word."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from lib.volumes.errors import VolumeError
from lib.volumes.readers.remote import Folder
from lib.volumes.source import Stored

MOST_COUNTED = 1 << 18
"""Chunks that are asked for one by one; of more it is only told whether all or none are there."""
AT_ONCE = 4096


def nothing_stored(store: Any) -> bool:
    """Whether no chunk of a tensorstore array exists; False where the store cannot tell."""
    try:
        return bool(store.storage_statistics(query_not_stored=True).result().not_stored)
    except (ValueError, OSError, RuntimeError, NotImplementedError):
        return False  # web servers list nothing


def check_any_stored(where: str, store: Any, folder: Folder) -> None:
    """Refuse an array of which nothing was written, or whose chunks have other names.

    Raises:
        VolumeError: no chunk is found; says how many there should be and what lies there.
    """
    if not nothing_stored(store):
        return
    chunk = store.chunk_layout.write_chunk.shape or store.shape
    total = math.prod(-(-n // c) for n, c in zip(store.shape, chunk, strict=True))
    found = list(islice(_other_files(folder), 1000)) if isinstance(folder, Path) else []
    count = f"{len(found)}{'+' if len(found) == 1000 else ''}"
    there = f", but {count} other files, such as {found[0]}" if found else ""
    raise VolumeError(
        where, f"0 of its {total} chunks{there}", "an array that was written",
        "fetch or write it again, with the names of chunks that its metadata says",
    )  # fmt: skip


def count_chunks(store: Any, low: Sequence[int], high: Sequence[int]) -> Stored:
    """How many chunks that meet a box exist.

    Args:
        low, high: the box in the array's own coordinates.
    """
    layout = store.chunk_layout
    shape = layout.write_chunk.shape or store.shape
    origin = layout.grid_origin or (0,) * store.rank
    spans = [
        range((a - o) // c, -(-(b - o) // c))
        for a, b, c, o in zip(low, high, shape, origin, strict=True)
    ]
    total = math.prod(len(s) for s in spans)
    part = store[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    try:
        whole = part.storage_statistics(query_not_stored=True, query_fully_stored=True).result()
    except (ValueError, OSError, RuntimeError, NotImplementedError):
        return Stored(total, total)  # web servers list nothing
    if whole.not_stored or whole.fully_stored or total > MOST_COUNTED:
        return Stored(0 if whole.not_stored else total, total)
    cells = iter(product(*spans))
    found = 0
    while batch := list(islice(cells, AT_ONCE)):
        asked = [
            store[
                tuple(
                    slice(max(a, o + i * c), min(b, o + (i + 1) * c))
                    for i, a, b, c, o in zip(cell, low, high, shape, origin, strict=True)
                )
            ].storage_statistics(query_not_stored=True)
            for cell in batch
        ]
        found += sum(not answer.result().not_stored for answer in asked)
    return Stored(found, total)


def _other_files(folder: Path) -> Iterator[str]:
    """Names of files under an array's folder that are not its metadata."""
    if not folder.is_dir():
        return
    for path in folder.rglob("*"):
        name = path.name
        if name.endswith(".json") or name.startswith(".z") or name == "info" or path.is_dir():
            continue
        yield str(path.relative_to(folder))
