"""Voxel sizes and axes from the metadata of chunked containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lib.volumes.errors import VolumeError
from lib.volumes.readers.remote import Folder
from lib.volumes.readers.tiff import LENGTHS_NM

Size = tuple[float, float, float]


@dataclass(frozen=True)
class Level:
    """One resolution level of an OME-Zarr image.

    Args:
        path: its array, from the image's group.
        axes: dimensions that are x, y, z; None for one it does not have.
        size: voxel size in nm; None where units are missing.
    """

    path: str
    axes: tuple[int | None, ...]
    size: Size | None


def multiscale_level(
    group: Folder, read: Callable[[Folder], dict[str, Any] | None], name: str | None = None
) -> Level | None:
    """A level of an OME-Zarr image (versions 0.4 and 0.5).

    Args:
        group: folder of the image's group.
        read: reads a JSON file, None where there is none.
        name: path of the level; None for the finest.

    Returns:
        None when the folder is no OME-Zarr image, or has no such level.
    """
    data = read(group / ".zattrs") or (read(group / "zarr.json") or {}).get("attributes", {})
    data = data.get("ome", data)
    if not data.get("multiscales"):
        return None
    image = data["multiscales"][0]
    levels = {str(d["path"]): d for d in image.get("datasets", [])}
    if not levels:
        raise VolumeError(group, "OME-Zarr metadata without a dataset", "at least one level")
    path = name if name is not None else next(iter(levels))
    if path not in levels:
        return None
    axes = [a if isinstance(a, dict) else {"name": a} for a in image.get("axes", _USUAL)]
    names = [str(a.get("name")).lower() for a in axes]
    scale = [
        a * b
        for a, b in zip(_scale(levels[path], len(axes)), _scale(image, len(axes)), strict=True)
    ]
    where = tuple(names.index(a) if a in names else None for a in "xyz")
    if where[0] is None or where[1] is None:
        raise VolumeError(group, f"axes {names}", "axes named x and y")
    lengths = [None if i is None else _length(scale[i], axes[i].get("unit")) for i in where]
    if where[2] is None:
        lengths[2] = lengths[0]
    x, y, z = lengths
    size = None if x is None or y is None or z is None else (x, y, z)
    return Level(path, where, size)


def array_size(attributes: Mapping[str, Any], driver: str) -> tuple[Size | None, Size | None]:
    """Voxel size and offset (nm) from the attributes of a plain array.

    N5 lists x, y, z (`pixelResolution`, `resolution`), Zarr z, y, x (`resolution` or
    `voxel_size`, and `offset`).
    """
    resolution = attributes.get("pixelResolution", attributes.get("resolution"))
    resolution = attributes.get("voxel_size", resolution)
    unit: Any = "nm"
    if isinstance(resolution, dict):
        unit = resolution.get("unit", "nm")
        resolution = resolution.get("dimensions")
    backwards = driver != "n5"
    size = _triple(resolution, unit, backwards)
    factors = attributes.get("downsamplingFactors")
    if size is not None and isinstance(factors, list) and len(factors) == 3:
        x, y, z = (s * float(f) for s, f in zip(size, factors, strict=True))
        size = (x, y, z)
    return size, _triple(attributes.get("offset"), unit, backwards)


_USUAL = ["t", "c", "z", "y", "x"]


def _scale(data: Mapping[str, Any], count: int) -> list[float]:
    for transform in data.get("coordinateTransformations") or []:
        if transform.get("type") == "scale":
            return [float(v) for v in transform["scale"]]
    return [1.0] * count


def _length(value: float, unit: Any) -> float | None:
    factor = LENGTHS_NM.get(str(unit).lower())
    return None if factor is None else round(value * factor, 6)


def _triple(values: Any, unit: Any, backwards: bool) -> Size | None:
    if not isinstance(values, list) or len(values) != 3:
        return None
    lengths = [_length(float(v), unit) for v in (reversed(values) if backwards else values)]
    x, y, z = lengths
    return None if x is None or y is None or z is None else (x, y, z)
