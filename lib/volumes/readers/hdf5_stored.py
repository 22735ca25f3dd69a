"""What of an HDF5 dataset was written: the rest reads as the fill value, without a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from lib.volumes.errors import VolumeError
from lib.volumes.source import Stored


def check_written(where: str, path: Path, dataset: Any) -> None:
    """Refuse a dataset that holds nothing, or whose voxels lie in files that are not there.

    Args:
        path: the file it is in.

    Raises:
        VolumeError: what is missing, of how many.
    """
    if dataset.is_virtual:
        _check_virtual(where, path, dataset)
    elif dataset.external is not None:
        # HDF5 looks for relative names where the program runs.
        files = [Path(str(name)) for name, _, _ in dataset.external]
        _refuse_missing(where, "external files", [str(f) for f in files if not f.exists()], files)
    elif dataset.chunks is not None and dataset.id.get_num_chunks() == 0:
        total = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        raise VolumeError(
            where, f"0 of its {total} chunks", "a dataset that was written", "write the file again"
        )
    elif dataset.id.get_storage_size() == 0:
        raise VolumeError(
            where, "a dataset of which nothing was written", "voxels", "write the file again"
        )


def stored_chunks(dataset: Any, spans: Sequence[tuple[int, int]]) -> Stored:
    """How many chunks that meet a box were written.

    Args:
        spans: the box along the dataset's axes.
    """
    if dataset.chunks is None or dataset.is_virtual:
        return Stored(1, 1)
    cells = [range(a // c, -(-b // c)) for (a, b), c in zip(spans, dataset.chunks, strict=True)]
    total = math.prod(len(c) for c in cells)
    whole = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    if dataset.id.get_num_chunks() == whole:
        return Stored(total, total)
    found = 0

    def count(info: Any) -> None:
        nonlocal found
        places = zip(info.chunk_offset, dataset.chunks, cells, strict=True)
        found += all(offset // c in cell for offset, c, cell in places)

    dataset.id.chunk_iter(count)
    return Stored(found, total)


def _check_virtual(where: str, path: Path, dataset: Any) -> None:
    """Every source of a virtual dataset must be there; patterns of names (%b) at least once."""
    sources = dataset.virtual_sources()
    missing = []
    for source in sources:
        name = str(source.file_name)
        if name == ".":
            if str(source.dset_name) not in dataset.file:
                missing.append(f"{source.dset_name} in {path.name}")
            continue
        first = name.replace("%b", "0").replace("%%", "%")
        there = path.parent / first  # an absolute name stays what it is
        if not there.is_file():
            missing.append(name)
            continue
        with h5py.File(there, "r") as file:
            if "%b" not in str(source.dset_name) and str(source.dset_name) not in file:
                missing.append(f"{source.dset_name} in {name}")
    _refuse_missing(where, "sources of a virtual dataset", missing, sources)


def _refuse_missing(where: str, what: str, missing: Sequence[str], of: Sequence[Any]) -> None:
    if missing:
        raise VolumeError(
            where, f"{len(of) - len(missing)} of {len(of)} {what}; missing: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}",
            "all of them", "put them where the file expects them, or import them one by one",
        )  # fmt: skip
