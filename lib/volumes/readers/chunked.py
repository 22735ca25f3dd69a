"""Zarr 2 and 3, OME-Zarr, N5 and Precomputed, through tensorstore."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from lib.volumes.boxes import Triple
from lib.volumes.contents import HEAD_BYTES, stand_in
from lib.volumes.errors import VolumeError, damaged
from lib.volumes.readers.axes import Axes
from lib.volumes.readers.chunked_sizes import (
    Grid,
    Level,
    array_grid,
    multiscale_level,
    multiscale_names,
)
from lib.volumes.readers.chunked_source import ChunkedSource
from lib.volumes.readers.precomputed_chunks import PrecomputedChunks
from lib.volumes.readers.remote import Folder, context_of, kvstore_of
from lib.volumes.readers.roles import Role, choose_dataset, finest_of
from lib.volumes.readers.stored_chunks import check_any_stored, nothing_stored
from lib.volumes.readers.webknossos import Layer, find_layer
from lib.volumes.source import Source, SourceInfo

OF_PYRAMIDS = ("pixelResolution", "resolution", "axes", "units", "offset")
"""Attributes that N5 programs keep at the group of a pyramid for all its levels."""

DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3", "attributes.json": "n5"}


def open_zarr(path: Folder, dataset: str, role: Role) -> Source:
    """Open an array of a Zarr 2, Zarr 3 or N5 container, or a level of an OME-Zarr image.

    Args:
        path: the container, a group or an array in it.
        dataset: path of an array or of a group in it; "" for the only one there is.

    Raises:
        VolumeError: no such array (the existing ones are listed), or a damaged one.
    """
    target = path / dataset.strip("/") if dataset else path
    level = multiscale_level(target, read_json)
    if level is not None:
        target = target / level.path
    elif _driver(target) is not None:
        # One level of an OME-Zarr image: the group around it knows the sizes.
        level = multiscale_level(target.parent, read_json, target.name)
    else:
        arrays = dict(list_arrays(path))
        name = (None if dataset else finest_of(arrays)) or choose_dataset(
            path, dataset, role, arrays
        )
        return open_zarr(path, name, role)
    name = _inside(target, path) if target != path else ""
    return _open(path, name, level)


def open_precomputed(path: Folder, dataset: str = "") -> Source:
    """Open a scale of a Precomputed volume.

    Args:
        dataset: number or key of the scale; "" for the finest.

    Raises:
        VolumeError: damaged, several channels, or no such scale.
    """
    info = read_json(path / "info") or {}
    scales = info.get("scales", [])
    keys = [str(s.get("key")) for s in scales]
    at = keys.index(dataset) if dataset in keys else int(dataset) if dataset.isdigit() else 0
    if (dataset and dataset not in keys and not dataset.isdigit()) or at >= len(scales):
        raise VolumeError(path, f"no scale {dataset!r}", f"one of: {', '.join(keys) or 'none'}")
    store = _open_store(path, {"driver": "neuroglancer_precomputed", "scale_index": at}, path)
    if int(store.shape[3]) != 1:
        raise VolumeError(path, f"{store.shape[3]} channels", "one channel of grey values or ids")
    x, y, z = (float(v) for v in scales[at]["resolution"])
    a, b, c = (int(v) for v in store.domain.inclusive_min[:3])
    source = SourceInfo(
        str(path), dataset, _shape(store, (0, 1, 2)), np.dtype(store.dtype.numpy_dtype),
        (x, y, z), (a, b, c), True, chunk_depth=int(store.chunk_layout.read_chunk.shape[2]),
        attributes=read_json(path / "neuropil.json") or {},
    )  # fmt: skip
    chunks = PrecomputedChunks(path, info, at) if isinstance(path, Path) else None
    return ChunkedSource(source, store, (0, 1, 2), chunks)


def list_arrays(
    folder: Folder, inside: str = "", depth: int = 6
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Arrays under a folder with their shapes; chunks are not looked into."""
    driver = _driver(folder)
    if driver is not None:
        name = {v: k for k, v in DRIVERS.items()}[driver]
        data = read_json(folder / name) or {}
        yield inside, tuple(int(n) for n in data.get("shape", data.get("dimensions", ())))
        return
    if depth == 0:
        return
    children: list[Folder] = [*folder.iterdir()]
    for child in sorted(children, key=str):
        if child.is_dir() and not child.name.startswith("."):
            yield from list_arrays(child, f"{inside}/{child.name}".strip("/"), depth - 1)


def read_json(path: Folder) -> dict[str, Any] | None:
    """A JSON object of a container; None where the file does not exist.

    Raises:
        VolumeError: the file holds something else.
    """
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except VolumeError:
        raise
    except (ValueError, OSError) as error:
        if content := stand_in(text[:HEAD_BYTES].encode()):
            raise VolumeError(path, content.found, remedy=content.remedy) from error
        raise damaged(str(path), error) from error
    if not isinstance(data, dict):
        raise VolumeError(path, "no JSON object", "the container's metadata")
    return data


def is_container(folder: Folder) -> bool:
    """Whether a folder is a Zarr or N5 container, group or array."""
    names = (".zarray", ".zgroup", "zarr.json", "attributes.json")
    return folder.suffix in (".zarr", ".n5") or any((folder / n).exists() for n in names)


def is_array(folder: Folder) -> bool:
    """Whether a folder is an array of a Zarr or N5 container."""
    return _driver(folder) is not None


def level_names(group: Folder) -> list[str]:
    """Paths of the levels of an OME-Zarr image, from its group; none where there is no image."""
    return multiscale_names(group, read_json)


def _driver(folder: Folder) -> str | None:
    """The tensorstore driver of an array's folder; None where there is no array."""
    if (folder / ".zarray").exists():
        return "zarr"
    if (read_json(folder / "zarr.json") or {}).get("node_type") == "array":
        return "zarr3"
    if "dimensions" in (read_json(folder / "attributes.json") or {}):
        return "n5"
    return None


def _inside(target: Folder, path: Folder) -> str:
    """The way from a container to a folder in it."""
    return str(target).removeprefix(str(path)).strip("/")


def _open(path: Folder, name: str, level: Level | None) -> Source:
    folder = path / name if name else path
    driver = _driver(folder)
    if driver is None:
        raise VolumeError(folder, "no array", "a Zarr or N5 array")
    store = _open_stored(folder, driver)
    attributes = _attributes(folder, driver)
    layer = find_layer(folder, read_json)
    grid = _grid(folder, store, attributes, driver, level or layer)
    z = grid.axes[2]
    chunk = store.chunk_layout.read_chunk.shape
    info = SourceInfo(
        str(path), name, _shape(store, grid.axes), np.dtype(store.dtype.numpy_dtype),
        grid.size.nm, offset_nm=grid.offset_nm, size_fault=grid.size.fault,
        chunk_depth=int(chunk[z]) if z is not None and chunk else 1,
        attributes=attributes.get("neuropil", {}),
    )  # fmt: skip
    check_any_stored(info.where, store, folder)
    source = ChunkedSource(info, store, grid.axes)
    return source if layer is None else layer.inside(source)


def _grid(
    folder: Folder,
    store: Any,
    attributes: Mapping[str, Any],
    driver: str,
    outer: Level | Layer | None,
) -> Grid:
    """How an array lies in space: by the metadata around it, else by its own."""
    labels = [str(label) for label in store.domain.labels]
    if outer is None:
        around = _attributes(folder.parent, driver) if driver == "n5" else {}
        shared = {k: v for k, v in around.items() if k in OF_PYRAMIDS}
        return array_grid(folder, store.shape, {**shared, **attributes}, driver, labels)
    grid = outer.grid(folder, store.shape)
    if any(labels):
        own = array_grid(folder, store.shape, {}, driver, labels)
        if own.axes != grid.axes:
            raise VolumeError(
                folder, f"axes {labels}, but {outer.names} in the metadata around it",
                "one order of axes", "correct the metadata",
            )  # fmt: skip
    return grid


def _shape(store: Any, axes: Axes) -> Triple:
    x, y, z = (1 if a is None else int(store.shape[a]) for a in axes)
    return x, y, z


def _attributes(folder: Folder, driver: str) -> Mapping[str, Any]:
    if driver == "zarr":
        return read_json(folder / ".zattrs") or {}
    if driver == "zarr3":
        found = (read_json(folder / "zarr.json") or {}).get("attributes", {})
        return dict(found)
    return read_json(folder / "attributes.json") or {}


def _open_stored(folder: Folder, driver: str) -> Any:
    """Open an array; Zarr 2 that does not say how its chunks are named goes by what is there."""
    store = _open_store(folder, {"driver": driver}, folder)
    if driver == "zarr" and "dimension_separator" not in (read_json(folder / ".zarray") or {}):
        nested = {"driver": driver, "metadata": {"dimension_separator": "/"}}
        if store.rank > 1 and nothing_stored(store):
            other = _open_store(folder, nested, folder)
            return store if nothing_stored(other) else other
    return store


def _open_store(folder: Folder, spec: dict[str, Any], where: Folder) -> Any:
    spec = {**spec, "kvstore": kvstore_of(folder)}
    try:
        return ts.open(spec, open=True, read=True, context=context_of(folder)).result()
    except (ValueError, OSError, RuntimeError) as error:
        raise damaged(str(where), error) from error
