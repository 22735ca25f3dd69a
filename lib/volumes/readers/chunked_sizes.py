"""Axes, voxel sizes and offsets from the metadata of chunked containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.volumes.errors import VolumeError
from lib.volumes.lengths import UNSTATED, Size, StatedSize, stated_size
from lib.volumes.readers.axes import Axes, along, axis_names, offset_nm, read_names, space_axes
from lib.volumes.readers.remote import Folder


@dataclass(frozen=True)
class Grid:
    """How an array lies in space.

    Args:
        axes: its axes that are x, y, z.
        size: voxel size, or why there is none.
        offset_nm: place of the first voxel (x, y, z); None where it is not stated.
    """

    axes: Axes
    size: StatedSize = UNSTATED
    offset_nm: Size | None = None


@dataclass(frozen=True)
class Level:
    """One resolution level of an OME-Zarr image.

    Args:
        path: its array, from the image's group.
        names: of the array's axes, lower case.
        scale, offset: along the array's axes.
        units: of the array's axes, None where there is none.
    """

    path: str
    names: list[str]
    scale: list[float]
    offset: list[float] | None
    units: list[Any]

    def grid(self, where: Folder | str, shape: Sequence[int]) -> Grid:
        """How the level's array lies in space.

        Raises:
            VolumeError: axes without x and y, or other than the array has.
        """
        if len(self.names) != len(shape):
            raise VolumeError(
                where, f"{len(self.names)} axes {self.names} for an array of shape {tuple(shape)}",
                "OME-Zarr metadata with the array's axes",
            )  # fmt: skip
        if not {"x", "y"} <= set(self.names):
            raise VolumeError(where, f"axes {self.names}", "axes named x and y")
        axes = space_axes(where, shape, self.names)
        units = along(self.units, axes, len(shape))
        size = stated_size(along(self.scale, axes, len(shape)) or [None] * 3, units)
        return Grid(axes, size, offset_nm(self.offset, units, axes, len(shape)))


def multiscale_level(
    group: Folder, read: Callable[[Folder], dict[str, Any] | None], name: str | None = None
) -> Level | None:
    """A level of an OME-Zarr image (versions 0.1 to 0.5).

    Args:
        group: folder of the image's group.
        read: reads a JSON file, None where there is none.
        name: path of the level; None for the finest.

    Returns:
        None when the folder is no OME-Zarr image, or has no such level.
    """
    image = _multiscale(group, read)
    if image is None:
        return None
    levels = {str(d["path"]): d for d in image.get("datasets", [])}
    if not levels:
        raise VolumeError(group, "OME-Zarr metadata without a dataset", "at least one level")
    path = name if name is not None else next(iter(levels))
    if path not in levels:
        return None
    listed = image.get("axes", _USUAL)
    names = read_names(listed) or []
    units = [a.get("unit") if isinstance(a, Mapping) else None for a in listed]
    scale, offset = _transform(group, levels[path], len(names))
    outer_scale, outer_offset = _transform(group, image, len(names))
    if offset is not None or outer_offset is not None:
        inner, outer = offset or [0.0] * len(names), outer_offset or [0.0] * len(names)
        offset = [t * s + o for t, s, o in zip(inner, outer_scale, outer, strict=True)]
    scale = [a * b for a, b in zip(scale, outer_scale, strict=True)]
    return Level(path, names, scale, offset, units)


def multiscale_names(group: Folder, read: Callable[[Folder], dict[str, Any] | None]) -> list[str]:
    """Paths of the levels of an OME-Zarr image; none where the folder is no such image."""
    image = _multiscale(group, read) or {}
    return [str(d["path"]) for d in image.get("datasets", [])]


def _multiscale(
    group: Folder, read: Callable[[Folder], dict[str, Any] | None]
) -> dict[str, Any] | None:
    data = read(group / ".zattrs") or (read(group / "zarr.json") or {}).get("attributes", {})
    listed = data.get("ome", data).get("multiscales")
    return dict(listed[0]) if listed else None


def array_grid(
    where: Folder | str, shape: Sequence[int], attributes: Mapping[str, Any], driver: str,
    labels: Sequence[str] = (),
) -> Grid:  # fmt: skip
    """How a plain array lies in space, by its attributes.

    Names of axes are those of Zarr 3 (`labels`), xarray, funlib, n5 and COSEM; without names
    N5 is x, y, z and everything else z, y, x. `resolution`, `voxel_size` and `offset` are
    listed along the array's axes, `pixelResolution` as well, `transform` by its own names.

    Raises:
        VolumeError: several channels or time points, or names that contradict each other.
    """
    rank = len(shape)
    named = read_names(labels) if any(labels) else None
    names = named if named and any(named) else _attribute_names(attributes, driver)
    axes = space_axes(where, shape, names, "xyz" if driver == "n5" else "zyx")
    transform = attributes.get("transform")
    if isinstance(transform, Mapping) and "scale" in transform:
        own = read_names(transform.get("axes")) or []
        if {"x", "y"} <= set(own) and len(own) == len(transform["scale"]):
            place = space_axes(where, [1] * len(own), own)
            units = along(transform.get("units") or [None] * len(own), place, len(own))
            lengths = along(transform["scale"], place, len(own)) or [None] * 3
            offset = offset_nm(transform.get("translate"), units, place, len(own))
            return Grid(axes, stated_size(lengths, units), offset)
    resolution, unit = _resolution(attributes)
    units = along(unit, axes, rank) if isinstance(unit, list) else [unit] * 3
    size = stated_size(along(resolution, axes, rank) or [None] * 3, units or [None] * 3)
    factors = along(attributes.get("downsamplingFactors"), axes, rank)
    if size.nm is not None and factors is not None:
        x, y, z = (s * float(f) for s, f in zip(size.nm, factors, strict=True))
        size = StatedSize((x, y, z))
    return Grid(axes, size, offset_nm(attributes.get("offset"), units, axes, rank))


_USUAL = ["t", "c", "z", "y", "x"]


def _attribute_names(attributes: Mapping[str, Any], driver: str) -> list[str] | None:
    """Axis names in the order in which tensorstore gives the axes.

    N5 lists the fastest axis first: programs in Python name the axes the other way round.
    """
    if driver != "n5":
        return axis_names(attributes)
    if (own := axis_names({"axes": attributes.get("axes")})) is not None:
        return own
    transform = attributes.get("transform")
    if isinstance(transform, Mapping) and (own := read_names(transform.get("axes"))):
        return own if str(transform.get("ordering", "C")).upper() == "F" else own[::-1]
    own = axis_names({**attributes, "axes": None})
    return None if own is None else own[::-1]


def _resolution(attributes: Mapping[str, Any]) -> tuple[Any, Any]:
    """The listed lengths of a voxel and their unit, or a list of units."""
    resolution = attributes.get("pixelResolution", attributes.get("resolution"))
    resolution = attributes.get("voxel_size", resolution)
    unit = attributes.get("units", attributes.get("unit", "nm"))
    if isinstance(resolution, Mapping):
        unit = resolution.get("unit", "nm")
        resolution = resolution.get("dimensions")
    return resolution, unit


def _transform(
    where: Folder | str, data: Mapping[str, Any], count: int
) -> tuple[list[float], list[float] | None]:
    """Scale and translation of OME-Zarr coordinate transformations.

    Raises:
        VolumeError: numbers for more or fewer axes than there are.
    """
    scale, offset = [1.0] * count, None
    for transform in data.get("coordinateTransformations") or []:
        kind = transform.get("type")
        if kind not in ("scale", "translation") or not isinstance(transform.get(kind), list):
            continue
        values = [float(v) for v in transform[kind]]
        if len(values) != count:
            raise VolumeError(where, f"a {kind} of {len(values)} numbers", f"{count} axes")
        if kind == "scale":
            scale = values
        else:
            offset = values
    return scale, offset
