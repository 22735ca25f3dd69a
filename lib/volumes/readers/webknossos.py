"""WEBKNOSSOS datasets: `datasource-properties.json` says how the arrays of its layers lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.volumes.boxes import Box, box_origin, box_shape, intersect, whole_box
from lib.volumes.errors import VolumeError
from lib.volumes.lengths import StatedSize, stated_size
from lib.volumes.readers.axes import read_names, space_axes
from lib.volumes.readers.chunked_sizes import Grid
from lib.volumes.readers.remote import Folder
from lib.volumes.readers.roles import Role
from lib.volumes.source import Cropped, Source

PROPERTIES = "datasource-properties.json"
MOST_ABOVE = 4
"""Folders above an array in which its dataset's properties are looked for."""

ReadJson = Callable[[Folder], dict[str, Any] | None]


@dataclass(frozen=True)
class Layer:
    """One magnification of a layer.

    Args:
        names: axis names, lower case; None where they are not stated.
        mag: voxels of the finest magnification in one of this, x, y, z.
        size: of a voxel of this magnification.
        box: where the layer has data, in voxels of this magnification; None if not stated.
    """

    names: list[str] | None
    mag: tuple[int, int, int]
    size: StatedSize
    box: Box | None

    def grid(self, where: Folder | str, shape: Sequence[int]) -> Grid:
        """How the array lies in space; c, x, y, z is what WEBKNOSSOS writes without a word."""
        names = self.names or list("cxyz")[-len(shape) :]
        return Grid(space_axes(where, shape, names), self.size)

    def inside(self, source: Source) -> Source:
        """The part of the array in which the layer has data, at its place in the dataset."""
        whole = whole_box(source.shape)
        box = whole if self.box is None else intersect(self.box, whole)
        if box is None:
            raise VolumeError(
                source.info.where, f"a bounding box {self.box} outside the array",
                f"voxels inside {whole}", f"correct {PROPERTIES}",
            )  # fmt: skip
        info = replace(source.info, shape=box_shape(box), origin=box_origin(box), placed=True)
        return Cropped(source, box, info)


def find_layer(folder: Folder, read: ReadJson) -> Layer | None:
    """What a WEBKNOSSOS dataset says of an array in it; None outside of such datasets.

    Raises:
        VolumeError: the dataset does not list the array.
    """
    root = folder
    for _ in range(MOST_ABOVE):
        root = root.parent
        properties = read(root / PROPERTIES)
        if properties is None:
            continue
        for layer in properties.get("dataLayers", []):
            for mag in _mags(layer):
                if _is_at(root, layer, mag, folder):
                    return _layer(properties, layer, mag)
        raise VolumeError(
            folder, f"an array that {root / PROPERTIES} does not list", "a layer's magnification"
        )
    return None


def choose_array(root: Folder, dataset: str, role: Role, read: ReadJson) -> str:
    """The array of a dataset that a user means: the finest magnification of a layer.

    Args:
        dataset: "" for the only layer of the role's category, LAYER, or LAYER/MAG.

    Returns:
        Its path from the dataset's folder.

    Raises:
        VolumeError: no such layer, or one in a format that is not read.
    """
    layers = {str(v.get("name")): v for v in (read(root / PROPERTIES) or {}).get("dataLayers", [])}
    category = "color" if role == "image" else "segmentation"
    name, _, wanted = dataset.strip("/").partition("/")
    fitting = [n for n, v in layers.items() if v.get("category") == category]
    if not name and len(fitting) == 1:
        name = fitting[0]
    if name not in layers:
        listed = ", ".join(f"{n} ({v.get('category')})" for n, v in layers.items()) or "none"
        raise VolumeError(
            root, f"no layer {name!r}" if name else f"{len(fitting)} layers of {category}",
            f"one named as {root.name}:LAYER", f"layers: {listed}",
        )  # fmt: skip
    layer = layers[name]
    kind = str(layer.get("dataFormat"))
    if kind not in ("zarr", "zarr3", "n5"):
        raise VolumeError(
            root, f"layer {name} in format {kind}", "zarr, zarr3 or n5",
            "convert it with `webknossos convert-zarr`",
        )  # fmt: skip
    paths = {_path(layer, mag): _factors(mag) for mag in _mags(layer)}
    for path in paths:
        if wanted and path.rpartition("/")[2] == wanted:
            return path
    if wanted or not paths:
        raise VolumeError(root, f"no magnification {wanted!r} of {name}", ", ".join(paths))
    return min(paths, key=lambda p: paths[p])


def _mags(layer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [m for m in layer.get("mags", layer.get("wkwResolutions", [])) if isinstance(m, dict)]


def _factors(mag: Mapping[str, Any]) -> tuple[int, int, int]:
    value = mag.get("mag", mag.get("resolution", 1))
    x, y, z = (int(v) for v in (value if isinstance(value, list) else [value] * 3))
    return x, y, z


def _path(layer: Mapping[str, Any], mag: Mapping[str, Any]) -> str:
    """The array's folder, from the dataset's."""
    if "path" in mag:
        return str(mag["path"]).removeprefix("./").strip("/")
    factors = _factors(mag)
    short = str(factors[0]) if len(set(factors)) == 1 else "-".join(str(f) for f in factors)
    return f"{layer.get('name')}/{short}"


def _is_at(root: Folder, layer: Mapping[str, Any], mag: Mapping[str, Any], folder: Folder) -> bool:
    place = root / _path(layer, mag)
    if isinstance(place, Path) and isinstance(folder, Path):
        return place.resolve() == folder.resolve()
    return str(place) == str(folder)


def _layer(
    properties: Mapping[str, Any], layer: Mapping[str, Any], mag: Mapping[str, Any]
) -> Layer:
    factors = _factors(mag)
    scale = properties.get("scale")
    unit: Any = "nm"
    if isinstance(scale, Mapping):
        unit, scale = scale.get("unit", "nm"), scale.get("factor")
    size = StatedSize()
    if isinstance(scale, list) and len(scale) == 3:
        size = stated_size([float(s) * m for s, m in zip(scale, factors, strict=True)], unit)
    return Layer(read_names(mag.get("axisOrder")), factors, size, _box(layer, factors))


def _box(layer: Mapping[str, Any], factors: tuple[int, int, int]) -> Box | None:
    """The layer's bounding box in voxels of a magnification; borders round outwards."""
    stated = layer.get("boundingBox")
    if not isinstance(stated, Mapping) or "topLeft" not in stated:
        return None
    extent = [int(stated[k]) for k in ("width", "height", "depth")]
    low = [int(v) for v in stated["topLeft"]]
    x, y, z = ((a // m, -(-(a + n) // m)) for a, n, m in zip(low, extent, factors, strict=True))
    return x, y, z
